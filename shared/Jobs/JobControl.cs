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

    /// <summary>Step of the newest checkpoint of the stage; 0 before the first, and where the head cannot be gone by.</summary>
    public int HeadStep { get; init; }

    /// <summary>The fence of the attempt that wrote it; 0 before the first checkpoint, -1 where the head cannot be gone by.</summary>
    public int HeadFence { get; init; }

    /// <summary>Trainer seconds of the current attempt and of all before it.</summary>
    public double Seconds { get; init; }

    /// <summary>Attempts that a trainer has claimed, the current one included.</summary>
    public int Attempts { get; init; }

    public JobResult? Result { get; init; }

    /// <summary>Why there is no job document to look at: it is gone or damaged. The other figures mean nothing then.</summary>
    public string? Damage { get; init; }

    /// <summary>A job whose document cannot be read.</summary>
    public static JobStatus Damaged(string why) => new() { Fence = 0, State = JobState.Queued, Damage = why };
}

/// <summary>
/// The orchestrator's half of the job protocol. Every method may run any number of times with the same arguments (activities are
/// at-least-once) and has the effect of one.
/// </summary>
public sealed class JobControl(IBlobStore blobs, Func<string, IMessageQueue> queue)
{
    /// <summary>
    /// Brings the job to <c>Queued(fence)</c>, seals the head, and sends the message. Fence 1 creates the job; fence f + 1 ends attempt f and
    /// records why. The seal lets the old attempt publish nothing more before the new one starts, and shows that there may be a new one. After
    /// the outcomes <see cref="AttemptOutcomes.DocumentLost"/> and <see cref="AttemptOutcomes.StorageRollback"/> the document is written anew,
    /// its history out of what the attempts left.
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
    /// <exception cref="CorruptBlobException">
    /// The document is damaged, gone or too old, and the outcome is none of those two; or this fence may have been claimed already. Take the next.
    /// </exception>
    public async Task<JobDocument> EnqueueAsync(
        string machine, string runId, string stage, int fence, JobSpec spec, string? outcome, string? reason, CancellationToken cancellation)
    {
        var next = new JobDocument { RunId = runId, Stage = stage, Fence = fence, State = JobState.Queued, Spec = spec };
        bool isLoss = outcome is AttemptOutcomes.DocumentLost or AttemptOutcomes.StorageRollback;
        JobDocument job;
        try
        {
            bool isFirst = fence == 1 && !await IsSealedByAsync(runId, stage, fence, cancellation);
            double seconds = fence > 1 ? await AttemptSecondsAsync(runId, stage, fence - 1, cancellation) : 0;
            job = (await blobs.UpdateJsonAsync<JobDocument>(
                BlobLayout.Job(runId, stage),
                present => present switch
                {
                    null when isFirst => next,
                    { Fence: var f } when f >= fence => present,
                    { State: JobState.Succeeded or JobState.Cancelled } => present,
                    { Fence: var f } when f == fence - 1 && !isLoss =>
                        next with
                        {
                            Desired = present.Desired == DesiredState.Pause ? DesiredState.Run : present.Desired,
                            History =
                            [
                                .. present.History,
                                new AttemptRecord(
                                    f, present.AttemptId, outcome ?? JsonName(present.State), reason ?? present.Result?.Error?.Message,
                                    present.Result?.Seconds ?? seconds),
                            ],
                        },
                    _ => throw new CorruptBlobException(
                        BlobLayout.Job(runId, stage),
                        present is null ? "it is gone" : $"it is of fence {present.Fence}, which fence {fence} does not follow"),
                },
                cancellation))!;
        }
        catch (CorruptBlobException) when (isLoss)
        {
            job = await RebuildAsync(next, outcome!, reason, cancellation);
        }

        if (job.Fence != fence || job.State != JobState.Queued)
            return job;

        await SealHeadAsync(runId, stage, fence, cancellation);
        var message = new JobMessage(1, runId, stage, fence);
        await queue(StorageAccount.JobQueue(machine)).SendAsync(CasDocument.Serialize(message).ToString(), cancellation);
        return job;
    }

    /// <summary>The job's state with the newest heartbeat of its current attempt; null when there is no job.</summary>
    /// <exception cref="CorruptBlobException">The job document is damaged.</exception>
    public async Task<JobStatus?> InspectAsync(string runId, string stage, CancellationToken cancellation)
    {
        JobDocument? job = await blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), cancellation);
        if (job is null)
            return null;

        // A damaged heartbeat is as good as none until the next; a damaged head is put right by whoever writes it next.
        Heartbeat? beat = job.AttemptId is { } attempt
            ? await blobs.ReadIntactJsonAsync<Heartbeat>(BlobLayout.Heartbeat(BlobLayout.Attempt(runId, stage, job.Fence, attempt)), cancellation)
            : null;
        Head? head = await blobs.ReadIntactJsonAsync<Head>(BlobLayout.Head(runId, stage), cancellation);
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
            HeadFence = head is { IsLost: false } ? head.Fence : -1,
            Seconds = job.History.Sum(record => record.Seconds) + (job.Result?.Seconds ?? beat?.Seconds ?? 0),
            Attempts = job.History.Count(record => record.AttemptId is not null) + (job.AttemptId is null ? 0 : 1),
            Result = job.Result,
        };
    }

    /// <summary>Asks the current attempt to go on, pause or stop. A job nobody has claimed yet is cancelled or paused on the spot.</summary>
    /// <returns>False when there is no job, or it has already ended for good.</returns>
    /// <exception cref="CorruptBlobException">The job document is damaged: nobody can go on by it, so there is nobody to be asked.</exception>
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
    /// <exception cref="CorruptBlobException">The job document is damaged: its attempt stops by itself.</exception>
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
                        new AttemptRecord(present.Fence, present.AttemptId, AttemptOutcomes.Unresponsive, "It was asked to stop and did not answer.", present.Result?.Seconds ?? seconds),
                    ],
                },
            cancellation);
        if (job is { State: JobState.Cancelled })
            await SealHeadAsync(runId, stage, job.Fence, cancellation);
    }

    /// <summary>
    /// Writes a job document whose predecessor cannot be gone by. Nobody may hold the new fence yet, or two attempts would share it: that is
    /// certain only while the head is not sealed by it, since the seal comes before the message.
    /// </summary>
    private async Task<JobDocument> RebuildAsync(JobDocument next, string outcome, string? reason, CancellationToken cancellation)
    {
        string path = BlobLayout.Job(next.RunId, next.Stage);
        if (await IsSealedByAsync(next.RunId, next.Stage, next.Fence, cancellation))
            throw new CorruptBlobException(path, $"fence {next.Fence} may have been claimed");

        next = next with { History = await HistoryAsync(next, outcome, reason, cancellation) };
        return (await blobs.UpdateJsonAsync<JobDocument>(
            path, present => present is not null && present.Fence >= next.Fence ? present : next, cancellation, rebuild: () => next))!;
    }

    private async Task<bool> IsSealedByAsync(string runId, string stage, int fence, CancellationToken cancellation)
    {
        try
        {
            return (await blobs.ReadJsonAsync<Head>(BlobLayout.Head(runId, stage), cancellation))?.SealedBy >= fence;
        }
        catch (CorruptBlobException)
        {
            await SealHeadAsync(runId, stage, fence, cancellation); // the next fence will find it readable
            return true;
        }
    }

    /// <summary>The ended attempts by what they left, oldest first.</summary>
    private async Task<IReadOnlyList<AttemptRecord>> HistoryAsync(
        JobDocument next, string outcome, string? reason, CancellationToken cancellation)
    {
        var attempts = new SortedSet<(int Fence, string Id)>();
        await foreach (BlobEntry entry in blobs.ListAsync(BlobLayout.Attempts(next.RunId, next.Stage), cancellation))
        {
            if (BlobLayout.TryParseAttempt(next.RunId, next.Stage, entry.Path, out int fence, out string id) && fence < next.Fence)
                attempts.Add((fence, id));
        }

        var history = new List<AttemptRecord>();
        foreach ((int fence, string id) in attempts)
        {
            string folder = BlobLayout.Attempt(next.RunId, next.Stage, fence, id);
            JobResult? result = await blobs.ReadIntactJsonAsync<JobResult>(BlobLayout.Result(folder), cancellation);
            double seconds = result?.Seconds ?? (await blobs.ReadIntactJsonAsync<Heartbeat>(BlobLayout.Heartbeat(folder), cancellation))?.Seconds ?? 0;
            history.Add(result is null || fence == next.Fence - 1
                ? new AttemptRecord(fence, id, outcome, reason, seconds)
                : new AttemptRecord(fence, id, JsonName(result.Outcome), result.Error?.Message, seconds));
        }

        return history.Exists(record => record.Fence == next.Fence - 1)
            ? history
            : [.. history, new AttemptRecord(next.Fence - 1, null, outcome, reason, 0)];
    }

    private Task<Head?> SealHeadAsync(string runId, string stage, int fence, CancellationToken cancellation)
    {
        // What it pointed to has to be looked for, unless there can have been no attempt yet.
        var lost = new Head { Fence = 0, Step = 0, SealedBy = fence, IsLost = true };
        return blobs.UpdateJsonAsync<Head>(
            BlobLayout.Head(runId, stage),
            head => head switch
            {
                null => lost with { IsLost = fence > 1 },
                { SealedBy: var sealedBy } when sealedBy >= fence => head,
                _ => head with { SealedBy = fence },
            },
            cancellation,
            rebuild: () => lost);
    }

    private async Task<double> AttemptSecondsAsync(string runId, string stage, int fence, CancellationToken cancellation)
    {
        JobDocument? job = await blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), cancellation);
        if (job?.AttemptId is null || job.Fence != fence)
            return 0;
        string attempt = BlobLayout.Attempt(runId, stage, fence, job.AttemptId);
        return (await blobs.ReadIntactJsonAsync<Heartbeat>(BlobLayout.Heartbeat(attempt), cancellation))?.Seconds ?? 0;
    }

    private static string JsonName(JobState state) => System.Text.Json.JsonNamingPolicy.CamelCase.ConvertName(state.ToString());
}
