using Rlhf.Jobs;
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
}

/// <summary>Tests that share one storage emulator; they run one after the other.</summary>
[CollectionDefinition(nameof(StorageTests))]
public sealed class StorageTests : ICollectionFixture<AzuriteFixture>;
