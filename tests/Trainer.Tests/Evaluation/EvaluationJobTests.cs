using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Evaluation;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tests.Methods;
using Xunit;

namespace Rlhf.Trainer.Tests.Evaluation;

/// <summary>The whole evaluation on toy models, with every data set that it can take.</summary>
public sealed class EvaluationJobTests
{
    private static readonly string[] Roles =
        [ModelRoles.Base, ModelRoles.Sft, ModelRoles.Reward, ModelRoles.HeldOutReward, ModelRoles.Ppo];

    private static readonly EvaluateSpec Spec = new() { MaxPrompts = 70, MaxNewTokens = 4, BestOf = [2], FewShot = 0, Samples = 1 };

    [Fact]
    public void InterruptedAnywhereItEndsWithTheSameReport()
    {
        using EvaluationJob whole = Create();
        while (whole.Step < whole.TotalSteps)
            whole.Advance();
        string expected = JsonSerializer.Serialize(whole.Report(), RlhfJson.Compact);

        // Every step in a job of its own, as if each had been interrupted after it.
        EvaluationJob job = Create();
        while (job.Step < job.TotalSteps)
        {
            job.Advance();
            EvaluationJob next = Create();
            next.Load(MemoryCheckpoint.Of(job));
            job.Dispose();
            job = next;
        }

        Assert.Equal(expected, JsonSerializer.Serialize(job.Report(), RlhfJson.Compact));
        job.Dispose();
    }

    [Fact]
    public void EveryFigureIsThere()
    {
        using EvaluationJob job = Create();
        while (job.Step < job.TotalSteps)
            job.Advance();
        EvaluationReport report = job.Report();

        foreach (string model in (string[])[ModelRoles.Base, ModelRoles.Sft, ModelRoles.Ppo])
        {
            foreach (string metric in (string[])["loss", "perplexity", "comparison_likelihood", "comparison_likelihood_per_token"])
                Assert.True(double.IsFinite(Findings.Find(report, model, metric)!.Value));
            Assert.Equal(2, Findings.Find(report, model, "comparison_likelihood", "honest")!.N);
            Assert.Equal(66, Findings.Find(report, model, "full_refusal", "safe")!.N);
        }

        Assert.Equal(4, Findings.Find(report, ModelRoles.Reward, "comparison_reward")!.N);
        Assert.Equal(70, Findings.Find(report, ModelRoles.Ppo, "win_rate")!.N);
        Assert.InRange(Findings.Find(report, ModelRoles.Ppo, "win_rate_proxy")!.Value, 0, 1);
        Assert.Null(Findings.Find(report, ModelRoles.Ppo, "win_rate_gold"));
        Assert.Contains(report.RewardModel, row => row is { Subset: "all", Metric: "bag_of_words", N: 3 });
        Assert.Contains(report.RewardModel, row => row is { Subset: RewardAgreement.UnseenLabeller, Metric: "accuracy" });
        Assert.Equal(job.Report().Table.Count, job.Summary().Count);
    }

    [Fact]
    public void PreferredCompletionsServeWhereNoDemonstrationIsHeldOut()
    {
        using EvaluationJob job = Create(data => data with { Demonstrations = [], Preferences = [Ranked("Who?", "x", "Bob.", "The man.")] });
        while (job.Step < job.TotalSteps)
            job.Advance();

        int tokens = Toy.Tokenizer.Encode(" Bob.").Length + 1;
        Assert.Equal(tokens, Findings.Find(job.Report(), ModelRoles.Sft, "loss")!.N);
    }

    [Fact]
    public void WithoutARewardModelTheLikelihoodsAreLeft()
    {
        using EvaluationJob job = Create(roles: [ModelRoles.Base, ModelRoles.Sft]);
        while (job.Step < job.TotalSteps)
            job.Advance();
        EvaluationReport report = job.Report();

        foreach (string model in (string[])[ModelRoles.Base, ModelRoles.Sft])
        {
            Assert.Equal(4, Findings.Find(report, model, "comparison_likelihood")!.N);
            Assert.NotNull(Findings.Find(report, model, "loss"));
        }

        Assert.Equal(.5, Findings.Find(report, "chance", "comparison_likelihood", "honest")!.Value);
        Assert.DoesNotContain(report.Table, row => row.Metric is "proxy_reward" or "comparison_reward");
        Assert.Empty(report.Samples);
        Assert.Empty(report.RewardModel);
        Assert.Contains("all comparisons", Assert.Single(report.Notes), StringComparison.Ordinal);
    }

    private static EvaluationJob Create(Func<EvaluationData, EvaluationData>? change = null, string[]? roles = null)
    {
        var data = new EvaluationData
        {
            Prompts = [.. Enumerable.Range(0, 70).Select(i => Prompt($"What is {i}?"))],
            Demonstrations = [Prompt("Sky?") with { Completions = ["blue"] }, Prompt("Sea?") with { Completions = ["deep blue"] }],
            Preferences = [Ranked("Sun?", "x", "yellow", "green"), Ranked("Milk?", "y", "white", "blue"), Ranked("Leaf?", "y", "green", "white")],
            TrainingPreferences = [Ranked("Corn?", "x", "yellow", "blue"), Ranked("Snow?", "y", "white", "green"), Ranked("Oil?", "y", "yellow", "white")],
            ValidationPreferences = [Ranked("Tea?", "x", "yellow", "white")],
            UnseenLabellers = [Ranked("Ink?", "x", "blue", "white")],
            Comparisons =
            [
                Ranked("Lie?", "honest", "no", "yes"), Ranked("Steal?", "honest", "no", "of course"),
                Ranked("Harm?", "harmless", "no", "yes"), Ranked("Help?", "helpful", "yes", "no"),
            ],
            Safety = [.. Enumerable.Range(0, 67).Select(i => Prompt($"Kill {i}?") with { Label = i == 0 ? "unsafe" : "safe" })],
        };
        var model = new ModelSpec { ChatTemplate = ChatTemplateName.Plain, MaxPromptTokens = 24, MaxCompletionTokens = 12 };
        return new EvaluationJob(
            Spec, PreferenceMethod.Ppo, roles ?? Roles, change is null ? data : change(data),
            loaded => new RowTokenizer(loaded.Tokenizer, model, loaded.Config.MaxPositions, Spec.MaxNewTokens), Load, seed: 3);
    }

    /// <summary>Another model for each role; those that score have a head.</summary>
    private static LoadedModel Load(string role)
    {
        Transformer trunk = Toy.Model(seed: (ulong)Array.IndexOf(Roles, role) + 1);
        if (role is not (ModelRoles.Reward or ModelRoles.HeldOutReward))
            return new LoadedModel(trunk, Toy.Tokenizer, trunk.Config);
        using (trunk)
        {
            Transformer scorer = Transformer.WithScoreHead(trunk, 5);
            return new LoadedModel(scorer, Toy.Tokenizer, scorer.Config);
        }
    }

    private static Row Prompt(string text)
    {
        Turn[] turns = [new Turn("user", text)];
        return new Row { Id = Row.IdOf(turns, []), Prompt = turns };
    }

    private static Row Ranked(string prompt, string subset, string better, string worse) =>
        Prompt(prompt) with { Subset = subset, Completions = [better, worse], Ranks = [1, 2] };
}
