using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Spec;

namespace Rlhf.Functions.Orchestrators;

/// <summary>A job to see through, by references only.</summary>
public sealed record JobOrder
{
    public required string RunId { get; init; }

    public required string Stage { get; init; }

    public required JobSpec Job { get; init; }

    public required TrainerSpec Trainer { get; init; }

    public required BudgetSpec Budget { get; init; }

    /// <summary>Trainer seconds that the attempts of this stage may use together; null for no limit.</summary>
    public double? MaxTrainerSeconds { get; init; }
}

/// <summary>What one look at a job shows.</summary>
/// <param name="Job">The job with its newest heartbeat.</param>
/// <param name="Desired">What people last asked of the run.</param>
public sealed record JobLook(JobStatus Job, DesiredState Desired);

/// <summary>What a watched job came to.</summary>
/// <param name="State">The job's last state: Succeeded, SliceDone, Cancelled, or Failed when the orchestrator gave it up.</param>
/// <param name="Result">The result of the attempt that ended it, where there is one.</param>
/// <param name="Error">Why it failed, and what to do.</param>
public sealed record JobEnd(JobState State, JobResult? Result, string? Error);

/// <summary>What to do after a look at a job.</summary>
public enum WatchStep
{
    /// <summary>Look again later.</summary>
    Wait,

    /// <summary>Send the desired state (<see cref="JobWatch.Told"/>) to the attempt.</summary>
    Tell,

    /// <summary>Send the job again under the next fence.</summary>
    Requeue,

    /// <summary>End a job whose attempt does not answer.</summary>
    CancelUnresponsive,

    /// <summary>The job is over: see <see cref="JobWatch.End"/>.</summary>
    Done,
}

/// <summary>
/// The watchdog over one stage's job: its state, carried from look to look, and its rules. It is a pure function of what was seen and when,
/// on the orchestrator's clock alone, so every decision can be replayed. Machines' clocks are never compared, and a gap between two looks
/// (the host was down, storage was unreachable) counts for at most a third of any limit: no trainer dies of the orchestrator's absence.
/// </summary>
public sealed record JobWatch
{
    /// <summary>Heartbeats that may be missed whatever the limit in seconds says.</summary>
    private const int MissedHeartbeats = 6;

    /// <summary>A step may take this many times the usual before it counts as stuck.</summary>
    private const int SlowSteps = 10;

    /// <summary>The longest that a cancel waits for an answer, unless the steps are longer.</summary>
    private const double CancelSeconds = 60;

    /// <summary>The longest pause before another attempt after an error that time may put right.</summary>
    private const double LongestPauseSeconds = 600;

    /// <summary>
    /// After an outage a trainer may be silent this much longer: who waits for storage asks with pauses (the SDK's and its own), and does not
    /// know at once that it is back.
    /// </summary>
    private const double RecoverySeconds = 10;

    private const double HoursUntilUnreachableIsFinal = 24;

    /// <summary>The fence of the present attempt.</summary>
    public int Fence { get; init; } = 1;

    /// <summary>The present fence has been sent to the queue.</summary>
    public bool IsQueued { get; init; }

    /// <summary>How the attempt before ended, and why, for the job's history.</summary>
    public string? Outcome { get; init; }

    public string? Reason { get; init; }

    /// <summary>What the attempt was last told.</summary>
    public DesiredState Told { get; init; }

    /// <summary>Why the orchestrator itself stops the job; null while it does not.</summary>
    public string? StopReason { get; init; }

    /// <summary>The last look's time on the orchestrator's clock; null before the first and after an outage.</summary>
    public DateTime? LookedAt { get; init; }

    public long Sequence { get; init; } = -1;

    public int Step { get; init; }

    public string Phase { get; init; } = string.Empty;

    /// <summary>The newest checkpoint that was seen: its step, and the fence of the attempt that wrote it.</summary>
    public int HeadStep { get; init; }

    public int HeadFence { get; init; }

    /// <summary>A trainer was seen to have claimed the present fence.</summary>
    public bool IsClaimed { get; init; }

    /// <summary>Seconds to wait before the next attempt is sent.</summary>
    public double PauseSeconds { get; init; }

    /// <summary>Seconds for which the job has waited for a trainer.</summary>
    public double QueuedSeconds { get; init; }

    /// <summary>Seconds for which the heartbeat has stood still; below 0 while an outage is still allowed for.</summary>
    public double SilentSeconds { get; init; }

    /// <summary>Seconds for which the heartbeat has moved and the step has not.</summary>
    public double StuckSeconds { get; init; }

    /// <summary>Seconds since the attempt was told to stop for good.</summary>
    public double StoppingSeconds { get; init; }

    /// <summary>When looks at the job began to fail.</summary>
    public DateTime? UnreachableSince { get; init; }

    /// <summary>The last look that failed; null after one that did not.</summary>
    public DateTime? UnreachableAt { get; init; }

    /// <summary>Seconds for which looks have failed.</summary>
    public double UnreachableSeconds { get; init; }

    /// <summary>When the pause began that the job is in.</summary>
    public DateTime? HeldSince { get; init; }

    /// <summary>Seconds spent in pauses before.</summary>
    public double PausedSeconds { get; init; }

    /// <summary>Attempts that ended in an error of the trainer's own, of no kind that is counted below.</summary>
    public int Errors { get; init; }

    /// <summary>Attempts that ran out of memory.</summary>
    public int OutOfMemory { get; init; }

    /// <summary>Attempts that ran out of disk space.</summary>
    public int DiskFull { get; init; }

    /// <summary>Trainers lost since the newest checkpoint last moved.</summary>
    public int Lost { get; init; }

    /// <summary>Trainers wedged since the newest checkpoint last moved.</summary>
    public int Wedged { get; init; }

    /// <summary>Waits in vain for a trainer since one last claimed the job.</summary>
    public int StartTimeouts { get; init; }

    /// <summary>Checkpoints that failed verification, and job documents that were damaged or went back to an older state.</summary>
    public int CorruptCheckpoints { get; init; }

    /// <summary>Step of the newest checkpoint when a trainer was last lost.</summary>
    public int HeadStepAtLoss { get; init; } = -1;

    /// <summary>Attempts that a trainer has claimed.</summary>
    public int Attempts { get; init; }

    /// <summary>Trainer seconds of the stage so far.</summary>
    public double TrainerSeconds { get; init; }

    /// <summary>Set with <see cref="WatchStep.Done"/>.</summary>
    public JobEnd? End { get; init; }

    /// <summary>The watch over the next slice of a job that has done its slice; the budgets go on.</summary>
    public JobWatch NextSlice() => NextAttempt(null, null);

    /// <summary>A look that failed: it says nothing about the trainer, however long it goes on.</summary>
    public (JobWatch Watch, WatchStep Step) Unreachable(JobOrder order, DateTime now, string why)
    {
        const double limit = HoursUntilUnreachableIsFinal * 3600;
        double gap = UnreachableAt is { } before ? (now - before).TotalSeconds : 0;
        JobWatch next = this with
        {
            LookedAt = null,
            UnreachableSince = UnreachableSince ?? now,
            UnreachableAt = now,
            UnreachableSeconds = UnreachableSeconds + Math.Min(gap, limit / 3), // the host was down, or its clock has jumped
        };
        return next.UnreachableSeconds < limit
            ? (next, WatchStep.Wait)
            : next.Over(new JobEnd(JobState.Failed, null, Text(
                order, Fence, $"storage could not be read for {HoursUntilUnreachableIsFinal} hours: {why}",
                "Restore the storage account, then start the run again under a new id.")));
    }

    /// <summary>Decides from what was seen.</summary>
    public (JobWatch Watch, WatchStep Step) Observe(JobOrder order, JobLook look, DateTime now)
    {
        JobStatus job = look.Job;
        if (job.Damage is { } damage)
            return (this with { LookedAt = now }).Damaged(order, damage, look.Desired);
        if (RolledBack(job) is { } loss)
            return (this with { LookedAt = now }).LostDocument(order, AttemptOutcomes.StorageRollback, loss);

        double gap = LookedAt is { } before ? (now - before).TotalSeconds : 0;
        JobWatch next = this with
        {
            SilentSeconds = UnreachableSince is null ? SilentSeconds : Math.Min(SilentSeconds, -RecoverySeconds),
            Fence = job.Fence,
            HeadStep = job.HeadStep,
            HeadFence = job.HeadFence,
            IsClaimed = IsClaimed || job.State == JobState.Running,
            LookedAt = now,
            UnreachableSince = null,
            UnreachableAt = null,
            UnreachableSeconds = 0,
            Attempts = job.Attempts,
            TrainerSeconds = job.Seconds,
            StopReason = StopReason ?? OverBudget(order, job),
        };
        DesiredState desired = next.StopReason is null ? look.Desired : DesiredState.Cancel;
        return job.State switch
        {
            JobState.Succeeded or JobState.SliceDone => next.Over(new JobEnd(job.State, job.Result, null)),
            JobState.Cancelled when next.StopReason is { } reason => next.Over(new JobEnd(JobState.Failed, null, reason)),
            JobState.Cancelled => next.Over(new JobEnd(JobState.Cancelled, job.Result, null)),
            JobState.Paused or JobState.Preempted or JobState.Failed when desired == DesiredState.Cancel =>
                (next with { Told = desired }, WatchStep.Tell),
            JobState.Paused => (next.NextAttempt("paused", null), WatchStep.Requeue),
            JobState.Preempted => next.LostTrainer(order, job, "preempted", "the machine was taken away"),
            JobState.Failed => next.TrainerError(order, job),
            _ when desired != Told => (next with { Told = desired }, WatchStep.Tell),
            JobState.Queued => next.Queued(order, gap),
            _ => next.Running(order, job, gap),
        };
    }

    private (JobWatch Watch, WatchStep Step) Queued(JobOrder order, double gap)
    {
        double limit = order.Trainer.StartTimeoutSeconds;
        JobWatch next = this with { QueuedSeconds = QueuedSeconds + Math.Min(gap, limit / 3) };
        if (next.QueuedSeconds < limit)
            return (next, WatchStep.Wait);

        string reason = $"no trainer took the job from queue 'rlhf-jobs-{order.Trainer.Machine}' within {limit:0.#} s";
        int timeouts = StartTimeouts + 1;
        return timeouts > order.Budget.StartTimeouts
            ? GiveUp(
                order, $"{reason}, {timeouts} times (budget.startTimeouts is {order.Budget.StartTimeouts})",
                $"Start a trainer for machine '{order.Trainer.Machine}', then start the run again under a new id.")
            : ((next with { StartTimeouts = timeouts }).NextAttempt(AttemptOutcomes.StartTimeout, reason), WatchStep.Requeue);
    }

    private (JobWatch Watch, WatchStep Step) Running(JobOrder order, JobStatus job, double gap)
    {
        double lostAfter = Math.Max(MissedHeartbeats * order.Trainer.HeartbeatSeconds, order.Trainer.LostAfterSeconds);
        double wedgedAfter = Math.Max(SlowSteps * job.SecondsPerStep, order.Trainer.WedgedAfterSeconds);
        double cancelAfter = Math.Max(
            Math.Max(MissedHeartbeats * order.Trainer.HeartbeatSeconds, 3 * job.SecondsPerStep),
            Math.Min(CancelSeconds, order.Trainer.LostAfterSeconds));
        bool beat = job.Sequence != Sequence;
        bool stepped = job.Step != Step || job.Phase != Phase;
        JobWatch next = this with
        {
            StartTimeouts = 0,
            QueuedSeconds = 0,
            Sequence = job.Sequence,
            Step = job.Step,
            Phase = job.Phase,
            SilentSeconds = beat ? 0 : SilentSeconds + Math.Min(gap, lostAfter / 3),
            StuckSeconds = stepped ? 0 : beat ? StuckSeconds + Math.Min(gap, wedgedAfter / 3) : StuckSeconds,
            StoppingSeconds = Told == DesiredState.Cancel ? StoppingSeconds + Math.Min(gap, cancelAfter / 3) : 0,
        };

        if (next.StoppingSeconds >= cancelAfter || (Told == DesiredState.Cancel && next.SilentSeconds >= lostAfter))
            return (next, WatchStep.CancelUnresponsive);
        if (next.SilentSeconds >= lostAfter)
            return next.LostTrainer(order, job, AttemptOutcomes.Lost, $"no heartbeat for {lostAfter:0.#} s");
        if (next.StuckSeconds >= wedgedAfter)
        {
            string reason = $"heartbeats, but no progress for {wedgedAfter:0.#} s (phase '{job.Phase}', step {job.Step})";
            return next.WedgedTrainer(order, job, reason);
        }

        return (next, WatchStep.Wait);
    }

    private (JobWatch Watch, WatchStep Step) LostTrainer(JobOrder order, JobStatus job, string outcome, string reason)
    {
        int lost = job.HeadStep > HeadStepAtLoss ? 1 : Lost + 1;
        return lost > order.Budget.LostTrainers
            ? GiveUp(
                order,
                $"{reason}; {lost} trainers were lost with no checkpoint between (budget.lostTrainers is {order.Budget.LostTrainers})",
                "Look at the trainer's log for what ends it (memory, eviction), checkpoint more often, or raise budget.lostTrainers; "
                + "then start the run again under a new id.")
            : ((this with { Lost = lost, HeadStepAtLoss = job.HeadStep }).NextAttempt(outcome, reason), WatchStep.Requeue);
    }

    private (JobWatch Watch, WatchStep Step) WedgedTrainer(JobOrder order, JobStatus job, string reason)
    {
        int wedged = job.HeadStep > HeadStepAtLoss ? 1 : Wedged + 1;
        return wedged > order.Budget.WedgedTrainers
            ? GiveUp(
                order,
                $"{reason}; {wedged} trainers were wedged with no checkpoint between (budget.wedgedTrainers is {order.Budget.WedgedTrainers})",
                "Look at what the trainer waits for (a mount, a driver, a reward endpoint), or raise trainer.wedgedAfterSeconds if a step may "
                + "take this long; then start the run again under a new id.")
            : ((this with { Wedged = wedged, HeadStepAtLoss = job.HeadStep }).NextAttempt(AttemptOutcomes.Wedged, reason), WatchStep.Requeue);
    }

    private (JobWatch Watch, WatchStep Step) TrainerError(JobOrder order, JobStatus job)
    {
        JobError error = job.Result?.Error
            ?? new JobError(JobErrorKind.Internal, "the attempt failed without a reason", "Look at the trainer's log.");
        int corrupt = CorruptCheckpoints + (job.Result?.CorruptCheckpoints ?? 0);
        return error.Kind switch
        {
            // The next attempt computes the same from the same: it would fail alike.
            JobErrorKind.Input or JobErrorKind.Diverged => Failed(this, string.Empty),
            JobErrorKind.CorruptCheckpoint => Retry(
                this with { CorruptCheckpoints = corrupt + 1 }, corrupt + 1, order.Budget.CorruptCheckpoints,
                "corrupt checkpoints", nameof(BudgetSpec.CorruptCheckpoints)),
            JobErrorKind.OutOfMemory => Retry(
                this with { OutOfMemory = OutOfMemory + 1 }, OutOfMemory + 1, order.Budget.OutOfMemoryRetries,
                "times out of memory", nameof(BudgetSpec.OutOfMemoryRetries), pauses: true),
            JobErrorKind.DiskFull => Retry(
                this with { DiskFull = DiskFull + 1 }, DiskFull + 1, order.Budget.DiskFullRetries,
                "times the disk was full", nameof(BudgetSpec.DiskFullRetries), pauses: true),
            _ => Retry(
                this with { Errors = Errors + 1 }, Errors + 1, order.Budget.ErrorRetries, "errors", nameof(BudgetSpec.ErrorRetries)),
        };

        (JobWatch Watch, WatchStep Step) Retry(JobWatch counted, int count, int budget, string what, string name, bool pauses = false)
        {
            if (count > budget)
                return Failed(counted, $" ({count} {what}; budget.{JsonNamingPolicy.CamelCase.ConvertName(name)} is {budget})");
            JobWatch next = (counted with { CorruptCheckpoints = Math.Max(counted.CorruptCheckpoints, corrupt) }).NextAttempt("failed", error.Message);
            // Time may put it right: another job ends, somebody makes room. So each pause is longer than the one before.
            double pause = pauses ? Math.Min(order.Trainer.LostAfterSeconds * Math.Pow(2, count - 1), LongestPauseSeconds) : 0;
            return (next with { PauseSeconds = pause }, WatchStep.Requeue);
        }

        (JobWatch Watch, WatchStep Step) Failed(JobWatch counted, string budget) =>
            counted.Over(new JobEnd(JobState.Failed, job.Result, $"{error.Message.TrimEnd('.')}{budget}. {error.Remedy}"));
    }

    /// <summary>
    /// The job document is damaged or gone. Whoever holds the job stops when he sees it; the next fence writes a new document, and the work
    /// goes on from the newest checkpoint.
    /// </summary>
    public (JobWatch Watch, WatchStep Step) Damaged(JobOrder order, string why, DesiredState desired = DesiredState.Run)
    {
        if (StopReason is { } reason)
            return Over(new JobEnd(JobState.Failed, null, reason));
        return desired == DesiredState.Cancel
            ? Over(new JobEnd(JobState.Cancelled, null, null))
            : LostDocument(order, AttemptOutcomes.DocumentLost, why);
    }

    private (JobWatch Watch, WatchStep Step) LostDocument(JobOrder order, string outcome, string why)
    {
        JobWatch next = this with { CorruptCheckpoints = CorruptCheckpoints + 1 };
        return next.CorruptCheckpoints <= order.Budget.CorruptCheckpoints
            ? (next.NextAttempt(outcome, why), WatchStep.Requeue)
            : next.Over(new JobEnd(JobState.Failed, null, Text(
                order, Fence,
                $"{why} ({next.CorruptCheckpoints} damages; budget.corruptCheckpoints is {order.Budget.CorruptCheckpoints})",
                "See what writes to the storage account beside this app, or why it loses what it has acknowledged; "
                + "then start the run again under a new id.")));
    }

    /// <summary>
    /// What storage has lost, in words; null when it shows nothing older than it has shown. Only documents count that are changed by
    /// compare-and-swap: a heartbeat may be overtaken by a late one of its own attempt.
    /// </summary>
    private string? RolledBack(JobStatus job)
    {
        const string Lost = "storage has lost writes that it had acknowledged";
        if (!IsQueued)
            return null;
        if (job.Fence < Fence)
            return $"{Lost}: the job is back at attempt {job.Fence}";
        if (job.Fence == Fence && IsClaimed && job.State == JobState.Queued)
            return $"{Lost}: attempt {Fence} has been claimed, and is no longer";
        bool headWentBack = job.HeadFence >= 0 && HeadFence > 0
            && (job.HeadFence < HeadFence || (job.HeadFence == HeadFence && job.HeadStep < HeadStep));
        return headWentBack && job.State is JobState.Queued or JobState.Running
            ? $"{Lost}: the newest checkpoint is of step {job.HeadStep} and was of step {HeadStep}"
            : null;
    }

    private static string? OverBudget(JobOrder order, JobStatus job) =>
        order.MaxTrainerSeconds is { } limit && job.Seconds > limit && job.State is JobState.Queued or JobState.Running
            ? Text(
                order, job.Fence,
                $"the run has used its budget.maxTrainerMinutes (stage '{order.Stage}' alone {job.Seconds / 60:0.#} minutes)",
                "Raise it, or make the run smaller, and start it again under a new id.")
            : null;

    /// <summary>Ends a job that a trainer may still hold or take; the next look finds it cancelled.</summary>
    private (JobWatch Watch, WatchStep Step) GiveUp(JobOrder order, string why, string remedy) =>
        (this with { StopReason = Text(order, Fence, why, remedy), Told = DesiredState.Cancel }, WatchStep.CancelUnresponsive);

    private (JobWatch Watch, WatchStep Step) Over(JobEnd end) => (this with { End = end }, WatchStep.Done);

    private JobWatch NextAttempt(string? outcome, string? reason) => this with
    {
        Fence = Fence + 1,
        IsQueued = false,
        Outcome = outcome,
        Reason = reason,
        Told = DesiredState.Run,
        LookedAt = null,
        Sequence = -1,
        Step = 0,
        Phase = string.Empty,
        IsClaimed = false,
        PauseSeconds = 0,
        QueuedSeconds = 0,
        SilentSeconds = 0,
        StuckSeconds = 0,
        StoppingSeconds = 0,
        End = null,
    };

    private static string Text(JobOrder order, int fence, string why, string remedy) =>
        $"Run '{order.RunId}', stage '{order.Stage}', attempt {fence}: {why}. {remedy}";
}
