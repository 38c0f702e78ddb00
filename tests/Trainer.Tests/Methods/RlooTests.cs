using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

public sealed class RlooTests(PpoTests.Trained trained) : IClassFixture<PpoTests.Trained>
{
    private static readonly RlooSpec Spec = new()
    {
        Iterations = 20,
        Episodes = 32,
        GroupSize = 4,
        MinibatchSize = 16,
        Epochs = 2,
        MaxNewTokens = 6,
        LearningRate = 2e-3,
        KlCoefficient = 0.02,
    };

    [Fact]
    public void Raises_the_reward_and_keeps_its_invariants()
    {
        using Rloo rloo = Fresh(Spec);
        List<IReadOnlyDictionary<string, double>> metrics = [];
        while (rloo.Step < rloo.TotalSteps)
            metrics.Add(rloo.Advance());

        double first = metrics.Take(3).Average(m => m["objective/score_after_penalty"]);
        double last = metrics.TakeLast(3).Average(m => m["objective/score_after_penalty"]);
        Assert.True(last > first + 0.3, $"reward {first:0.00} to {last:0.00}");
        Assert.All(metrics, m => Assert.Equal(1, m["policy/ratio_first_minibatch"]));
        Assert.Equal(0, metrics[0]["objective/kl"], 1e-6);
        Assert.True(metrics[^1]["objective/kl_k3"] > 0.01);
        Assert.InRange(metrics[0]["rollout/frac_zero_std"], 0, 0.99);
        Assert.Equal(20 * 8 / 32.0, metrics[^1]["epoch"]); // 8 prompts an iteration, answered 4 times each

        ValidationAnswers validation = rloo.Validate(Toy.TokenizedPrompts);
        Assert.True(validation.Kl.Average() > 0.05);
        Assert.True(validation.Scores.Average() > first);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Resumed_equals_uninterrupted_byte_for_byte(bool linear) => MemoryCheckpoint.AssertResumes(() => Fresh(
        Spec with { Episodes = 12, MinibatchSize = 5, Schedule = linear ? ScheduleKind.Linear : ScheduleKind.Constant }));

    [Fact]
    public void The_first_step_follows_the_REINFORCE_gradient()
    {
        // One step on all episodes, ratio 1: the gradient of -mean(A log p(answer)), with A the reward less the mean of the other three.
        RlooSpec spec = Spec with { MinibatchSize = 32, Epochs = 1, MaxGradientNorm = 0, KlCoefficient = 0 };
        using Rloo rloo = Fresh(spec);
        using var model = trained.Sft.Clone();
        var rollouts = new Rollouts(
            Stages.Rloo, trained.Sft, trained.Reward, spec, 4, Toy.TokenizedPrompts, Toy.Tokenizer, seed: 6, new MicroBatches(null));
        Rollout rollout = rollouts.Collect(model, 0, []);
        Assert.All(rollout.Episodes.Chunk(4), group => Assert.Single(group.Select(episode => episode.Prompt).Distinct()));
        rloo.Advance();
        IReadOnlyDictionary<string, Tensor> moments = MemoryCheckpoint.Of(rloo).ReadTensors("policy.optimizer");

        using DisposeScope scope = NewDisposeScope();
        Tensor loss = zeros(1);
        foreach ((int i, Episode episode) in rollout.Episodes.Index())
        {
            double others = rollout.Outcomes.Chunk(4).ElementAt(i / 4).Where((_, k) => k != i % 4).Average();
            Tensor ids = tensor(episode.Sequence().Select(id => (long)id).ToArray()).unsqueeze(0);
            Tensor all = nn.functional.log_softmax(model.Logits(model.Hidden(ids)), -1)[0];
            foreach ((int t, int token) in episode.Response.Index())
                loss = loss - (rollout.Outcomes[i] - others) * all[episode.Prompt.Length + t - 1, token] / 32;
        }

        loss.backward();
        Assert.All(model.NamedWeights(), weight =>
            Parity.Close(weight.Value.grad!.to(ScalarType.Float64), moments[$"{weight.Name}.m"] / (1 - 0.9), 1e-5));
    }

    [Fact]
    public void The_penalty_on_kl_lowers_the_reward_of_drift()
    {
        using Rloo rloo = Fresh(Spec with { KlCoefficient = 0.5 });
        IReadOnlyDictionary<string, double> metrics = rloo.Advance();
        for (int i = 0; i < 4; i++)
            metrics = rloo.Advance();
        Assert.Equal(-0.5 * metrics["objective/kl"], metrics["objective/non_score_reward"], 1e-12);
        Assert.Equal(
            metrics["objective/score_after_penalty"] + metrics["objective/non_score_reward"], metrics["objective/rlhf_reward"], 1e-12);
    }

    private Rloo Fresh(RlooSpec spec) => new(trained.Sft, trained.Reward, spec, Toy.TokenizedPrompts, Toy.Tokenizer, seed: 6);
}
