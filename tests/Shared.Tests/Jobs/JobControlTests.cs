using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Shared.Tests.Jobs;

/// <summary>The orchestrator's half of the protocol, on a real storage emulator.</summary>
[Collection(AzuriteTests.Name)]
public sealed class JobControlTests(AzuriteFixture azurite)
{
    private readonly TestJob job = new(azurite);

    [Fact]
    public async Task Enqueueing_twice_has_the_effect_of_once()
    {
        JobDocument first = await job.EnqueueAsync(1);
        JobDocument second = await job.EnqueueAsync(1);

        Assert.Equal((JobState.Queued, 1), (first.State, first.Fence));
        Assert.Equal((JobState.Queued, 1, 0), (second.State, second.Fence, second.History.Count));
        Assert.NotNull(await job.Inbox.TryTakeAsync(TestJob.Cancellation));
        Assert.Null(await job.Inbox.TryTakeAsync(TestJob.Cancellation)); // the second message asks for nothing
        Assert.Null(await job.Queue.ReceiveAsync(TimeSpan.FromSeconds(1), TestJob.Cancellation));
    }

    [Fact]
    public async Task A_call_that_died_before_its_message_is_made_good_by_the_next()
    {
        // A stand-in for a host that dies between job.json and the queue; the store is the real one.
        var dies = new JobControl(job.Blobs, _ => throw new IOException("died"));
        await Assert.ThrowsAsync<IOException>(() => job.EnqueueAsync(dies, 1));
        Assert.Equal(JobState.Queued, (await job.ReadAsync()).State);

        await job.EnqueueAsync(1);
        JobAttempt lost = await job.ClaimAsync();
        await Assert.ThrowsAsync<IOException>(() => job.EnqueueAsync(dies, 2));
        await job.EnqueueAsync(2);

        Assert.Equal(2, (await job.ClaimAsync()).Fence);
        Assert.Equal([lost.AttemptId], (await job.ReadAsync()).History.Select(record => record.AttemptId));
    }

    [Fact]
    public async Task The_next_fence_ends_the_attempt_records_why_and_seals_the_head()
    {
        await job.EnqueueAsync(1);
        JobAttempt lost = await job.ClaimAsync();
        await lost.PublishCheckpointAsync(job.Manifest(lost, 10), TestJob.Cancellation);
        await lost.BeatAsync(TestJob.Beat(lost, 5, step: 12, seconds: 33), TestJob.Cancellation);

        JobDocument next = await job.EnqueueAsync(2, "lost", "the heartbeat stood still");

        Assert.Equal((2, JobState.Queued, null), (next.Fence, next.State, next.AttemptId));
        Assert.Equal([new AttemptRecord(1, lost.AttemptId, "lost", "the heartbeat stood still", 33)], next.History);
        Head head = (await job.HeadAsync())!;
        Assert.Equal((1, 10, 2), (head.Fence, head.Step, head.SealedBy));
    }

    [Fact]
    public async Task A_call_that_comes_too_late_changes_nothing_and_sends_nothing()
    {
        await job.EnqueueAsync(1);
        await job.ClaimAsync();
        await job.EnqueueAsync(2);
        JobAttempt second = await job.ClaimAsync();

        JobDocument late = await job.EnqueueAsync(1);

        Assert.Equal((2, JobState.Running, second.AttemptId), (late.Fence, late.State, late.AttemptId));
        Assert.Null(await job.Queue.ReceiveAsync(TimeSpan.FromSeconds(1), TestJob.Cancellation));
    }

    [Fact]
    public async Task Fences_follow_each_other()
    {
        await Assert.ThrowsAsync<CorruptBlobException>(() => job.EnqueueAsync(2));
        await job.EnqueueAsync(1);
        CorruptBlobException e = await Assert.ThrowsAsync<CorruptBlobException>(() => job.EnqueueAsync(3, "lost"));
        Assert.Contains("it is of fence 1, which fence 3 does not follow", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_slice_is_followed_by_the_next_and_success_is_final()
    {
        await job.EnqueueAsync(1);
        await (await job.ClaimAsync()).FinishAsync(new JobResult { Outcome = JobState.SliceDone, Step = 10, Seconds = 7 }, TestJob.Cancellation);

        JobDocument next = await job.EnqueueAsync(2);
        Assert.Equal(("sliceDone", 7.0), (next.History[0].Outcome, next.History[0].Seconds));
        Assert.Null(next.Result);

        await (await job.ClaimAsync()).FinishAsync(new JobResult { Outcome = JobState.Succeeded }, TestJob.Cancellation);
        Assert.Equal((2, JobState.Succeeded), ((await job.EnqueueAsync(3)).Fence, (await job.ReadAsync()).State));
        Assert.Null(await job.Queue.ReceiveAsync(TimeSpan.FromSeconds(1), TestJob.Cancellation));
    }

    [Fact]
    public async Task Inspecting_tells_state_progress_and_time()
    {
        Assert.Null(await job.Control.InspectAsync(job.RunId, TestJob.Stage, TestJob.Cancellation));
        await job.EnqueueAsync(1);
        Assert.Equal(("queued", -1), await LookAsync());
        JobAttempt attempt = await job.ClaimAsync();
        Assert.Equal(("starting", -1), await LookAsync());
        await attempt.BeatAsync(TestJob.Beat(attempt, 3, step: 40, seconds: 8), TestJob.Cancellation);
        Assert.Equal(("train", 3), await LookAsync());
        await attempt.PublishCheckpointAsync(job.Manifest(attempt, 30), TestJob.Cancellation);
        await job.EnqueueAsync(2);

        JobStatus status = (await job.Control.InspectAsync(job.RunId, TestJob.Stage, TestJob.Cancellation))!;
        Assert.Equal((2, JobState.Queued, 30, 30, 8.0), (status.Fence, status.State, status.Step, status.HeadStep, status.Seconds));

        async Task<(string, long)> LookAsync()
        {
            JobStatus now = (await job.Control.InspectAsync(job.RunId, TestJob.Stage, TestJob.Cancellation))!;
            return (now.Phase, now.Sequence);
        }
    }

    [Fact]
    public async Task A_cancel_ends_a_waiting_job_at_once_and_reaches_a_running_one_with_its_heartbeat()
    {
        Assert.False(await job.Control.RequestAsync(job.RunId, TestJob.Stage, DesiredState.Cancel, TestJob.Cancellation));
        await job.EnqueueAsync(1);
        var other = new TestJob(azurite);
        await other.EnqueueAsync(1);
        JobAttempt running = await other.ClaimAsync();

        await job.Control.RequestAsync(job.RunId, TestJob.Stage, DesiredState.Cancel, TestJob.Cancellation);
        await other.Control.RequestAsync(other.RunId, TestJob.Stage, DesiredState.Cancel, TestJob.Cancellation);

        Assert.Equal(JobState.Cancelled, (await job.ReadAsync()).State);
        Assert.Null(await job.Inbox.TryTakeAsync(TestJob.Cancellation));
        Assert.Equal(DesiredState.Cancel, await running.BeatAsync(TestJob.Beat(running, 1), TestJob.Cancellation));
        Assert.Equal(1, (await job.EnqueueAsync(2)).Fence); // final
    }

    [Fact]
    public async Task A_paused_job_is_taken_up_by_the_next_fence()
    {
        await job.EnqueueAsync(1);
        await job.Control.RequestAsync(job.RunId, TestJob.Stage, DesiredState.Pause, TestJob.Cancellation);
        Assert.Equal(JobState.Paused, (await job.ReadAsync()).State);
        Assert.Null(await job.Inbox.TryTakeAsync(TestJob.Cancellation));

        JobDocument resumed = await job.EnqueueAsync(2);

        Assert.Equal((JobState.Queued, DesiredState.Run), (resumed.State, resumed.Desired));
        Assert.Equal(2, (await job.ClaimAsync()).Fence);
    }

    [Fact]
    public async Task An_attempt_that_does_not_answer_a_cancel_is_shut_out()
    {
        await job.EnqueueAsync(1);
        JobAttempt silent = await job.ClaimAsync();
        await job.Control.CancelUnresponsiveAsync(job.RunId, TestJob.Stage, TestJob.Cancellation);
        await job.Control.CancelUnresponsiveAsync(job.RunId, TestJob.Stage, TestJob.Cancellation);

        JobDocument ended = await job.ReadAsync();
        Assert.Equal((2, JobState.Cancelled, "unresponsive"), (ended.Fence, ended.State, Assert.Single(ended.History).Outcome));
        await Assert.ThrowsAsync<FencedException>(() => silent.PublishCheckpointAsync(job.Manifest(silent, 1), TestJob.Cancellation));
        await Assert.ThrowsAsync<FencedException>(() => silent.FinishAsync(new JobResult { Outcome = JobState.Succeeded }, TestJob.Cancellation));
    }

    [Theory]
    [InlineData("not json")]
    [InlineData("null")]
    [InlineData("""{"fence":1}""")]
    [InlineData("""{"v":1,"runId":"r","stage":"s","fence":1,"state":"queued","spec":{"kind":"sft","runDocument":"d"},"surprise":1}""")]
    public async Task A_corrupt_document_is_named(string content)
    {
        string path = BlobLayout.Job(job.RunId, TestJob.Stage);
        await job.Blobs.WriteAsync(path, BinaryData.FromString(content), TestJob.Cancellation);

        Assert.Equal(path, (await Assert.ThrowsAsync<CorruptBlobException>(() => job.EnqueueAsync(1))).Path);
        var e = await Assert.ThrowsAsync<CorruptBlobException>(() => job.Control.InspectAsync(job.RunId, TestJob.Stage, TestJob.Cancellation));
        Assert.Contains(path, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{")]
    [InlineData(null)]
    public async Task A_first_fence_that_may_have_been_claimed_is_not_given_out_again(string? content)
    {
        await job.EnqueueAsync(1);
        await job.ClaimAsync();
        await DamageAsync(content);

        await Assert.ThrowsAsync<CorruptBlobException>(() => job.EnqueueAsync(1));

        Assert.Equal(2, (await job.EnqueueAsync(2, AttemptOutcomes.DocumentLost)).Fence);
    }

    [Theory]
    [InlineData("{")]
    [InlineData(null)]
    public async Task A_document_that_is_damaged_or_gone_is_written_anew_under_the_next_fence(string? content)
    {
        await job.EnqueueAsync(1);
        JobAttempt first = await job.ClaimAsync();
        await first.BeatAsync(TestJob.Beat(first, 1, step: 3, seconds: 5), TestJob.Cancellation);
        await first.PublishCheckpointAsync(job.Manifest(first, 3), TestJob.Cancellation);
        await first.FinishAsync(new JobResult { Outcome = JobState.SliceDone, Step = 3, Seconds = 6 }, TestJob.Cancellation);
        await job.EnqueueAsync(2);
        JobAttempt second = await job.ClaimAsync();
        await second.BeatAsync(TestJob.Beat(second, 1, step: 4, seconds: 2), TestJob.Cancellation);
        await DamageAsync(content);

        // Whoever holds the job stops; the fence that he holds is not given out again.
        await Assert.ThrowsAsync<FencedException>(() => second.BeatAsync(TestJob.Beat(second, 2), TestJob.Cancellation));
        await Assert.ThrowsAsync<FencedException>(() => second.PublishCheckpointAsync(job.Manifest(second, 5), TestJob.Cancellation));
        var tooLate = new JobResult { Outcome = JobState.Succeeded, Seconds = 2 };
        await Assert.ThrowsAsync<FencedException>(() => second.FinishAsync(tooLate, TestJob.Cancellation));
        await Assert.ThrowsAsync<CorruptBlobException>(() => job.EnqueueAsync(2));

        JobDocument rebuilt = await job.EnqueueAsync(3, AttemptOutcomes.DocumentLost, "it was damaged");

        Assert.Equal((3, JobState.Queued), (rebuilt.Fence, rebuilt.State));
        Assert.Equal(
            [
                new AttemptRecord(1, first.AttemptId, "sliceDone", null, 6),
                new AttemptRecord(2, second.AttemptId, AttemptOutcomes.DocumentLost, "it was damaged", 2),
            ],
            rebuilt.History);
        Head head = (await job.HeadAsync())!;
        Assert.Equal((1, 3, 3), (head.Fence, head.Step, head.SealedBy));
        JobAttempt third = await job.ClaimAsync();
        await third.PublishCheckpointAsync(job.Manifest(third, 6), TestJob.Cancellation);
        await Assert.ThrowsAsync<FencedException>(() => second.PublishCheckpointAsync(job.Manifest(second, 7), TestJob.Cancellation));
    }

    [Fact]
    public async Task A_document_that_is_older_than_it_was_is_brought_forward()
    {
        await job.EnqueueAsync(1);
        StoredBlob old = (await job.Blobs.ReadAsync(BlobLayout.Job(job.RunId, TestJob.Stage), TestJob.Cancellation))!;
        await job.ClaimAsync();
        await job.EnqueueAsync(2);
        JobAttempt second = await job.ClaimAsync();
        await second.BeatAsync(TestJob.Beat(second, 1), TestJob.Cancellation);
        await job.Blobs.WriteAsync(BlobLayout.Job(job.RunId, TestJob.Stage), old.Content, TestJob.Cancellation);

        JobDocument next = await job.EnqueueAsync(3, AttemptOutcomes.StorageRollback, "it went back");

        Assert.Equal((3, JobState.Queued), (next.Fence, next.State));
        Assert.Contains(new AttemptRecord(2, second.AttemptId, AttemptOutcomes.StorageRollback, "it went back", 0), next.History);
        Assert.Equal(3, (await job.ClaimAsync()).Fence);
        await Assert.ThrowsAsync<FencedException>(() => second.BeatAsync(TestJob.Beat(second, 2, seconds: 2), TestJob.Cancellation));
    }

    [Fact]
    public async Task A_damaged_head_is_written_anew_and_says_that_the_checkpoint_must_be_looked_for()
    {
        await job.EnqueueAsync(1);
        JobAttempt first = await job.ClaimAsync();
        await first.PublishCheckpointAsync(job.Manifest(first, 3), TestJob.Cancellation);
        await job.Blobs.WriteAsync(BlobLayout.Head(job.RunId, TestJob.Stage), BinaryData.FromString("{"), TestJob.Cancellation);
        Assert.Equal(0, (await job.Control.InspectAsync(job.RunId, TestJob.Stage, TestJob.Cancellation))!.HeadStep);

        // Its holder writes a whole one with the next checkpoint.
        await first.PublishCheckpointAsync(job.Manifest(first, 4), TestJob.Cancellation);
        Assert.Equal((1, 4, false), ((await job.HeadAsync())!.Fence, (await job.HeadAsync())!.Step, (await job.HeadAsync())!.IsLost));

        // The next fence cannot know where it pointed.
        await job.Blobs.DeleteAsync(BlobLayout.Head(job.RunId, TestJob.Stage), TestJob.Cancellation);
        await job.EnqueueAsync(2);
        Assert.Equal((0, 2, true), ((await job.HeadAsync())!.Fence, (await job.HeadAsync())!.SealedBy, (await job.HeadAsync())!.IsLost));
        await Assert.ThrowsAsync<FencedException>(() => first.PublishCheckpointAsync(job.Manifest(first, 5), TestJob.Cancellation));
        JobAttempt second = await job.ClaimAsync();
        await second.PublishCheckpointAsync(job.Manifest(second, 5), TestJob.Cancellation);
        Assert.Equal((2, 5, 2, false), ((await job.HeadAsync())!.Fence, (await job.HeadAsync())!.Step, (await job.HeadAsync())!.SealedBy, (await job.HeadAsync())!.IsLost));
    }

    [Fact]
    public async Task A_first_call_that_comes_again_to_a_damaged_head_does_not_say_that_there_was_no_checkpoint()
    {
        await job.EnqueueAsync(1);
        JobAttempt first = await job.ClaimAsync();
        await first.PublishCheckpointAsync(job.Manifest(first, 3), TestJob.Cancellation);
        await job.Blobs.WriteAsync(BlobLayout.Head(job.RunId, TestJob.Stage), BinaryData.FromString("{"), TestJob.Cancellation);

        await job.EnqueueAsync(1);

        Assert.True((await job.HeadAsync())!.IsLost);
    }

    [Fact]
    public async Task Head_and_document_damaged_at_once_cost_two_fences_and_no_more()
    {
        await job.EnqueueAsync(1);
        await job.ClaimAsync();
        await DamageAsync("{");
        await job.Blobs.WriteAsync(BlobLayout.Head(job.RunId, TestJob.Stage), BinaryData.FromString("{"), TestJob.Cancellation);

        await Assert.ThrowsAsync<CorruptBlobException>(() => job.EnqueueAsync(2, AttemptOutcomes.DocumentLost, "both"));
        Assert.Equal(3, (await job.EnqueueAsync(3, AttemptOutcomes.DocumentLost, "both")).Fence);
        Assert.Equal(3, (await job.ClaimAsync()).Fence);
    }

    private Task DamageAsync(string? content) => content is null
        ? job.Blobs.DeleteAsync(BlobLayout.Job(job.RunId, TestJob.Stage), TestJob.Cancellation)
        : job.Blobs.WriteAsync(BlobLayout.Job(job.RunId, TestJob.Stage), BinaryData.FromString(content), TestJob.Cancellation);
}
