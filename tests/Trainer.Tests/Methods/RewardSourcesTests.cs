using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;
using Xunit;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>Rewards that are programs, alone, added up, and as what PPO learns from.</summary>
public sealed class RewardSourcesTests
{
    [Theory]
    [InlineData("^[a-z]+$", "blue", 1)]
    [InlineData("^[a-z]+$", "blue sky", 0)]
    [InlineData("(?i)BLUE", "It is blue.", 1)]
    [InlineData(@"(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", 0)]
    [InlineData(@"\d{3}", "call 112", 1)]
    public void A_pattern_is_found_or_not(string pattern, string answer, float expected) =>
        Assert.Equal(expected, Score(new RewardSourceSpec { Source = RewardSourceKind.Regex, Pattern = pattern }, answer));

    [Theory]
    [InlineData(3, null, null, 2, 0)]
    [InlineData(3, null, null, 3, 1)]
    [InlineData(null, 3, null, 3, 1)]
    [InlineData(null, 3, null, 4, 0)]
    [InlineData(2, 3, null, 1, 0)]
    [InlineData(null, null, 4, 4, 0)]
    [InlineData(null, null, 4, 1, -0.75)]
    [InlineData(null, null, 4, 6, -0.5)]
    public void Length_counts_tokens_without_the_end(int? min, int? max, int? target, int tokens, double expected)
    {
        RewardSourceSpec spec = new() { Source = RewardSourceKind.Length, MinTokens = min, MaxTokens = max, TargetTokens = target };
        int[] answer = [.. Enumerable.Repeat(5, tokens)];
        Episode ended = new([5], [.. answer, Toy.Tokenizer.EosId], Ended: true), cut = new([5], answer, Ended: false);
        Assert.Equal([(float)expected, (float)expected], Function(spec).Score(Batch(ended, cut)).Totals);
    }

    [Theory]
    [InlineData("blue", " blue\n", false, 1)]
    [InlineData("Blue", "blue", false, 0)]
    [InlineData("Blue", "blue", true, 1)]
    [InlineData("blue", "blue.", true, 0)]
    public void An_answer_is_the_reference_or_not(string reference, string answer, bool ignoreCase, float expected) =>
        Assert.Equal(
            expected, Score(new RewardSourceSpec { Source = RewardSourceKind.ExactMatch, IgnoreCase = ignoreCase }, answer, reference));

    [Fact]
    public void A_prompt_without_reference_answer_is_named()
    {
        var error = Assert.Throws<JobInputException>(() => Score(new RewardSourceSpec { Source = RewardSourceKind.ExactMatch }, "blue"));
        Assert.Contains("'Colour of the sky:' has no reference answer", error.Message, StringComparison.Ordinal);
        Assert.Contains("\"answer\"", error.Remedy, StringComparison.Ordinal);
    }

    [Fact]
    public void Scores_are_added_up_by_weight_and_reported_apart()
    {
        RewardScores scores = Function(
            new RewardSourceSpec { Source = RewardSourceKind.ExactMatch, Weight = 2 },
            new RewardSourceSpec { Source = RewardSourceKind.Regex, Name = "shouting", Pattern = "!", Weight = -0.5 }).Score(
            Batch(Answer("blue", "blue"), Answer("blue!", "blue"), Answer("red", "blue"), Answer("red", "red")));
        Assert.Equal([2, -0.5f, 0, 2], scores.Totals);
        Assert.Equal(
            new Dictionary<string, double> { ["objective/reward/exactMatch"] = 0.5, ["objective/reward/shouting"] = 0.25 },
            scores.Metrics);
    }

    [Fact]
    public void The_reward_model_alone_scores_as_it_always_did_and_adds_no_metric()
    {
        using Transformer language = Toy.Model(), model = Transformer.WithScoreHead(language, 3);
        Episode[] answers = [Answer("blue"), Answer("It is green.")];
        RewardScores alone = Function(model).Score(Batch(answers));
        Assert.Equal(Rewards.Score(model, [.. answers.Select(answer => answer.Sequence())], Toy.Tokenizer.PadId), alone.Totals);
        Assert.Empty(alone.Metrics);

        RewardScores named = Function(model, new RewardSourceSpec { Source = RewardSourceKind.Model }).Score(Batch(answers));
        Assert.Equal(alone.Totals, named.Totals);
        Assert.Equal(alone.Totals.Average(), named.Metrics["objective/reward/model"], 1e-6);
    }

    [Fact]
    public void Ppo_learns_from_a_program_without_any_reward_model_and_resumes_to_the_byte()
    {
        using Transformer sft = HalfTrained();
        RewardSourceSpec[] rewards =
        [
            new() { Source = RewardSourceKind.ExactMatch },
            new() { Source = RewardSourceKind.Length, TargetTokens = 2, Weight = 0.1 },
        ];
        PpoSpec spec = new()
        {
            Iterations = 20,
            Episodes = 32,
            MinibatchSize = 16,
            MaxNewTokens = 6,
            LearningRate = 2e-3,
            CriticLearningRate = 2e-3,
            KlCoefficient = 0.02,
        };
        using (Ppo ppo = Fresh())
        {
            List<IReadOnlyDictionary<string, double>> metrics = [];
            while (ppo.Step < ppo.TotalSteps)
                metrics.Add(ppo.Advance());
            double first = metrics.Take(3).Average(m => m["objective/reward/exactMatch"]);
            double last = metrics.TakeLast(3).Average(m => m["objective/reward/exactMatch"]);
            Assert.True(last > first + 0.2, $"exact matches {first:0.00} to {last:0.00}");
            Assert.All(metrics, m => Assert.Equal(
                m["objective/scores"], m["objective/reward/exactMatch"] + 0.1 * m["objective/reward/length"], 1e-6));
            Assert.All(metrics, m => Assert.Equal(1, m["policy/ratio_first_minibatch"]));
            Assert.DoesNotContain("preflight/reward_pad_error", metrics[0]);
        }

        MemoryCheckpoint.AssertResumes(Fresh);

        Ppo Fresh() => new(sft, null, spec, Toy.TokenizedPrompts, [], Toy.Tokenizer, seed: 6, rewards: Function(rewards));
    }

    private static Transformer HalfTrained()
    {
        Transformer model = Toy.Model();
        SftSpec spec = new() { LearningRate = 5e-3, Epochs = 12, BatchSize = 8 };
        using var sft = new Sft(model, spec, Toy.Demonstrations, [], Toy.Tokenizer, maxNewTokens: 8, seed: 1);
        while (sft.Step < sft.TotalSteps)
            sft.Advance();
        return model;
    }

    private static RewardFunction Function(params RewardSourceSpec[] sources) =>
        RewardFunction.Create(sources, () => throw new InvalidOperationException("no source asks for a model"), "run-1", _ => null);

    private static RewardFunction Function(Transformer model, params RewardSourceSpec[] sources) =>
        RewardFunction.Create(sources, () => model, "run-1", _ => null);

    private static float Score(RewardSourceSpec spec, string answer, string? reference = null) =>
        Function(spec).Score(Batch(Answer(answer, reference))).Totals[0];

    private static Episode Answer(string text, string? reference = null) => new(
        Toy.Tokenizer.Encode("Colour of the sky:"), [.. Toy.Tokenizer.Encode(" " + text), Toy.Tokenizer.EosId], Ended: true)
    {
        Reference = reference,
    };

    private static AnswerBatch Batch(params Episode[] answers) => new(answers, Toy.Tokenizer, "ppo/0/rollout");
}
