using Microsoft.DurableTask;
using Rlhf.Functions.Activities;

namespace Rlhf.Functions.Orchestrators;

/// <summary>
/// The custom status of <see cref="RlhfRun"/>: what is known of the run without looking at its jobs. A few kilobytes at most.
/// </summary>
public sealed record RunStatus
{
    /// <summary>The model's name.</summary>
    public required string Name { get; init; }

    /// <summary>One of <see cref="RunStates"/>.</summary>
    public required string State { get; init; }

    /// <summary>The present or last stage.</summary>
    public string? Stage { get; init; }

    /// <summary>What the run does, in words.</summary>
    public string? Activity { get; init; }

    /// <summary>What has to happen next, where it is not the run's own work.</summary>
    public string? WaitingFor { get; init; }

    public string? Error { get; init; }

    public IReadOnlyList<StageRecord> Stages { get; init; } = [];

    /// <summary>Trainer seconds of the stages that have ended.</summary>
    public double TrainerSeconds { get; init; }
}

/// <summary>One stage in <see cref="RunStatus"/>.</summary>
/// <param name="Name">The stage.</param>
/// <param name="State">One of <see cref="StageStates"/>.</param>
/// <param name="Attempts">Attempts of a stage that has ended.</param>
/// <param name="StartedUtc">When it began, on the orchestrator's clock.</param>
/// <param name="Seconds">From its start to its end; 0 while it runs.</param>
public sealed record StageRecord(string Name, string State, int Attempts, DateTime? StartedUtc, double Seconds);

/// <summary>Keeps the run's account while <see cref="RlhfRun"/> goes on, and shows it as the custom status.</summary>
internal sealed class RunAccount
{
    private readonly TaskOrchestrationContext context;
    private readonly DateTime startedUtc;
    private readonly List<StageClose> closed = [];
    private RunStatus status;

    public RunAccount(TaskOrchestrationContext context, RunDocument run)
    {
        this.context = context;
        startedUtc = context.CurrentUtcDateTime;
        status = new RunStatus
        {
            Name = run.Spec.Name,
            State = RunStates.Running,
            Stages = [.. Rlhf.Stages.All(run.Spec).Select(stage => new StageRecord(stage, StageStates.Pending, 0, null, 0))],
        };
    }

    /// <summary>Trainer seconds of all stages that have ended.</summary>
    public double TrainerSeconds => status.TrainerSeconds;

    /// <summary>The present or last stage; null before the first.</summary>
    public string? Stage => status.Stage;

    /// <summary>Seconds in which the run waited for people.</summary>
    public double WaitingSeconds { get; set; }

    public double TotalSeconds => (context.CurrentUtcDateTime - startedUtc).TotalSeconds;

    /// <summary>The ended stages, for the report.</summary>
    public IReadOnlyList<StageClose> Closed => closed;

    public void Begin(string stage, string activity)
    {
        Change(stage, record => record with { State = StageStates.Running, StartedUtc = context.CurrentUtcDateTime });
        Show(status with { Stage = stage, Activity = activity });
    }

    public void End(string stage, StageOutcome outcome)
    {
        Change(stage, record => record with
        {
            State = outcome.State,
            Attempts = outcome.Attempts,
            Seconds = record.StartedUtc is { } started ? (context.CurrentUtcDateTime - started).TotalSeconds : 0,
        });
        closed.Add(new StageClose(stage, outcome.State, status.Stages.Single(record => record.Name == stage).Seconds, outcome.Metrics));
        WaitingSeconds += outcome.PausedSeconds;
        Show(status with { TrainerSeconds = status.TrainerSeconds + outcome.TrainerSeconds });
    }

    public void Wait(string activity, string waitingFor) =>
        Show(status with { State = RunStates.WaitingForApproval, Activity = activity, WaitingFor = waitingFor });

    public void Resume(string activity) => Show(status with { State = RunStates.Running, Activity = activity, WaitingFor = null });

    public void Finish(RunOutcome outcome) =>
        Show(status with { State = outcome.State, Activity = null, WaitingFor = null, Error = outcome.Error });

    private void Change(string stage, Func<StageRecord, StageRecord> change) =>
        status = status with { Stages = [.. status.Stages.Select(record => record.Name == stage ? change(record) : record)] };

    private void Show(RunStatus next)
    {
        status = next;
        context.SetCustomStatus(next);
    }
}
