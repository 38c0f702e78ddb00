using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Xunit;

namespace Rlhf.Trainer.Tests.Methods;

public class RewardModelTests
{
    private static readonly RewardSpec Spec = new() { LearningRate = 3e-3, Epochs = 12, BatchSize = 8 };

    [Fact]
    public void Learns_the_ranking_and_centres_the_demonstrations()
    {
        using Transformer sft = Toy.Model();
        using RewardModel method = Fresh(sft, Spec);
        while (method.Step < method.TotalSteps)
            method.Advance();
        IReadOnlyDictionary<string, double> summary = method.Summary();
        Assert.Equal(64, summary["val/pairs"]); // three completions, of which two tie: two pairs of each of 32 prompts
        Assert.True(summary["val/accuracy"] > 0.95, $"accuracy {summary["val/accuracy"]}");
        Assert.Equal(summary["val/accuracy"], (summary["val/accuracy/even"] + summary["val/accuracy/odd"]) / 2, 1e-9);
        Assert.True(summary["val/loss"] < 0.3);
        Assert.True(summary["pad_invariance_max"] < 1e-5, $"padding changes a score by {summary["pad_invariance_max"]}");

        using Transformer exported = method.Export();
        Assert.Equal(summary["bias"], exported.Config.RewardBias);
        float[] rewards = Rewards.Score(
            exported, [.. Toy.Demonstrations.Select(row => (int[])[.. row.Prompt, .. row.Completion])], Toy.Tokenizer.PadId);
        Assert.Equal(0, rewards.Average(), 1e-5);
    }

    [Fact]
    public void Resumed_equals_uninterrupted_byte_for_byte()
    {
        using Transformer sft = Toy.Model();
        MemoryCheckpoint.AssertResumes(() => Fresh(sft, Spec with { BatchSize = 5, CentreCoefficient = 0.01 }));
    }

    [Fact]
    public void The_first_loss_is_the_mean_over_prompts_of_equation_1()
    {
        using Transformer sft = Toy.Model();
        using RewardModel method = Fresh(sft, Spec with { BatchSize = 32, Epochs = 1 });
        using Transformer untrained = method.Export();
        float[][] rewards = RewardModel.Score(untrained, Toy.Preferences, Toy.Tokenizer.PadId);
        double expected = rewards.Average(r => (Loss(r[1] - r[0]) + Loss(r[1] - r[2])) / 2);
        Assert.Equal(expected, method.Advance()["loss"], 1e-5);

        static double Loss(double gap) => Math.Log(1 + Math.Exp(-gap));
    }

    [Fact]
    public void Rows_of_ties_only_are_left_out_and_nothing_but_ties_is_refused()
    {
        using Transformer sft = Toy.Model();
        TokenizedPreference[] ties = [.. Toy.Preferences.Select(row => row with { Ranks = [1, 1, 1] })];
        using RewardModel method = new(sft, Spec, [.. ties, .. Toy.Preferences.Take(8)], [], [], Toy.Tokenizer, 1);
        Assert.Equal(Spec.Epochs, method.TotalSteps);
        Assert.Throws<JobInputException>(() => new RewardModel(sft, Spec, ties, [], [], Toy.Tokenizer, 1));
    }

    [Fact]
    public void Ranking_figures_are_those_computed_by_hand()
    {
        // Rewards 2 > 1 for (long, short): right and longer; 0 > 3 for (short, long): wrong and longer; equal lengths count half.
        TokenizedPreference[] rows =
        [
            new("a", "x", [1], [[1, 2, 3], [1]], [1, 2]),
            new("b", "y", [1], [[1], [1, 2, 3]], [1, 2]),
            new("c", "y", [1], [[1, 2], [1, 3]], [2, 1]),
        ];
        IReadOnlyDictionary<string, double> metrics = RankingAccuracy.Measure(rows, [[2, 1], [0, 3], [-1, 1]]);
        Assert.Equal(2 / 3.0, metrics["accuracy"], 1e-12);
        Assert.Equal(1, metrics["accuracy/x"]);
        Assert.Equal(0.5, metrics["accuracy/y"]);
        Assert.Equal(0.5, metrics["longer_accuracy"], 1e-12);
        Assert.Equal(0.25, metrics["longer_accuracy/y"], 1e-12);
        Assert.Equal(2, metrics["pairs/y"]);
        Assert.Equal(0, metrics["margin_mean"], 1e-12); // gaps 1, -3, 2
        Assert.Equal(Math.Sqrt(14 / 3.0), metrics["margin_std"], 1e-12);
        double expectedLoss = new[] { 1.0, -3, 2 }.Average(gap => Math.Log(1 + Math.Exp(-gap)));
        Assert.Equal(expectedLoss, metrics["loss"], 1e-12);

        // Confidences σ(1) = .731 right, σ(3) = .953 wrong, σ(2) = .881 right: three bins of one pair each.
        Assert.Equal((1 - 0.7310586 + 0.9525741 + 1 - 0.8807971) / 3, metrics["ece"], 1e-6);
        Assert.Equal(RankingAccuracy.Correlation([2, 1, 0, 3, -1, 1], [3, 1, 1, 3, 2, 2]), metrics["length_correlation"], 1e-12);
    }

    [Fact]
    public void Correlation_is_Pearsons()
    {
        Assert.Equal(1, RankingAccuracy.Correlation([1, 2, 3], [10, 20, 30]), 1e-12);
        Assert.Equal(-1, RankingAccuracy.Correlation([1, 2, 3], [3, 2, 1]), 1e-12);
        Assert.Equal(0.5, RankingAccuracy.Correlation([1, 2, 3], [1, 3, 2]), 1e-12);
        Assert.Equal(0, RankingAccuracy.Correlation([1, 2, 3], [5, 5, 5]));
    }

    private static RewardModel Fresh(Transformer sft, RewardSpec spec) =>
        new(sft, spec, Toy.Preferences, Toy.Preferences, Toy.Demonstrations, Toy.Tokenizer, seed: 2);
}
