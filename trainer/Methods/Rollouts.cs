using System.Diagnostics;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>What an iteration learns from; arrays per episode, of one number a response token where they are jagged.</summary>
/// <param name="Episodes">The sampled responses; the answers to a prompt lie side by side.</param>
/// <param name="Outcomes">What each response is worth: the clipped score, with the penalty for a missing end.</param>
/// <param name="Minibatches">The first epoch's.</param>
/// <param name="LogProbs">Of the policy that sampled.</param>
/// <param name="ReferenceLogProbs">Of the frozen reference.</param>
/// <param name="Values">Of the critic; empty places where there is none.</param>
internal sealed record Rollout(
    Episode[] Episodes, double[] Outcomes, int[][] Minibatches, float[][] LogProbs, float[][] ReferenceLogProbs, float[][] Values)
{
    /// <summary>Response tokens of each episode.</summary>
    public IReadOnlyList<int> Lengths { get; } = [.. Episodes.Select(episode => episode.Response.Length)];

    /// <summary>Response tokens of some episodes.</summary>
    public long Tokens(int[] chosen) => chosen.Sum(episode => (long)Lengths[episode]);

    /// <summary>1 on response tokens, [episodes, longest].</summary>
    public Tensor Mask() => JaggedRows.Mask(Lengths);

    /// <summary>log p - log q of every response token, [episodes, longest], 0 where there is none.</summary>
    public Tensor TokenKl() => Kl.K1(JaggedRows.Padded(LogProbs), JaggedRows.Padded(ReferenceLogProbs));
}

/// <summary>Answers of a policy to held-out prompts.</summary>
/// <param name="Episodes">The answers.</param>
/// <param name="Scores">The reward of each; no penalty, no clip.</param>
/// <param name="Kl">KL from the reference of each, k1 in nats.</param>
public sealed record ValidationAnswers(IReadOnlyList<Episode> Episodes, IReadOnlyList<float> Scores, IReadOnlyList<double> Kl)
{
    /// <summary>
    /// Lets the policy answer. The random numbers are the same whenever it is asked, so that points of a curve compare.
    /// </summary>
    internal static ValidationAnswers Of(
        Transformer policy, Transformer reference, RewardFunction rewards, IReadOnlyList<TokenizedPrompt> prompts,
        AnswerSampling sampling, ITokenizer tokenizer, long seed, string stage, int step)
    {
        Episode[] episodes = Methods.Episodes.Sample(
            policy, prompts, sampling.MaxNewTokens, sampling.Temperature, Seeds.For(seed, stage, 0, "validation"), tokenizer);
        float[] scores = rewards.Score(new AnswerBatch(episodes, tokenizer, $"{stage}/{step}/validation")).Totals;
        return new ValidationAnswers(
            episodes, scores, Methods.Episodes.Kl(policy, reference, episodes, sampling.Temperature, tokenizer.PadId));
    }
}

/// <summary>
/// The half of an iteration that PPO, RLOO and GRPO have in common: prompts, responses, their scores, and their log-probabilities under
/// policy and reference. A function of the policy, the run's seed and the iteration; it has no state of its own.
/// </summary>
internal sealed class Rollouts
{
    private readonly string stage;
    private readonly Transformer reference;
    private readonly Transformer? reward;
    private readonly RewardFunction rewards;
    private readonly OnlineSpec spec;
    private readonly int groupSize;
    private readonly IReadOnlyList<TokenizedPrompt> prompts;
    private readonly ITokenizer tokenizer;
    private readonly long seed;
    private readonly MicroBatches microBatches;

    /// <summary>Checks what can be checked before the first iteration.</summary>
    /// <param name="stage">The stage, for seeds and errors.</param>
    /// <param name="reference">The frozen reference; stays the caller's.</param>
    /// <param name="reward">The reward model; stays the caller's. Null where no reward model scores.</param>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="groupSize">Answers to each prompt; 1 in PPO.</param>
    /// <param name="prompts">Prompts to roll out.</param>
    /// <param name="tokenizer">For its end and padding tokens.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="microBatches">How passes over a minibatch are divided.</param>
    /// <param name="rewards">What scores the responses; stays the caller's. Null is the reward model alone.</param>
    public Rollouts(
        string stage, Transformer reference, Transformer? reward, OnlineSpec spec, int groupSize, IReadOnlyList<TokenizedPrompt> prompts,
        ITokenizer tokenizer, long seed, MicroBatches microBatches, RewardFunction? rewards = null)
    {
        if (prompts.Count == 0)
        {
            throw new JobInputException(
                $"The stage '{stage}' has no prompt to roll out.", "Give data.prompts, or preferences whose prompts can serve.");
        }

        if (prompts.FirstOrDefault(prompt => prompt.Prompt.Length + spec.MaxNewTokens > reference.Config.MaxPositions) is { } tooLong)
        {
            throw new JobInputException(
                $"Prompt {tooLong.Id} has {tooLong.Prompt.Length} tokens; with {spec.MaxNewTokens} new ones it exceeds "
                + $"the model's {reference.Config.MaxPositions} positions.",
                $"Lower model.maxPromptTokens or {stage}.maxNewTokens.");
        }

        this.stage = stage;
        this.reference = reference;
        this.reward = reward;
        this.rewards = RewardFunction.OrModel(rewards, reward);
        this.spec = spec;
        this.groupSize = groupSize;
        this.prompts = prompts;
        this.tokenizer = tokenizer;
        this.seed = seed;
        this.microBatches = microBatches;
    }

    /// <summary>
    /// Samples and assesses the episodes of an iteration. The very first one is preceded by the <see cref="Preflight"/>. Adds metrics
    /// (objective/, rollout/, reward/, timing/).
    /// </summary>
    /// <param name="policy">The policy as it is now.</param>
    /// <param name="iteration">The iteration, from 0.</param>
    /// <param name="metrics">Takes the figures.</param>
    /// <param name="critic">The value of the state before every response token of a batch, [tokens]; null without a critic.</param>
    /// <exception cref="PreflightFailedException">The preflight found wrong numbers.</exception>
    /// <exception cref="DivergedException">A score or log-probability is not finite.</exception>
    public Rollout Collect(
        Transformer policy, int iteration, Dictionary<string, double> metrics, Func<TokenBatch, Tensor>? critic = null)
    {
        TokenizedPrompt[] asked = [.. Prompts(iteration)];
        if (iteration == 0)
        {
            IReadOnlyDictionary<string, double> preflight = Preflight.Check(
                stage, policy, reference, reward, [.. asked.Where((_, i) => i % groupSize == 0).Select(prompt => prompt.Prompt)],
                spec.MaxNewTokens, spec.Temperature, tokenizer, SeedOf(iteration, "preflight"));
            foreach ((string check, double value) in preflight)
                metrics[check] = value;
        }

        var watch = Stopwatch.StartNew();
        Episode[] episodes = Episodes.Sample(
            policy, asked, spec.MaxNewTokens, spec.Temperature, SeedOf(iteration, "rollout"), tokenizer);
        Lap("generate");
        RewardScores scores = rewards.Score(new AnswerBatch(episodes, tokenizer, $"{stage}/{iteration}/rollout"));
        foreach ((string name, double mean) in scores.Metrics)
            metrics[name] = mean;
        Lap("score");
        double[] outcomes = [.. scores.Totals.Select((score, i) => Outcome(score, episodes[i].Ended))];
        var rollout = new Rollout(episodes, outcomes, Minibatches(iteration, epoch: 0), New(), New(), New());
        float[][] entropies = New();
        using (no_grad())
        {
            // Old log-probabilities come from the micro-batches of the first epoch, so that its first ratio is 1 to the last bit.
            foreach (int[] minibatch in rollout.Minibatches)
                microBatches.Run(minibatch.Length, some => Read(minibatch[some]));
            Lap("logprob");
            Report(rollout, entropies, metrics);
        }

        RolloutStatistics.Add(metrics, episodes, scores.Totals);
        if (!double.IsFinite(metrics["objective/kl"]) || outcomes.Any(outcome => !double.IsFinite(outcome)))
        {
            throw new DivergedException(
                $"{stage.ToUpperInvariant()} iteration {iteration}: a score or log-probability of the rollout is not finite.");
        }

        return rollout;

        void Read(int[] chosen)
        {
            using DisposeScope scope = NewDisposeScope();
            TokenBatch batch = Episodes.Batch(episodes, chosen, tokenizer.PadId, policy.Device);
            (Tensor logProbs, Tensor entropy) = Episodes.Policy(policy, batch, spec.Temperature);
            (Tensor other, _) = Episodes.Policy(reference, batch, spec.Temperature);
            JaggedRows.Unflatten(logProbs, chosen, rollout.Lengths, rollout.LogProbs);
            JaggedRows.Unflatten(other, chosen, rollout.Lengths, rollout.ReferenceLogProbs);
            JaggedRows.Unflatten(entropy, chosen, rollout.Lengths, entropies);
            if (critic is not null)
                JaggedRows.Unflatten(critic(batch), chosen, rollout.Lengths, rollout.Values);
        }

        float[][] New() => new float[episodes.Length][];

        void Lap(string phase)
        {
            metrics[$"timing/{phase}"] = watch.Elapsed.TotalSeconds;
            watch.Restart();
        }
    }

    /// <summary>The minibatches of an epoch over an iteration's episodes.</summary>
    public int[][] Minibatches(int iteration, int epoch) =>
        [.. Seeds.Permutation(spec.Episodes, SeedOf(iteration, $"minibatches {epoch}")).Chunk(spec.MinibatchSize)];

    /// <summary>
    /// What learning rates are multiplied by: a tenth at first, all of it after the warm-up (InstructGPT, appendix C.4), then the schedule.
    /// </summary>
    public double RateFactor(int iteration)
    {
        if (iteration < spec.WarmupIterations)
            return 0.1 + 0.9 * iteration / spec.WarmupIterations;
        return spec.Schedule switch
        {
            ScheduleKind.Linear => Schedules.Linear(iteration, spec.WarmupIterations, spec.Iterations),
            ScheduleKind.Cosine => Schedules.Cosine(iteration, spec.WarmupIterations, spec.Iterations),
            _ => 1,
        };
    }

    /// <summary>Lets the policy answer held-out prompts as it answers in rollouts.</summary>
    public ValidationAnswers Validate(Transformer policy, int iteration, IReadOnlyList<TokenizedPrompt> validation) =>
        ValidationAnswers.Of(
            policy, reference, rewards, validation, new AnswerSampling(spec.MaxNewTokens, spec.Temperature, validation.Count), tokenizer,
            seed, stage, iteration);

    /// <summary>How far into the data an iteration ends: episodes so far, and passes over the prompts.</summary>
    public void AddProgress(int iterations, Dictionary<string, double> metrics)
    {
        metrics["episode"] = (double)iterations * spec.Episodes;
        metrics["epoch"] = (double)iterations * spec.Episodes / groupSize / prompts.Count;
    }

    /// <summary>Prompts of an iteration, each as often as it is answered: the next ones of an endless row of seeded permutations.</summary>
    private IEnumerable<TokenizedPrompt> Prompts(int iteration)
    {
        int count = spec.Episodes / groupSize;
        long first = (long)iteration * count;
        foreach (IGrouping<long, long> epoch in Enumerable.Range(0, count).Select(i => first + i).GroupBy(i => i / prompts.Count))
        {
            int[] order = Seeds.Permutation(prompts.Count, Seeds.For(seed, stage, epoch.Key, "prompts"));
            foreach (long i in epoch)
            {
                for (int answer = 0; answer < groupSize; answer++)
                    yield return prompts[order[i % prompts.Count]];
            }
        }
    }

    /// <summary>What a response is worth: the clipped score, with the penalty for a missing end (N+, detail 5).</summary>
    private double Outcome(double score, bool ended)
    {
        double clipped = spec.RewardClip > 0 ? Math.Clamp(score, -spec.RewardClip, spec.RewardClip) : score;
        return (ended, spec.MissingEos) switch
        {
            (false, MissingEosMode.Replace) => spec.MissingEosValue,
            (false, MissingEosMode.Subtract) => clipped - spec.MissingEosValue,
            _ => clipped,
        };
    }

    private static void Report(Rollout rollout, float[][] entropies, Dictionary<string, double> metrics)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor mask = rollout.Mask(), k1 = rollout.TokenKl();
        Tensor k3 = Kl.K3(JaggedRows.Padded(rollout.LogProbs), JaggedRows.Padded(rollout.ReferenceLogProbs));
        metrics["objective/kl"] = (k1 * mask).sum(-1).mean().ToDouble();
        metrics["objective/kl_k3"] = (k3 * mask).sum(-1).mean().ToDouble();
        metrics["objective/kl_per_token"] = Masked.Mean(k1, mask).ToDouble();
        metrics["objective/entropy"] = Masked.Mean(JaggedRows.Padded(entropies), mask).ToDouble();
        metrics["objective/score_after_penalty"] = rollout.Outcomes.Average();
    }

    private ulong SeedOf(int iteration, string purpose) => Seeds.For(seed, stage, iteration, purpose);
}
