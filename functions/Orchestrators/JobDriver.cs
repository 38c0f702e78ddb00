using Microsoft.DurableTask;
using Rlhf.Functions.Activities;
using Rlhf.Jobs;

namespace Rlhf.Functions.Orchestrators;

/// <summary>
/// Sees a job through from inside an orchestrator: sends it, looks at it, does what <see cref="JobWatch"/> decides. Polling with durable
/// timers is the truth; the event <see cref="ChangedEvent"/> only shortens the wait, so losing one costs seconds and a double one nothing.
/// </summary>
internal static class JobDriver
{
    /// <summary>The hint that something about the stage's job, or what people want of the run, has changed.</summary>
    public const string ChangedEvent = "changed";

    /// <summary>What the hint says where people have asked for something; a trainer's names the attempt.</summary>
    public const string PeoplesHint = "control";

    /// <summary>Looks in one generation of an orchestrator: replay is quadratic in its history, which ContinueAsNew empties.</summary>
    private const int LooksPerGeneration = 60;

    /// <summary>Seconds between looks when nothing can happen without an event.</summary>
    private const double IdleSeconds = 10;

    /// <summary>Drives the job for one generation at most.</summary>
    /// <returns>The watch to go on with; its <see cref="JobWatch.End"/> is set when the job is over.</returns>
    public static async Task<JobWatch> DriveAsync(TaskOrchestrationContext context, JobOrder order, JobWatch watch)
    {
        for (int looks = 0; looks < LooksPerGeneration; looks++)
        {
            if (!watch.IsQueued)
            {
                if (watch.PauseSeconds > 0)
                {
                    context.SetCustomStatus(StageStatus.Of(order, watch));
                    // The hint of the end that the pause follows may come now, where the last look was faster than it.
                    await WaitAsync(context, watch.PauseSeconds, forPeople: true);
                }

                JobSent sent = await context.CallActivityAsync<JobSent>(
                    nameof(JobActivities.EnqueueJob), new JobEnqueue(order, watch.Fence, watch.Outcome, watch.Reason), Retries.Storage);
                watch = sent.Damage is { } damage ? watch.Damaged(order, damage).Watch : Sent(watch, sent, context.CurrentUtcDateTime);
                if (watch.End is not null)
                    return watch;
            }

            bool idle = watch.HeldSince is not null || watch.UnreachableSince is not null;
            context.SetCustomStatus(StageStatus.Of(order, watch));
            await WaitAsync(context, idle ? Math.Max(IdleSeconds, order.Trainer.PollSeconds) : order.Trainer.PollSeconds);
            if (!watch.IsQueued)
                continue;

            (watch, WatchStep step) = await LookAsync(context, order, watch);
            switch (step)
            {
                case WatchStep.Tell:
                    await context.CallActivityAsync(
                        nameof(JobActivities.TellJob), new JobRequest(order.RunId, order.Stage, watch.Told), Retries.Storage);
                    break;
                case WatchStep.CancelUnresponsive:
                    await context.CallActivityAsync(
                        nameof(JobActivities.CancelUnresponsiveJob), new JobRequest(order.RunId, order.Stage, DesiredState.Cancel),
                        Retries.Storage);
                    break;
                case WatchStep.Done:
                    context.SetCustomStatus(StageStatus.Of(order, watch));
                    return watch;
            }
        }

        return watch;
    }

    /// <summary>Waits for a hint, at most so long.</summary>
    /// <param name="context">The orchestrator's.</param>
    /// <param name="seconds">The longest wait.</param>
    /// <param name="forPeople">Whether a trainer's hint is passed over.</param>
    private static async Task WaitAsync(TaskOrchestrationContext context, double seconds, bool forPeople = false)
    {
        using var raceOver = new CancellationTokenSource();
        Task<string> hint = context.WaitForExternalEvent<string>(ChangedEvent, raceOver.Token);
        Task due = context.CreateTimer(TimeSpan.FromSeconds(seconds), raceOver.Token);
        while (await Task.WhenAny(hint, due) == hint && forPeople && await hint != PeoplesHint)
            hint = context.WaitForExternalEvent<string>(ChangedEvent, raceOver.Token);
#pragma warning disable CA1849 // CancelAsync would run the callbacks on the thread pool, where an orchestrator may not be.
        raceOver.Cancel();
#pragma warning restore CA1849
    }

    private static JobWatch Sent(JobWatch watch, JobSent sent, DateTime now)
    {
        if (sent.Held == DesiredState.Pause)
            return watch with { HeldSince = watch.HeldSince ?? now };

        JobWatch released = watch.HeldSince is { } since
            ? watch with { HeldSince = null, PausedSeconds = watch.PausedSeconds + (now - since).TotalSeconds }
            : watch;
        return sent.Held == DesiredState.Cancel
            ? released with { End = new JobEnd(JobState.Cancelled, null, null) }
            : released with { Fence = sent.Fence, IsQueued = true };
    }

    private static async Task<(JobWatch Watch, WatchStep Step)> LookAsync(TaskOrchestrationContext context, JobOrder order, JobWatch watch)
    {
        try
        {
            JobLook look = await context.CallActivityAsync<JobLook>(
                nameof(JobActivities.InspectJob), new JobRequest(order.RunId, order.Stage, watch.Told));
            return watch.Observe(order, look, context.CurrentUtcDateTime);
        }
        catch (TaskFailedException e) when (Retries.IsStorageTrouble(e.FailureDetails))
        {
            return watch.Unreachable(order, context.CurrentUtcDateTime, e.FailureDetails.ErrorMessage);
        }
    }
}
