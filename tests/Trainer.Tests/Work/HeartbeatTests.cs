using Rlhf.Jobs;
using Rlhf.Spec;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Trainer.Tests.Work;

[Collection(nameof(StorageTests))]
public sealed class HeartbeatTests(AzuriteFixture azurite)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task BeatsTellStepAndMetricsWhileTheJobRuns()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite, Long);
        (JobAttempt attempt, Task<JobState?> running) = await StartAsync(run);

        JobStatus status = await StatusAsync(run, status => status.Step > 5);
        Heartbeat beat = (await run.Blobs.ReadJsonAsync<Heartbeat>(BlobLayout.Heartbeat(attempt.Path), Cancellation))!;
        await run.Control.RequestAsync(run.RunId, Stages.Sft, DesiredState.Cancel, Cancellation);
        await running;

        Assert.Equal("train", status.Phase);
        Assert.True(status.Sequence > 0 && status.SecondsPerStep > 0 && status.TotalSteps == 2000);
        Assert.True(double.IsFinite(beat.Metrics["loss"]));
        string rows = (await run.Blobs.ReadAsync(BlobLayout.Metrics(attempt.Path), Cancellation))!.Content.ToString();
        Assert.Contains("\"stage\":\"sft\",\"step\":1,", rows, StringComparison.Ordinal);
    }

    [Fact]
    public async Task CancelEndsTheJobForGood()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite, Long);
        (_, Task<JobState?> running) = await StartAsync(run);
        await StatusAsync(run, status => status.Step > 0);

        await run.Control.RequestAsync(run.RunId, Stages.Sft, DesiredState.Cancel, Cancellation);

        Assert.Equal(JobState.Cancelled, await running);
        Assert.Equal(JobState.Cancelled, (await run.JobAsync(Stages.Sft)).State);
    }

    [Fact]
    public async Task PauseKeepsEveryStepAndTheNextAttemptGoesOn()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite, Long);
        (_, Task<JobState?> running) = await StartAsync(run);
        await StatusAsync(run, status => status.Step > 0);

        await run.Control.RequestAsync(run.RunId, Stages.Sft, DesiredState.Pause, Cancellation);
        Assert.Equal(JobState.Paused, await running);
        JobResult paused = (await run.JobAsync(Stages.Sft)).Result!;
        Head head = (await run.Blobs.ReadJsonAsync<Head>(BlobLayout.Head(run.RunId, Stages.Sft), Cancellation))!;
        Assert.Equal(paused.Step, head.Step);

        await run.EnqueueAsync(Stages.Sft, 2, run.Job(JobKind.Sft));
        Task<JobState?> resumed = run.RunAsync(await run.ClaimAsync(), CancellationToken.None);
        await StatusAsync(run, status => status.Step > paused.Step);
        await run.Control.RequestAsync(run.RunId, Stages.Sft, DesiredState.Cancel, Cancellation);
        await resumed;
        Assert.Contains($"resumes at step {paused.Step}/2000", run.Output.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task SupersededAttemptStopsWithinABeatAndLeavesNoResult()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite, Long);
        (JobAttempt attempt, Task<JobState?> running) = await StartAsync(run);
        await StatusAsync(run, status => status.Step > 0);

        await run.EnqueueAsync(Stages.Sft, 2, run.Job(JobKind.Sft));

        Assert.Null(await running);
        Assert.Null(await run.Blobs.ReadAsync(BlobLayout.Result(attempt.Path), Cancellation));
        Assert.Equal((2, JobState.Queued), ((await run.JobAsync(Stages.Sft)).Fence, (await run.JobAsync(Stages.Sft)).State));
    }

    [Fact]
    public async Task StorageThatRestartsEndsNothing()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite, Long);
        (_, Task<JobState?> running) = await StartAsync(run);
        int before = (await StatusAsync(run, status => status.Step > 0)).Step;

        await azurite.StopAsync();
        await Task.Delay(TimeSpan.FromSeconds(1), Cancellation);
        await azurite.StartAsync();

        await StatusAsync(run, status => status.Step > before);
        await run.Control.RequestAsync(run.RunId, Stages.Sft, DesiredState.Pause, Cancellation);
        Assert.Equal(JobState.Paused, await running);
    }

    private static RunSpec Long(RunSpec spec) =>
        spec with { Sft = spec.Sft with { Epochs = 1000 }, Trainer = spec.Trainer with { CheckpointEverySteps = 50 } };

    private static async Task<(JobAttempt Attempt, Task<JobState?> Running)> StartAsync(JobTestRun run)
    {
        await run.EnqueueAsync(Stages.Sft, 1, run.Job(JobKind.Sft));
        JobAttempt attempt = await run.ClaimAsync();
        return (attempt, run.RunAsync(attempt, CancellationToken.None));
    }

    private static async Task<JobStatus> StatusAsync(JobTestRun run, Func<JobStatus, bool> until)
    {
        for (int tries = 0; tries < 1200; tries++)
        {
            if (await run.Control.InspectAsync(run.RunId, Stages.Sft, Cancellation) is { } status && until(status))
                return status;
            await Task.Delay(50, Cancellation);
        }

        throw new TimeoutException($"The job did not come so far.\n{run.Output}");
    }
}
