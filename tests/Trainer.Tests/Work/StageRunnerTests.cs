using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Trainer.Tests.Work;

[Collection(nameof(StorageTests))]
public sealed class StageRunnerTests(AzuriteFixture azurite)
{
    [Fact]
    public async Task SftJobLeavesModelMetricsAndCheckpoint()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite);

        JobResult result = await run.RunAsync(Stages.Sft, run.Job(JobKind.Sft));

        Assert.Equal(JobState.Succeeded, result.Outcome);
        Assert.Equal((6, 6), (result.Step, result.TotalSteps));
        Assert.True(result.Metrics["val/loss"] > 0);
        Assert.Contains("sft", result.Models);
        Assert.Contains("events.out.tfevents.sft", result.Artifacts);
        Head head = (await run.Blobs.ReadJsonAsync<Head>(BlobLayout.Head(run.RunId, Stages.Sft), TestContext.Current.CancellationToken))!;
        Assert.Equal((1, 6), (head.Fence, head.Step));
    }

    [Fact]
    public async Task StagesHandModelsOnFromSftToTheEvaluation()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite);
        run.Use(await run.RunAsync(Stages.Sft, run.Job(JobKind.Sft)));

        JobResult reward = await run.RunAsync(Stages.Reward, run.Job(JobKind.Reward));
        run.Use(reward);
        JobResult first = await run.RunAsync(Stages.Ppo, run.Job(JobKind.Ppo, untilStep: 2));
        JobResult second = await run.RunAsync(Stages.Ppo, run.Job(JobKind.Ppo, untilStep: 4), fence: 2);

        Assert.InRange(reward.Metrics[DecisionMetrics.RewardAccuracy], 0, 1);
        Assert.Equal((JobState.SliceDone, 2, 4), (first.Outcome, first.Step, first.TotalSteps));
        Assert.Equal((JobState.Succeeded, 4), (second.Outcome, second.Step));
        Assert.Contains(DecisionMetrics.Kl, first.Metrics);
        Assert.Contains(DecisionMetrics.ProxyReward + DecisionMetrics.Ci95, first.Metrics);
        Assert.NotEqual(first.Models[ModelRoles.Ppo].Sha256, second.Models[ModelRoles.Ppo].Sha256);

        run.Use(second);
        JobResult evaluated = await run.RunAsync(Stages.Evaluate, run.Job(JobKind.Evaluate));
        ContentFile artifact = evaluated.Artifacts[ArtifactNames.Evaluation];
        EvaluationReport report = (await run.Blobs.ReadJsonAsync<EvaluationReport>(
            BlobLayout.Content(artifact.Sha256), TestContext.Current.CancellationToken))!;
        Assert.Equal(
            ["base", "base_greedy", "base_few_shot", "base_few_shot_greedy", "sft", "sft_greedy", "best_of_2", "ppo", "ppo_greedy"],
            report.Table.Select(row => row.Model).Distinct());
        Assert.All(report.Table.Where(row => row.Metric == "proxy_reward"), row => Assert.Equal(8, row.N));
        Assert.DoesNotContain(report.Table, row => row.Metric == "gold_reward");
        Assert.Equal(["all", "long", "short"], report.RewardModel.Where(row => row.Metric == "accuracy").Select(row => row.Subset));
        Assert.Equal(2, report.Samples.Count);
        Assert.Equal(["sft", "best of 2", "ppo"], report.BestOfN.Select(point => point.Label));
    }
}

/// <summary>Tests that share one storage emulator; they run one after the other.</summary>
[CollectionDefinition(nameof(StorageTests))]
public sealed class StorageTests : ICollectionFixture<AzuriteFixture>;
