using Rlhf.Storage;

namespace Rlhf.Jobs;

/// <summary>The attempt's fence is no longer the job's: another attempt took over, or the job was ended. Stop without a trace.</summary>
public sealed class FencedException(string runId, string stage, int fence, Exception? inner = null)
    : Exception($"Run '{runId}', stage '{stage}': the attempt with fence {fence} has been superseded and stops.", inner);

/// <summary>
/// The trainer's half of the job protocol: one claimed attempt. Everything it writes lies below its own path; it becomes visible
/// only through <c>head.json</c> and <c>job.json</c>, whose changes an outdated attempt loses.
/// </summary>
public sealed class JobAttempt
{
    private readonly IBlobStore blobs;
    private readonly JobDocument job;
    private long metricsLength;

    private JobAttempt(IBlobStore blobs, JobDocument job)
    {
        this.blobs = blobs;
        this.job = job;
        Path = BlobLayout.Attempt(job.RunId, job.Stage, job.Fence, job.AttemptId!);
    }

    /// <summary>The work.</summary>
    public JobSpec Spec => job.Spec;

    public string RunId => job.RunId;

    public string Stage => job.Stage;

    public int Fence => job.Fence;

    public string AttemptId => job.AttemptId!;

    /// <summary>The attempt's own place in the container, ending with a slash.</summary>
    public string Path { get; }

    /// <summary>
    /// Claims the job that a message points to. Null when the message is stale or somebody else won: then there is nothing to do but
    /// to delete the message. After a won claim the message is deleted too: from here on job.json and the watchdog own the work.
    /// </summary>
    public static async Task<JobAttempt?> TryClaimAsync(IBlobStore blobs, JobMessage message, string attemptId, CancellationToken cancellation)
    {
        JobDocument? job = await blobs.UpdateJsonAsync<JobDocument>(
            BlobLayout.Job(message.RunId, message.Stage),
            present => present is { State: JobState.Queued } && present.Fence == message.Fence
                ? present with { State = JobState.Running, AttemptId = attemptId }
                : present,
            cancellation);
        return job is { State: JobState.Running } && job.Fence == message.Fence && job.AttemptId == attemptId
            ? new JobAttempt(blobs, job)
            : null;
    }

    /// <summary>Writes the heartbeat and reads what the orchestrator wants.</summary>
    /// <exception cref="FencedException">The job went on without this attempt.</exception>
    public async Task<DesiredState> BeatAsync(Heartbeat heartbeat, CancellationToken cancellation)
    {
        await blobs.WriteAsync(BlobLayout.Heartbeat(Path), CasDocument.Serialize(heartbeat), cancellation);
        return (await ReadMineAsync(cancellation)).Desired;
    }

    /// <summary>Appends metric rows; a repeated call after a lost reply appends nothing twice.</summary>
    public async Task AppendMetricsAsync(BinaryData lines, CancellationToken cancellation)
    {
        string path = BlobLayout.Metrics(Path);
        long length = lines.ToMemory().Length;
        if (await blobs.TryAppendAsync(path, lines, metricsLength, cancellation))
        {
            metricsLength += length;
            return;
        }

        // The position differs: either our append arrived and its reply was lost, or the blob is not what we left.
        long stored = (await blobs.ReadAsync(path, cancellation))?.Content.ToMemory().Length ?? 0;
        metricsLength = stored == metricsLength + length
            ? stored
            : throw new CorruptBlobException(path, $"it has {stored} bytes where {metricsLength} or {metricsLength + length} were expected");
    }

    /// <summary>The head as it stands; null before the first checkpoint and the first seal.</summary>
    public Task<Head?> ReadHeadAsync(CancellationToken cancellation) =>
        blobs.ReadJsonAsync<Head>(BlobLayout.Head(RunId, Stage), cancellation);

    /// <summary>Makes a checkpoint visible: its parts are stored, now its manifest, last the head.</summary>
    /// <exception cref="FencedException">A newer attempt has sealed the head.</exception>
    public async Task PublishCheckpointAsync(CheckpointManifest manifest, CancellationToken cancellation)
    {
        string path = BlobLayout.CheckpointManifest(Path, manifest.Step);
        BinaryData content = CasDocument.Serialize(manifest);
        await blobs.TryCreateAsync(path, content, cancellation);
        var head = new Head { Fence = Fence, Step = manifest.Step, Manifest = path, ManifestSha256 = CasDocument.Sha256(content) };

        await ReadMineAsync(cancellation);
        await blobs.UpdateJsonAsync<Head>(
            BlobLayout.Head(RunId, Stage),
            present => present switch
            {
                null => head with { SealedBy = Fence },
                _ when present.SealedBy > Fence || present.Fence > Fence => throw new FencedException(RunId, Stage, Fence),
                _ when present.Manifest == head.Manifest && present.ManifestSha256 == head.ManifestSha256 => present,
                _ => head with { SealedBy = present.SealedBy },
            },
            cancellation,
            // A damaged head: the job was just seen to be this attempt's, and whoever takes it away writes the head too, so one of us loses.
            rebuild: () => head with { SealedBy = Fence });
    }

    /// <summary>Ends the attempt: its result, then the job's state.</summary>
    /// <exception cref="FencedException">The job went on without this attempt.</exception>
    public async Task FinishAsync(JobResult result, CancellationToken cancellation)
    {
        await blobs.TryCreateAsync(BlobLayout.Result(Path), CasDocument.Serialize(result), cancellation);
        JobDocument? now;
        try
        {
            now = await blobs.UpdateJsonAsync<JobDocument>(
                BlobLayout.Job(RunId, Stage),
                present => IsMine(present) && present!.State == JobState.Running
                    ? present with { State = result.Outcome, Result = result }
                    : present,
                cancellation);
        }
        catch (CorruptBlobException e)
        {
            throw new FencedException(RunId, Stage, Fence, e);
        }

        if (!IsMine(now) || now!.State != result.Outcome)
            throw new FencedException(RunId, Stage, Fence);
    }

    /// <summary>The job, still this attempt's.</summary>
    /// <exception cref="FencedException">It is not; or its document is damaged, and the orchestrator will send it again.</exception>
    private async Task<JobDocument> ReadMineAsync(CancellationToken cancellation)
    {
        try
        {
            JobDocument? now = await blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(RunId, Stage), cancellation);
            return IsMine(now) ? now! : throw new FencedException(RunId, Stage, Fence);
        }
        catch (CorruptBlobException e)
        {
            throw new FencedException(RunId, Stage, Fence, e);
        }
    }

    private bool IsMine(JobDocument? now) => now is not null && now.Fence == Fence && now.AttemptId == AttemptId;
}
