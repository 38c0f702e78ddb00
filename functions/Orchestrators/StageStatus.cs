using Rlhf.Jobs;

namespace Rlhf.Functions.Orchestrators;

/// <summary>The custom status of a stage's orchestration.</summary>
/// <param name="State"><c>running</c>, <c>paused</c>, or how the job ended.</param>
/// <param name="Activity">What it does, in words.</param>
/// <param name="WaitingFor">What has to happen next, in words; null when the trainer is at work.</param>
/// <param name="Step">Steps done.</param>
/// <param name="Attempts">Attempts so far.</param>
/// <param name="TrainerSeconds">Trainer seconds so far.</param>
public sealed record StageStatus(string State, string Activity, string? WaitingFor, int Step, int Attempts, double TrainerSeconds)
{
    internal static StageStatus Of(JobOrder order, JobWatch watch)
    {
        (string state, string activity, string? waitingFor) = watch switch
        {
            { End.State: JobState.Succeeded or JobState.SliceDone } => (RunStates.Running, "done", null),
            { End: { } end } =>
                (end.State == JobState.Cancelled ? RunStates.Cancelled : RunStates.Failed, end.Error ?? "stopped on request", null),
            { HeldSince: not null } => (RunStates.Paused, "paused", $"POST /api/runs/{order.RunId}/resume"),
            { UnreachableSince: not null } => (RunStates.Running, "storage does not answer", "storage"),
            { IsQueued: false, PauseSeconds: > 0 } =>
                (RunStates.Running, $"pausing after: {watch.Reason}", $"the next attempt, in {watch.PauseSeconds:0.#} s"),
            { Told: DesiredState.Cancel } => (RunStates.Running, "stopping", "the trainer to stop"),
            { Told: DesiredState.Pause } => (RunStates.Running, "pausing", "the trainer to finish its step"),
            { Phase.Length: > 0 } => (RunStates.Running, watch.Phase, (string?)null),
            { Reason: { } reason } =>
                (RunStates.Running, $"attempt {watch.Fence} after: {reason}", $"a trainer for machine '{order.Trainer.Machine}'"),
            _ => (RunStates.Running, "queued", $"a trainer for machine '{order.Trainer.Machine}'"),
        };
        return new StageStatus(state, activity, waitingFor, watch.Step, watch.Attempts, watch.TrainerSeconds);
    }
}
