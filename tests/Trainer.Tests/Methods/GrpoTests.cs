using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Xunit;

namespace Rlhf.Trainer.Tests.Methods;

public sealed class GrpoTests(PpoTests.Trained trained) : IClassFixture<PpoTests.Trained>
{
    private static readonly GrpoSpec Spec = new()
    {
        Iterations = 20,
        Episodes = 32,
        GroupSize = 8,
        MinibatchSize = 16,
        Epochs = 2,
        MaxNewTokens = 6,
        LearningRate = 2e-3,
        KlCoefficient = 0.02,
    };

    [Theory]
    [InlineData(TokenAggregation.SequenceMean, true)]
    [InlineData(TokenAggregation.FixedLength, false)]
    public void Raises_the_reward_and_keeps_its_invariants(TokenAggregation aggregation, bool scale)
    {
        using Grpo grpo = Fresh(Spec with { Aggregation = aggregation, ScaleAdvantages = scale });
        List<IReadOnlyDictionary<string, double>> metrics = [];
        while (grpo.Step < grpo.TotalSteps)
            metrics.Add(grpo.Advance());

        double first = metrics.Take(3).Average(m => m["objective/score_after_penalty"]);
        double last = metrics.TakeLast(3).Average(m => m["objective/score_after_penalty"]);
        Assert.True(last > first + 0.3, $"reward {first:0.00} to {last:0.00}");
        Assert.All(metrics, m => Assert.Equal(1, m["policy/ratio_first_minibatch"]));
        Assert.Equal(0, metrics[0]["objective/kl"], 1e-6);
        Assert.True(metrics[^1]["objective/kl_k3"] > 0.01);
        Assert.True(grpo.Validate(Toy.TokenizedPrompts).Scores.Average() > first);
    }

    [Theory]
    [InlineData(TokenAggregation.SequenceMean)]
    [InlineData(TokenAggregation.TokenMean)]
    public void Resumed_equals_uninterrupted_byte_for_byte(TokenAggregation aggregation) => MemoryCheckpoint.AssertResumes(() => Fresh(
        Spec with { Episodes = 12, GroupSize = 3, MinibatchSize = 5, Schedule = ScheduleKind.Cosine, Aggregation = aggregation }));

    [Fact]
    public void Groups_whose_answers_are_worth_the_same_teach_nothing()
    {
        // No answer ends within one token, and the end is all that counts: every advantage is 0, and without KL term so is the gradient.
        using Transformer stammering = Toy.Model(seed: 99);
        using Grpo grpo = new(
            stammering, trained.Reward, Spec with { MaxNewTokens = 1, KlCoefficient = 0 }, Toy.TokenizedPrompts, Toy.Tokenizer, seed: 6);
        IReadOnlyDictionary<string, double> metrics = grpo.Advance();
        Assert.Equal(0, metrics["rollout/eos_rate"]);
        Assert.Equal(1, metrics["rollout/frac_zero_std"]);
        Assert.Equal(0, metrics["policy/grad_norm"]);
    }

    [Fact]
    public void The_kl_term_holds_the_policy_near_the_reference()
    {
        double free = Drift(0), held = Drift(5);
        Assert.True(held < free / 2, $"KL {free:0.000} without, {held:0.000} with the term");

        double Drift(double coefficient)
        {
            using Grpo grpo = Fresh(Spec with { KlCoefficient = coefficient });
            for (int i = 0; i < 10; i++)
                grpo.Advance();
            return grpo.Summary()["objective/kl_k3"];
        }
    }

    [Fact]
    public void A_policy_that_is_not_finite_is_named()
    {
        using Grpo grpo = Fresh(Spec with { LearningRate = 1e38, WarmupIterations = 0, MaxGradientNorm = 0 });
        var error = Assert.Throws<DivergedException>(() =>
        {
            for (int i = 0; i < 5; i++)
                grpo.Advance();
        });
        Assert.Contains("GRPO iteration", error.Message, StringComparison.Ordinal);
    }

    private Grpo Fresh(GrpoSpec spec) => new(trained.Sft, trained.Reward, spec, Toy.TokenizedPrompts, Toy.Tokenizer, seed: 6);
}
