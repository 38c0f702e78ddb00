using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Shared.Tests.Jobs;

/// <summary>The trainer's half of the protocol: claims, heartbeats, checkpoints and results, and what an outdated attempt is refused.</summary>
[Collection(AzuriteTests.Name)]
public sealed class JobAttemptTests(AzuriteFixture azurite)
{
    private readonly TestJob job = new(azurite);

    [Fact]
    public async Task Of_many_claims_exactly_one_wins()
    {
        await job.EnqueueAsync(1);

        JobAttempt?[] attempts = await Task.WhenAll(Enumerable.Range(0, 16).Select(i =>
            JobAttempt.TryClaimAsync(job.Blobs, TestJob.Message(job, 1), $"attempt-{i}", TestJob.Cancellation)));

        JobAttempt winner = Assert.Single(attempts.OfType<JobAttempt>());
        Assert.Equal(winner.AttemptId, (await job.ReadAsync()).AttemptId);
    }

    [Fact]
    public async Task A_claim_whose_reply_was_lost_is_recognised_when_it_is_made_again()
    {
        await job.EnqueueAsync(1);

        Assert.NotNull(await JobAttempt.TryClaimAsync(job.Blobs, TestJob.Message(job, 1), "same", TestJob.Cancellation));
        Assert.NotNull(await JobAttempt.TryClaimAsync(job.Blobs, TestJob.Message(job, 1), "same", TestJob.Cancellation));
    }

    [Fact]
    public async Task Messages_of_another_fence_or_of_no_job_claim_nothing()
    {
        Assert.Null(await JobAttempt.TryClaimAsync(job.Blobs, TestJob.Message(job, 1), "a", TestJob.Cancellation));
        await job.EnqueueAsync(1);
        Assert.Null(await JobAttempt.TryClaimAsync(job.Blobs, TestJob.Message(job, 2), "a", TestJob.Cancellation));
        await job.EnqueueAsync(2);
        Assert.Null(await JobAttempt.TryClaimAsync(job.Blobs, TestJob.Message(job, 1), "a", TestJob.Cancellation));
        Assert.NotNull(await JobAttempt.TryClaimAsync(job.Blobs, TestJob.Message(job, 2), "a", TestJob.Cancellation));
    }

    [Fact]
    public async Task Checkpoints_move_the_head_and_publishing_one_again_changes_nothing()
    {
        await job.EnqueueAsync(1);
        JobAttempt attempt = await job.ClaimAsync();
        Assert.Equal(new Head { Fence = 0, Step = 0, SealedBy = 1 }, await attempt.ReadHeadAsync(TestJob.Cancellation));

        foreach (int step in new[] { 10, 20, 20 })
            await attempt.PublishCheckpointAsync(job.Manifest(attempt, step), TestJob.Cancellation);

        Head head = (await attempt.ReadHeadAsync(TestJob.Cancellation))!;
        StoredBlob manifest = (await job.Blobs.ReadAsync(head.Manifest!, TestJob.Cancellation))!;
        Assert.Equal((1, 20, CasDocument.Sha256(manifest.Content)), (head.Fence, head.Step, head.ManifestSha256));
        Assert.StartsWith(attempt.Path, head.Manifest, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_zombie_can_neither_publish_nor_finish_nor_go_on()
    {
        await job.EnqueueAsync(1);
        JobAttempt zombie = await job.ClaimAsync();
        await zombie.PublishCheckpointAsync(job.Manifest(zombie, 10), TestJob.Cancellation);
        await job.EnqueueAsync(2);

        await RefusedAsync(); // while the new attempt waits
        JobAttempt heir = await job.ClaimAsync();
        await RefusedAsync(); // while it runs
        Assert.Equal((1, 10), await HeadAsync());

        await heir.PublishCheckpointAsync(job.Manifest(heir, 12), TestJob.Cancellation);
        await heir.FinishAsync(new JobResult { Outcome = JobState.Succeeded, Step = 12 }, TestJob.Cancellation);
        await RefusedAsync(); // and after it is done

        Assert.Equal((2, 12), await HeadAsync());
        JobDocument end = await job.ReadAsync();
        Assert.Equal((2, JobState.Succeeded, 12), (end.Fence, end.State, end.Result!.Step));

        async Task RefusedAsync()
        {
            string before = CasDocument.Serialize(await job.ReadAsync()).ToString();
            await Assert.ThrowsAsync<FencedException>(() => zombie.PublishCheckpointAsync(job.Manifest(zombie, 99), TestJob.Cancellation));
            await Assert.ThrowsAsync<FencedException>(() => zombie.FinishAsync(new JobResult { Outcome = JobState.Succeeded, Step = 99 }, TestJob.Cancellation));
            await Assert.ThrowsAsync<FencedException>(() => zombie.BeatAsync(TestJob.Beat(zombie, 99), TestJob.Cancellation));
            Assert.Equal(before, CasDocument.Serialize(await job.ReadAsync()).ToString());
        }

        async Task<(int, int)> HeadAsync() => await job.HeadAsync() is { } head ? (head.Fence, head.Step) : default;
    }

    [Fact]
    public async Task A_zombie_that_read_the_head_before_the_seal_loses_against_it()
    {
        await job.EnqueueAsync(1);
        JobAttempt zombie = await job.ClaimAsync();
        await zombie.PublishCheckpointAsync(job.Manifest(zombie, 10), TestJob.Cancellation);
        string path = BlobLayout.Head(job.RunId, TestJob.Stage);
        StoredBlob seen = (await job.Blobs.ReadAsync(path, TestJob.Cancellation))!;

        await job.EnqueueAsync(2);

        Assert.False(await job.Blobs.TryReplaceAsync(path, seen.Content, seen.ETag, TestJob.Cancellation));
    }

    [Fact]
    public async Task Finishing_twice_is_finishing_once_and_a_second_opinion_is_refused()
    {
        await job.EnqueueAsync(1);
        JobAttempt attempt = await job.ClaimAsync();
        await attempt.FinishAsync(new JobResult { Outcome = JobState.SliceDone, Step = 5 }, TestJob.Cancellation);
        await attempt.FinishAsync(new JobResult { Outcome = JobState.SliceDone, Step = 5 }, TestJob.Cancellation);

        await Assert.ThrowsAsync<FencedException>(() => attempt.FinishAsync(new JobResult { Outcome = JobState.Failed }, TestJob.Cancellation));
        Assert.Equal((JobState.SliceDone, 5), ((await job.ReadAsync()).State, (await job.ReadAsync()).Result!.Step));
    }

    [Fact]
    public async Task Metrics_whose_reply_was_lost_are_appended_once()
    {
        await job.EnqueueAsync(1);
        var store = new LosesReplies(job.Blobs);
        JobAttempt attempt = (await JobAttempt.TryClaimAsync(store, TestJob.Message(job, 1), "a", TestJob.Cancellation))!;

        foreach (string line in new[] { "one\n", "two\n", "three\n" })
        {
            store.LoseNext = true;
            await Assert.ThrowsAsync<IOException>(() => attempt.AppendMetricsAsync(BinaryData.FromString(line), TestJob.Cancellation));
            await attempt.AppendMetricsAsync(BinaryData.FromString(line), TestJob.Cancellation);
        }

        string path = BlobLayout.Metrics(attempt.Path);
        Assert.Equal("one\ntwo\nthree\n", (await job.Blobs.ReadAsync(path, TestJob.Cancellation))!.Content.ToString());

        await job.Blobs.TryAppendAsync(path, BinaryData.FromString("somebody else\n"), 14, TestJob.Cancellation);
        var e = await Assert.ThrowsAsync<CorruptBlobException>(() => attempt.AppendMetricsAsync(BinaryData.FromString("four\n"), TestJob.Cancellation));
        Assert.Equal(path, e.Path);
    }

    /// <summary>A real store behind a connection that breaks after the next append has arrived.</summary>
    private sealed class LosesReplies(IBlobStore store) : IBlobStore
    {
        public bool LoseNext { get; set; }

        public async Task<bool> TryAppendAsync(string path, BinaryData content, long offset, CancellationToken cancellation)
        {
            bool appended = await store.TryAppendAsync(path, content, offset, cancellation);
            if (!LoseNext)
                return appended;
            LoseNext = false;
            throw new IOException("the connection broke before the reply");
        }

        public Task<StoredBlob?> ReadAsync(string path, CancellationToken cancellation) => store.ReadAsync(path, cancellation);

        public Task<Stream> OpenReadAsync(string path, CancellationToken cancellation) => store.OpenReadAsync(path, cancellation);

        public Task<bool> TryCreateAsync(string path, BinaryData content, CancellationToken cancellation) => store.TryCreateAsync(path, content, cancellation);

        public Task<bool> TryCreateAsync(string path, Stream content, CancellationToken cancellation) => store.TryCreateAsync(path, content, cancellation);

        public Task<bool> TryReplaceAsync(string path, BinaryData content, string etag, CancellationToken cancellation) =>
            store.TryReplaceAsync(path, content, etag, cancellation);

        public Task WriteAsync(string path, BinaryData content, CancellationToken cancellation) => store.WriteAsync(path, content, cancellation);

        public IAsyncEnumerable<BlobEntry> ListAsync(string prefix, CancellationToken cancellation) => store.ListAsync(prefix, cancellation);

        public Task DeleteAsync(string path, CancellationToken cancellation) => store.DeleteAsync(path, cancellation);
    }
}
