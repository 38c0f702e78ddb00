using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.DurableTask;

namespace Rlhf.Local.Engine;

/// <summary>What happened to one generation of an instance, in order. The history is the only state an orchestration has.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "$")]
[JsonDerivedType(typeof(TurnStarted), "turn")]
[JsonDerivedType(typeof(ExecutionStarted), "started")]
[JsonDerivedType(typeof(ExecutionTerminated), "terminated")]
[JsonDerivedType(typeof(ExecutionSuspended), "suspended")]
[JsonDerivedType(typeof(ExecutionResumed), "resumed")]
[JsonDerivedType(typeof(ExecutionCompleted), "completed")]
[JsonDerivedType(typeof(EventRaised), "event")]
[JsonDerivedType(typeof(TaskScheduled), "task")]
[JsonDerivedType(typeof(TimerCreated), "timer")]
[JsonDerivedType(typeof(SubOrchestrationCreated), "sub")]
[JsonDerivedType(typeof(EventSent), "send")]
[JsonDerivedType(typeof(TaskCompleted), "taskDone")]
[JsonDerivedType(typeof(TaskFailed), "taskFailed")]
[JsonDerivedType(typeof(TimerFired), "fired")]
internal abstract record HistoryEvent
{
    private static readonly JsonSerializerOptions Json = new() { DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull };

    public string ToJson() => JsonSerializer.Serialize(this, Json);

    public static HistoryEvent FromJson(string json) => JsonSerializer.Deserialize<HistoryEvent>(json, Json)!;
}

/// <summary>A turn began; its time is the orchestrator's clock until the next one.</summary>
internal sealed record TurnStarted(DateTime Now) : HistoryEvent;

internal sealed record ExecutionStarted(string Name, string Version, string? Input, ParentTask? Parent) : HistoryEvent;
internal sealed record ExecutionTerminated(string? Output) : HistoryEvent;
internal sealed record ExecutionSuspended(string? Reason) : HistoryEvent;
internal sealed record ExecutionResumed(string? Reason) : HistoryEvent;
internal sealed record ExecutionCompleted(string Status, string? Output, TaskFailureDetails? Failure) : HistoryEvent;
internal sealed record EventRaised(string Name, string? Input) : HistoryEvent;

/// <summary>What the orchestrator's code asked for. On replay the code must ask for the same again, under the same id.</summary>
internal abstract record ScheduledAction(int Id) : HistoryEvent;

internal sealed record TaskScheduled(int Id, string Name, string? Input) : ScheduledAction(Id);
internal sealed record TimerCreated(int Id, DateTime FireAt) : ScheduledAction(Id);
internal sealed record EventSent(int Id, string InstanceId, string Name, string? Input) : ScheduledAction(Id);

/// <param name="Id">the action's number</param>
/// <param name="Name">the orchestrator</param>
/// <param name="InstanceId">the child's id</param>
/// <param name="Version">null: the host's default version when the child starts; left out, so that a new default still replays</param>
/// <param name="Input">JSON</param>
internal sealed record SubOrchestrationCreated(int Id, string Name, string InstanceId, string? Version, string? Input)
    : ScheduledAction(Id);

/// <summary>The answer to an action; tasks and sub-orchestrations share the first two.</summary>
internal abstract record ActionOutcome(int Id) : HistoryEvent;

internal sealed record TaskCompleted(int Id, string? Output) : ActionOutcome(Id);
internal sealed record TaskFailed(int Id, TaskFailureDetails Failure) : ActionOutcome(Id);
internal sealed record TimerFired(int Id) : ActionOutcome(Id);

/// <summary>The action of a parent that a sub-orchestration answers.</summary>
internal sealed record ParentTask(string Name, string InstanceId, long Generation, int TaskId);
