using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

public sealed class DpoTests(PpoTests.Trained trained) : IClassFixture<PpoTests.Trained>
{
    private static readonly DpoSpec Spec = new() { Epochs = 6, BatchSize = 8, LearningRate = 1e-3, Beta = 0.5 };
    private static readonly AnswerSampling Sampling = new(MaxNewTokens: 6, Temperature: 1, ValidationPrompts: 32);

    [Theory]
    [InlineData(PreferenceLossKind.Sigmoid, 0)]
    [InlineData(PreferenceLossKind.Sigmoid, 0.1)]
    [InlineData(PreferenceLossKind.Ipo, 0)]
    public void Learns_the_ranking_and_answers_better(PreferenceLossKind loss, double smoothing)
    {
        using Dpo dpo = Fresh(Spec with { Loss = loss, LabelSmoothing = smoothing });
        double before = dpo.Validate(Toy.TokenizedPrompts).Scores.Average();
        List<IReadOnlyDictionary<string, double>> metrics = [];
        while (dpo.Step < dpo.TotalSteps)
            metrics.Add(dpo.Advance());

        // Before the first step policy and reference agree to the last bit: no reward, no margin.
        Assert.Equal(loss == PreferenceLossKind.Ipo ? 1 : Math.Log(2), metrics[0]["loss"], 1e-6);
        foreach (string name in (string[])["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"])
            Assert.Equal(0, metrics[0][name]);
        Assert.Equal(0, metrics[0]["preflight/kl_error"]);
        Assert.Equal(16, metrics[0]["pairs"]); // of three completions the two wrong ones tie

        IReadOnlyDictionary<string, double> summary = dpo.Summary();
        Assert.True(summary["val/loss"] < metrics[0]["loss"]);
        Assert.True(summary["val/rewards/accuracies"] > 0.9, $"accuracy {summary["val/rewards/accuracies"]:0.00}");
        Assert.Equal(
            summary["val/rewards/margins"], summary["val/rewards/chosen"] - summary["val/rewards/rejected"], 1e-5);
        Assert.True(summary["val/logps/chosen"] > summary["val/logps/rejected"]);
        ValidationAnswers after = dpo.Validate(Toy.TokenizedPrompts);
        Assert.True(after.Scores.Average() > before + 0.2, $"score {before:0.00} to {after.Scores.Average():0.00}");
        Assert.True(after.Kl.Average() > 0.05);
    }

    [Theory]
    [InlineData(PreferenceLossKind.Sigmoid)]
    [InlineData(PreferenceLossKind.Ipo)]
    public void Resumed_equals_uninterrupted_byte_for_byte(PreferenceLossKind loss) =>
        MemoryCheckpoint.AssertResumes(() => Fresh(Spec with { BatchSize = 12, Epochs = 2, Loss = loss }));

    [Theory]
    [InlineData(PreferenceLossKind.Sigmoid)]
    [InlineData(PreferenceLossKind.Ipo)]
    public void Implied_rewards_are_what_the_log_probabilities_say(PreferenceLossKind loss)
    {
        using Dpo dpo = Fresh(Spec with { Loss = loss });
        for (int i = 0; i < 5; i++)
            dpo.Advance();

        // Row by row, without batch and padding.
        double[] chosen = [.. Toy.Preferences.Select(row => Reward(row.Prompt, row.Completions[1]))];
        double[] rejected =
            [.. Toy.Preferences.Select(row => (Reward(row.Prompt, row.Completions[0]) + Reward(row.Prompt, row.Completions[2])) / 2)];
        IReadOnlyDictionary<string, double> summary = dpo.Summary();
        Assert.Equal(chosen.Average(), summary["val/rewards/chosen"], 1e-4);
        Assert.Equal(rejected.Average(), summary["val/rewards/rejected"], 1e-4);

        double Reward(int[] prompt, int[] completion)
        {
            double gap = Episodes.Kl(dpo.Policy, trained.Sft, [new Episode(prompt, completion, Ended: true)], 1, Toy.Tokenizer.PadId)[0];
            return Spec.Beta * (loss == PreferenceLossKind.Ipo ? gap / completion.Length : gap);
        }
    }

    [Fact]
    public void Label_smoothing_keeps_margins_small()
    {
        double sharp = Margin(0), smooth = Margin(0.3);
        Assert.True(smooth < sharp / 2, $"margin {sharp:0.00} without, {smooth:0.00} with smoothing");

        double Margin(double smoothing)
        {
            using Dpo dpo = Fresh(Spec with { LabelSmoothing = smoothing, Epochs = 12 });
            while (dpo.Step < dpo.TotalSteps)
                dpo.Advance();
            return dpo.Summary()["val/rewards/margins"];
        }
    }

    [Fact]
    public void Preferences_that_all_tie_are_refused()
    {
        TokenizedPreference[] ties = [.. Toy.Preferences.Select(row => row with { Ranks = [1, 1, 1] })];
        var error = Assert.Throws<JobInputException>(
            () => new Dpo(trained.Sft, trained.Reward, Spec, Sampling, ties, [], Toy.Tokenizer, seed: 6));
        Assert.Contains("different rank", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_policy_that_is_not_the_reference_is_found_before_the_first_step()
    {
        using Dpo dpo = Fresh(Spec);
        using (no_grad())
            dpo.Policy.NamedWeights()[0].Value.mul_(1.01);
        Assert.Equal("kl_error", Assert.Throws<PreflightFailedException>(() => dpo.Advance()).Check);
    }

    private Dpo Fresh(DpoSpec spec) =>
        new(trained.Sft, trained.Reward, spec, Sampling, Toy.Preferences, Toy.Preferences, Toy.Tokenizer, seed: 6);
}
