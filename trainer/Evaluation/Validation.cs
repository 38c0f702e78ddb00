using Rlhf.Jobs;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Rlhf.World;

namespace Rlhf.Trainer.Evaluation;

/// <summary>The figures that the orchestrator decides by: at the gates after the reward model, as guard after each slice of an online method.</summary>
internal static class Validation
{
    /// <summary>Answers that the correlation with the judge is taken over.</summary>
    private const int CorrelationAnswers = 512;

    /// <summary>
    /// An aligned model on validation prompts: <c>kl</c> (k1 against the SFT model, nats per answer), <c>proxy_reward</c>, in the sample world
    /// <c>gold_reward</c>, each with its interval; <c>validation/response_length</c> and <c>validation/eos_rate</c>.
    /// </summary>
    public static IReadOnlyDictionary<string, double> OfPolicy(IPolicyMethod method, IReadOnlyList<Row> rows, RowTokenizer tokenizer)
    {
        var metrics = new Dictionary<string, double>();
        if (rows.Count == 0)
            return metrics;
        (IReadOnlyList<Episode> episodes, IReadOnlyList<float> scores, IReadOnlyList<double> kl) =
            method.Validate([.. rows.Select(tokenizer.PromptOnly)]);
        Add(DecisionMetrics.Kl, [.. kl]);
        Add(DecisionMetrics.ProxyReward, [.. scores.Select(score => (double)score)]);
        double[] gold =
        [
            .. episodes.Zip(rows, (answer, row) => (Answer: answer, Truth: Gold.TruthOf(row)))
                .Where(pair => pair.Truth is not null)
                .Select(pair => Gold.Score(pair.Truth!, pair.Answer, tokenizer).Total),
        ];
        if (gold.Length > 0)
            Add(DecisionMetrics.GoldReward, gold);
        metrics["validation/response_length"] = episodes.Average(episode => episode.Response.Length);
        metrics["validation/eos_rate"] = episodes.Average(episode => episode.Ended ? 1.0 : 0.0);
        return metrics;

        void Add(string name, double[] values)
        {
            Estimate estimate = Estimate.OfMean(values);
            metrics[name] = estimate.Value;
            metrics[name + DecisionMetrics.Ci95] = estimate.Ci95;
        }
    }

    /// <summary>
    /// In the sample world, <c>gold_correlation</c>: Pearson's correlation of reward model and judge over answers that the SFT model
    /// samples to held-out preference prompts. Those are the answers that alignment starts from; agreement on the writer's would say less.
    /// </summary>
    public static IReadOnlyDictionary<string, double> OfReward(
        RewardModel reward, LoadedModel sft, IReadOnlyList<Row> rows, RowTokenizer tokenizer, RunSpec spec)
    {
        AnswerSampling sampling = spec.Answers();
        Row[] judged = [.. rows.Where(row => row.Truth is not null).Take(CorrelationAnswers)];
        if (judged.Length == 0)
            return new Dictionary<string, double>();
        int each = Math.Clamp(CorrelationAnswers / judged.Length, 1, 4);
        Row[] asked = [.. judged.SelectMany(row => Enumerable.Repeat(row, each))];
        Episode[] answers = Episodes.Sample(
            sft.Model, [.. asked.Select(row => tokenizer.Prompt(row.Prompt))], sampling.MaxNewTokens, sampling.Temperature,
            Seeds.For(spec.Seed, Stages.Reward, 0, DecisionMetrics.GoldCorrelation), sft.Tokenizer);
        using Transformer scorer = reward.Export();
        float[] scores = Rewards.Score(scorer, [.. answers.Select(answer => answer.Sequence())], sft.Tokenizer.PadId);
        double[] gold = [.. answers.Zip(asked, (answer, row) => Gold.Score(Gold.TruthOf(row)!, answer, tokenizer).Total)];
        return new Dictionary<string, double>
        {
            [DecisionMetrics.GoldCorrelation] = RankingAccuracy.Correlation([.. scores.Select(score => (double)score)], gold),
        };
    }
}
