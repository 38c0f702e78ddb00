using Rlhf.Storage;

namespace Rlhf.Jobs;

/// <summary>What the orchestrator sees when it looks at a job.</summary>
public sealed record JobStatus
{
    public required int Fence { get; init; }

    public required JobState State { get; init; }

    /// <summary>The heartbeat's sequence number; -1 before the first.</summary>
    public long Sequence { get; init; } = -1;

    public string Phase { get; init; } = "queued";

    public int Step { get; init; }

    public int TotalSteps { get; init; }

    public double SecondsPerStep { get; init; }

    /// <summary>Step of the newest checkpoint of the stage.</summary>
    public int HeadStep { get; init; }

    /// <summary>Trainer seconds of the current attempt and of all before it.</summary>
    public double Seconds { get; init; }

    /// <summary>Attempts that a trainer has claimed, the current one included.</summary>
    public int Attempts { get; init; }

    public JobResult? Result { get; init; }
}

/// <summary>
/// The orchestrator's half of the job protocol. Every method may run any number of times with the same arguments (activities are
/// at-least-once) and has the effect of one.
/// </summary>
public sealed class JobControl(IBlobStore blobs, Func<string, IMessageQueue> queue)
{
    /// <summary>
    /// Brings the job to <c>Queued(fence)</c> and sends its message. Fence 1 creates the job; fence f + 1 ends attempt f, records why,
    /// and seals the head, so that the old attempt can publish nothing more before the new one starts.
    /// </summary>
    /// <param name="machine">The kind of machine, which names the queue.</param>
    /// <param name="runId">The run.</param>
    /// <param name="stage">The stage.</param>
    /// <param name="fence">The fence to bring about.</param>
    /// <param name="spec">The work from this fence on.</param>
    /// <param name="outcome">How the attempt before ended, for the history, such as <c>lost</c>; null takes its state.</param>
    /// <param name="reason">Why, in words.</param>
    /// <param name="cancellation">Cancels.</param>
    /// <returns>The document as it stands; its fence is larger where this call came too late.</returns>
    public async Task<JobDocument> EnqueueAsync(
        string machine, string runId, string stage, int fence, JobSpec spec, string? outcome, string? reason, CancellationToken cancellation)
    {
        double seconds = fence > 1 ? await AttemptSecondsAsync(runId, stage, fence - 1, cancellation) : 0;
        JobDocument job = (await blobs.UpdateJsonAsync<JobDocument>(
            BlobLayout.Job(runId, stage),
            present => present switch
            {
                null when fence == 1 => new JobDocument { RunId = runId, Stage = stage, Fence = 1, State = JobState.Queued, Spec = spec },
                null => throw new InvalidOperationException($"Run '{runId}', stage '{stage}': there is no job to raise to fence {fence}."),
                { Fence: var f } when f >= fence => present,
                { State: JobState.Succeeded or JobState.Cancelled } => present,
                { Fence: var f } when f == fence - 1 => present with
                {
                    Fence = fence,
                    State = JobState.Queued,
                    AttemptId = null,
                    Spec = spec,
                    Result = null,
                    Desired = present.Desired == DesiredState.Pause ? DesiredState.Run : present.Desired,
                    History =
                    [
                        .. present.History,
                        new AttemptRecord(
                            f, present.AttemptId, outcome ?? JsonName(present.State), reason ?? present.Result?.Error?.Message, present.Result?.Seconds ?? seconds),
                    ],
                },
                _ => throw new InvalidOperationException($"Run '{runId}', stage '{stage}': fence {fence} does not follow {present.Fence}."),
            },
            cancellation))!;

        if (job.Fence != fence || job.State != JobState.Queued)
            return job;

        if (fence > 1)
            await SealHeadAsync(runId, stage, fence, cancellation);
        var message = new JobMessage(1, runId, stage, fence);
        await queue(StorageAccount.JobQueue(machine)).SendAsync(CasDocument.Serialize(message).ToString(), cancellation);
        return job;
    }

    /// <summary>The job's state with the newest heartbeat of its current attempt; null when there is no job.</summary>
    public async Task<JobStatus?> InspectAsync(string runId, string stage, CancellationToken cancellation)
    {
        JobDocument? job = await blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), cancellation);
        if (job is null)
            return null;

        Heartbeat? beat = job.AttemptId is { } attempt
            ? await blobs.ReadJsonAsync<Heartbeat>(BlobLayout.Heartbeat(BlobLayout.Attempt(runId, stage, job.Fence, attempt)), cancellation)
            : null;
        Head? head = await blobs.ReadJsonAsync<Head>(BlobLayout.Head(runId, stage), cancellation);
        return new JobStatus
        {
            Fence = job.Fence,
            State = job.State,
            Sequence = beat?.Sequence ?? -1,
            Phase = job.State == JobState.Queued ? "queued" : beat?.Phase ?? "starting",
            Step = job.Result?.Step ?? beat?.Step ?? head?.Step ?? 0,
            TotalSteps = job.Result?.TotalSteps ?? beat?.TotalSteps ?? 0,
            SecondsPerStep = beat?.SecondsPerStep ?? 0,
            HeadStep = head?.Step ?? 0,
            Seconds = job.History.Sum(record => record.Seconds) + (job.Result?.Seconds ?? beat?.Seconds ?? 0),
            Attempts = job.History.Count(record => record.AttemptId is not null) + (job.AttemptId is null ? 0 : 1),
            Result = job.Result,
        };
    }

    /// <summary>Asks the current attempt to go on, pause or stop. A job nobody has claimed yet is cancelled or paused on the spot.</summary>
    /// <returns>False when there is no job, or it has already ended for good.</returns>
    public async Task<bool> RequestAsync(string runId, string stage, DesiredState desired, CancellationToken cancellation)
    {
        JobDocument? job = await blobs.UpdateJsonAsync<JobDocument>(
            BlobLayout.Job(runId, stage),
            present => present switch
            {
                null or { State: JobState.Succeeded or JobState.Cancelled } => present,
                { State: not JobState.Running } when desired == DesiredState.Cancel => present with { Desired = desired, State = JobState.Cancelled },
                { State: JobState.Queued } when desired == DesiredState.Pause => present with { Desired = desired, State = JobState.Paused },
                _ when present.Desired == desired => present,
                _ => present with { Desired = desired },
            },
            cancellation);
        return job is not null && job.State is not (JobState.Succeeded or JobState.Failed);
    }

    /// <summary>Ends a job that was asked to stop and did not answer: from now on its attempt can publish nothing.</summary>
    public async Task CancelUnresponsiveAsync(string runId, string stage, CancellationToken cancellation)
    {
        JobDocument? before = await blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), cancellation);
        double seconds = before is null ? 0 : await AttemptSecondsAsync(runId, stage, before.Fence, cancellation);
        JobDocument? job = await blobs.UpdateJsonAsync<JobDocument>(
            BlobLayout.Job(runId, stage),
            present => present is null or { State: JobState.Succeeded or JobState.Cancelled }
                ? present
                : present with
                {
                    Fence = present.Fence + 1,
                    State = JobState.Cancelled,
                    AttemptId = null,
                    Result = null,
                    History =
                    [
                        .. present.History,
                        new AttemptRecord(present.Fence, present.AttemptId, "unresponsive", "It was asked to stop and did not answer.", present.Result?.Seconds ?? seconds),
                    ],
                },
            cancellation);
        if (job is { State: JobState.Cancelled })
            await SealHeadAsync(runId, stage, job.Fence, cancellation);
    }

    private Task<Head?> SealHeadAsync(string runId, string stage, int fence, CancellationToken cancellation) =>
        blobs.UpdateJsonAsync<Head>(
            BlobLayout.Head(runId, stage),
            head => head switch
            {
                null => new Head { Fence = 0, Step = 0, SealedBy = fence },
                { SealedBy: var sealedBy } when sealedBy >= fence => head,
                _ => head with { SealedBy = fence },
            },
            cancellation);

    private async Task<double> AttemptSecondsAsync(string runId, string stage, int fence, CancellationToken cancellation)
    {
        JobDocument? job = await blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), cancellation);
        if (job?.AttemptId is null || job.Fence != fence)
            return 0;
        string attempt = BlobLayout.Attempt(runId, stage, fence, job.AttemptId);
        return (await blobs.ReadJsonAsync<Heartbeat>(BlobLayout.Heartbeat(attempt), cancellation))?.Seconds ?? 0;
    }

    private static string JsonName(JobState state) => System.Text.Json.JsonNamingPolicy.CamelCase.ConvertName(state.ToString());
}
