using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Report;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>Trainers that die, hang, fail or come back from the dead, under real orchestrations.</summary>
public sealed class FaultTests(FunctionApp app)
{
    [Fact]
    public async Task A_lost_trainer_is_replaced_and_resumes_at_the_checkpoint()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("trainer.lostAfterSeconds", 2);
        await using FakeTrainer trainer = app.Trainer(spec, attempt =>
            new FakeBehaviour { Steps = 6, DieAt = attempt is { Stage: Stages.Sft, Fence: 1 } ? 4 : null });
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);

        Assert.Equal(RunStates.Succeeded, view.State);
        JobDocument job = (await app.JobAsync(spec.RunId, Stages.Sft))!;
        Assert.Equal(2, job.Fence);
        Assert.Equal("lost", job.History.Single().Outcome);

        // Each step once, the resumed ones from the attempt that resumed.
        string lines = await app.Http.GetStringAsync($"api/runs/{spec.RunId}/metrics?stage=sft");
        MetricRow[] rows =
        [
            .. lines.Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => JsonSerializer.Deserialize<MetricRow>(line, RlhfJson.Compact)!),
        ];
        Assert.Equal([1, 2, 3, 4, 5, 6], rows.Select(row => row.Step));
        Assert.Equal([1, 1, 1, 2, 2, 2], rows.Select(row => (int)row.Metrics["fence"]));

        RunReport report = await app.ReportAsync(spec.RunId);
        StageReport sft = report.Stages.Single(stage => stage.Name == Stages.Sft);
        Assert.Equal(2, sft.Attempts);
        Assert.Contains("no heartbeat", sft.Failures.Single().Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_zombie_can_neither_publish_nor_finish()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("trainer.lostAfterSeconds", 2);
        var wake = new TaskCompletionSource();
        await using FakeTrainer trainer = app.Trainer(spec, attempt => attempt is { Stage: Stages.Sft, Fence: 1 }
            ? new FakeBehaviour { Steps = 6, DieAt = 4, WakesAfter = wake.Task }
            : new FakeBehaviour { Steps = 6 });
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.Stage == Stages.Reward);
        Head before = (await app.Blobs.ReadJsonAsync<Head>(BlobLayout.Head(spec.RunId, Stages.Sft), CancellationToken.None))!;
        wake.SetResult();
        await app.EndAsync(spec.RunId);

        Assert.Equal([(Stages.Sft, 1)], trainer.Fenced);
        Assert.Equal(before, await app.Blobs.ReadJsonAsync<Head>(BlobLayout.Head(spec.RunId, Stages.Sft), CancellationToken.None));
        Assert.Equal(2, before.Fence);
    }

    [Fact]
    public async Task A_wedged_trainer_is_replaced()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("trainer.wedgedAfterSeconds", 2);
        await using FakeTrainer trainer = app.Trainer(spec, attempt =>
            new FakeBehaviour { WedgeAt = attempt is { Stage: Stages.Reward, Fence: 1 } ? 2 : null });
        await app.StartAsync(spec);
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
        Assert.Equal("wedged", (await app.JobAsync(spec.RunId, Stages.Reward))!.History.Single().Outcome);
        Assert.Contains((Stages.Reward, 1), trainer.Fenced);
    }

    [Fact]
    public async Task A_preempted_slice_goes_on_where_it_was()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await using FakeTrainer trainer = app.Trainer(spec, attempt =>
            new FakeBehaviour { EndAt = attempt is { Stage: Stages.Ppo, Fence: 2 } ? 4 : null });
        await app.StartAsync(spec);
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
        JobDocument job = (await app.JobAsync(spec.RunId, Stages.Ppo))!;
        Assert.Equal(["sliceDone", "preempted", "sliceDone"], job.History.Select(record => record.Outcome));
        Assert.Equal([2, 4, 6], (await app.ReportAsync(spec.RunId)).Curve.Select(point => point.Step));
    }

    [Fact]
    public async Task A_job_that_nobody_takes_fails_with_the_queue_s_name_and_a_report()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("trainer.startTimeoutSeconds", 1).With("budget.startTimeouts", 1);
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Equal(RunStates.Failed, view.State);
        Assert.Contains(
            $"stage 'sft', attempt 2: no trainer took the job from queue 'rlhf-jobs-{spec.Machine}'", view.Error, StringComparison.Ordinal);
        Assert.Equal(JobState.Cancelled, (await app.JobAsync(spec.RunId, Stages.Sft))!.State);
        RunReport report = await app.ReportAsync(spec.RunId);
        Assert.Equal((RunStates.Failed, view.Error), (report.State, report.Summary));
        Assert.Equal(["data succeeded", "pretrain skipped", "sft failed"], report.Stages.Select(stage => $"{stage.Name} {stage.State}"));
    }

    [Fact]
    public async Task An_error_is_tried_again_and_divergence_is_not()
    {
        TestSpec retried = await TestSpec.CreateAsync(app);
        await using (FakeTrainer trainer = app.Trainer(
            retried, attempt => attempt is { Stage: Stages.Sft, Fence: 1 } ? Broken(JobErrorKind.Internal) : new FakeBehaviour()))
        {
            await app.StartAsync(retried);
            Assert.Equal(RunStates.Succeeded, (await app.EndAsync(retried.RunId)).State);
            Assert.Equal("failed", (await app.JobAsync(retried.RunId, Stages.Sft))!.History.Single().Outcome);
        }

        TestSpec diverged = await TestSpec.CreateAsync(app);
        await using (FakeTrainer trainer = app.Trainer(
            diverged, attempt => attempt.Stage == Stages.Ppo ? Broken(JobErrorKind.Diverged) : new FakeBehaviour()))
        {
            await app.StartAsync(diverged);
            RunView view = await app.EndAsync(diverged.RunId);
            Assert.Equal(RunStates.Failed, view.State);
            Assert.Equal("the loss is not a number. Lower the learning rate.", view.Error);
            Assert.Equal(1, (await app.JobAsync(diverged.RunId, Stages.Ppo))!.Fence);
        }
    }

    [Theory]
    [InlineData("cut off")]
    [InlineData("flipped")]
    [InlineData("deleted")]
    [InlineData("older")]
    public async Task A_job_document_that_is_damaged_or_goes_back_in_time_costs_one_attempt(string damage)
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        const int Steps = 60;
        await using FakeTrainer trainer = app.Trainer(spec, attempt => attempt is { Stage: Stages.Reward, Fence: 1 }
            ? new FakeBehaviour { Steps = 100_000, StepTime = TimeSpan.FromMilliseconds(500) }
            : new FakeBehaviour { Steps = attempt.Stage == Stages.Reward ? Steps : 3, StepTime = TimeSpan.FromMilliseconds(1) });
        await app.StartAsync(spec);
        string path = BlobLayout.Job(spec.RunId, Stages.Reward);
        await app.UntilAsync(spec.RunId, view => view.Stage == Stages.Reward && view.Progress?.Step > 1);
        byte[] content = (await app.Blobs.ReadAsync(path, CancellationToken.None))!.Content.ToArray();
        switch (damage)
        {
            case "cut off":
                await app.Blobs.WriteAsync(path, new BinaryData(content[..^20]), CancellationToken.None);
                break;
            case "flipped":
                content[content.Length / 2] ^= 1;
                await app.Blobs.WriteAsync(path, new BinaryData(content), CancellationToken.None);
                break;
            case "deleted":
                await app.Blobs.DeleteAsync(path, CancellationToken.None);
                break;
            case "older":
                JobDocument older = (await app.JobAsync(spec.RunId, Stages.Reward))! with { State = JobState.Queued, AttemptId = null };
                await app.Blobs.WriteAsync(path, CasDocument.Serialize(older), CancellationToken.None);
                break;
        }

        RunView view = await app.EndAsync(spec.RunId);

        Assert.Equal((RunStates.Succeeded, null), (view.State, view.Error));
        JobDocument job = (await app.JobAsync(spec.RunId, Stages.Reward))!;
        AttemptRecord record = Assert.Single(job.History);
        Assert.Equal(damage == "older" ? AttemptOutcomes.StorageRollback : AttemptOutcomes.DocumentLost, record.Outcome);
        Assert.Contains((Stages.Reward, 1), trainer.Fenced);
        MetricRow[] rows = [.. (await app.Http.GetStringAsync($"api/runs/{spec.RunId}/metrics?stage=reward"))
            .Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonSerializer.Deserialize<MetricRow>(line, RlhfJson.Compact)!)];
        Assert.Equal(Enumerable.Range(1, Steps), rows.Select(row => row.Step)); // those of the attempt that was lost among them
        Assert.Equal(1, rows[0].Metrics["fence"]);
    }

    [Fact]
    public async Task A_full_disk_is_waited_for()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("trainer.lostAfterSeconds", 1);
        await using FakeTrainer trainer = app.Trainer(
            spec, attempt => attempt is { Stage: Stages.Sft, Fence: 1 } ? Broken(JobErrorKind.DiskFull) : new FakeBehaviour());
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.Activity?.Contains("waiting for the next attempt, in 1 s", StringComparison.Ordinal) == true);
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
    }

    private static FakeBehaviour Broken(JobErrorKind kind) =>
        new() { EndAt = 2, Error = new JobError(kind, "the loss is not a number", "Lower the learning rate.") };
}
