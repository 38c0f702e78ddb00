using Rlhf.Jobs;
using Rlhf.Report;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>Gates, guard, budget and promotion, in whole runs.</summary>
public sealed class DecisionTests(FunctionApp app)
{
    [Theory]
    [InlineData("gates.minSftEosRate", 0.96, "sft", "eos_rate is 0.95; gates.minSftEosRate is 0.96")]
    [InlineData("gates.minRewardAccuracy", 0.8, "reward", "val/accuracy is 0.72; gates.minRewardAccuracy is 0.8")]
    public async Task A_missed_gate_fails_the_run_before_more_is_spent(string gate, double bound, string stage, string error)
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With(gate, bound);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Equal(RunStates.Failed, view.State);
        Assert.Contains($"Run '{spec.RunId}', stage '{stage}', attempt 1: {error}", view.Error, StringComparison.Ordinal);
        Assert.Equal("failed", view.Stages.Single(entry => entry.Name == stage).State);
        Assert.Equal(stage, trainer.Claims.Last().Stage);
    }

    [Fact]
    public async Task The_guard_stops_PPO_and_keeps_the_best_slice()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app))
            .With("ppo.iterations", 12).With("guard.metric", "proxyReward").With("guard.patience", 2);
        double[] reward = [0, 1, 3, 2, 2.5, 9, 9];
        await using FakeTrainer trainer = app.Trainer(spec, attempt => attempt.Stage != Stages.Ppo ? new FakeBehaviour() : new FakeBehaviour
        {
            Metrics = new Dictionary<string, double> { [DecisionMetrics.ProxyReward] = reward[attempt.Fence] },
        });
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Equal(RunStates.Succeeded, view.State);
        Assert.Equal("stoppedByGuard", view.Stages.Single(stage => stage.Name == Stages.Ppo).State);

        RunReport report = await app.ReportAsync(spec.RunId);
        Assert.Equal([2, 4, 6, 8], report.Curve.Select(point => point.Step));
        Assert.Equal(4, report.Stages.Single(stage => stage.Name == Stages.Ppo).Metrics["iteration"]);
        string expected = CasDocument.Sha256(new BinaryData("7 ppo 4"));
        Assert.Equal(expected, report.Models["ppo"].Sha256);
        Assert.Equal(expected, (await app.JobAsync(spec.RunId, Stages.Evaluate))!.Spec.Models["ppo"].Sha256);
    }

    [Theory]
    [InlineData("ppo")]
    [InlineData("rloo")]
    [InlineData("grpo")]
    public async Task A_policy_that_drifts_too_far_is_stopped(string method)
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("guard.maxKl", 2.5).With("method", method);
        spec.Json.Remove("ppo");
        spec.With($"{method}.iterations", 6).With($"{method}.iterationsPerSlice", 2);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Equal("stoppedByGuard", view.Stages.Single(stage => stage.Name == method).State);
        RunReport report = await app.ReportAsync(spec.RunId);
        Assert.Equal(2, report.Stages.Single(stage => stage.Name == method).Metrics["kl"]);
    }

    [Fact]
    public async Task A_spent_budget_stops_the_run()
    {
        // The fake trainer reports a second for each heartbeat.
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("budget.maxTrainerMinutes", 0.2);
        await using FakeTrainer trainer = app.Trainer(
            spec, attempt => new FakeBehaviour { Steps = attempt.Stage == Stages.Reward ? 100_000 : 3 });
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Equal(RunStates.Failed, view.State);
        Assert.Contains("budget.maxTrainerMinutes", view.Error, StringComparison.Ordinal);
        Assert.Equal(JobState.Cancelled, (await app.JobAsync(spec.RunId, Stages.Reward))!.State);
    }

    [Theory]
    [InlineData("small-gain", 0.6, 0.6, "proxy_reward rose by 0.5; promotion.minRewardGain is 0.6")]
    [InlineData("a-loss", 0.0, -0.2, "proxy_reward fell by 0.3; promotion.minRewardGain is 0")]
    public async Task A_gain_below_the_promotion_gate_promotes_nothing(string name, double least, double reward, string reason)
    {
        TestSpec spec = (await TestSpec.CreateAsync(app, name)).With("promotion.minRewardGain", least);
        await using FakeTrainer trainer = app.Trainer(spec, _ => new FakeBehaviour { AlignedReward = reward });
        await app.StartAsync(spec);
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
        PromotionReport promotion = (await app.ReportAsync(spec.RunId)).Promotion!;
        Assert.False(promotion.Promoted);
        Assert.Equal(reason, promotion.Reason);
        Assert.Null(await app.Blobs.ReadAsync(BlobLayout.ProductionModel(name), CancellationToken.None));
        Assert.NotNull(await app.Blobs.ReadAsync(BlobLayout.ModelVersion(name, spec.RunId), CancellationToken.None));
    }
}
