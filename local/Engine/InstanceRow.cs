using Microsoft.DurableTask.Client;

namespace Rlhf.Local.Engine;

/// <summary>An instance as the hub keeps it.</summary>
internal sealed record InstanceRow(
    string Id, long Generation, string Name, string Version, OrchestrationRuntimeStatus Status, string? Input, string? Output,
    string? CustomStatus, string? Stuck, string? Tags, DateTimeOffset CreatedAt, DateTimeOffset UpdatedAt)
{
    public bool IsOver => Status.IsOver();

    /// <summary>A parked instance shows as suspended: it goes on when it is resumed.</summary>
    public OrchestrationRuntimeStatus VisibleStatus => Stuck is null ? Status : OrchestrationRuntimeStatus.Suspended;
}

/// <summary>What a turn starts from. The commit adds the turn's events to its past.</summary>
/// <param name="Instance">Whose turn it is.</param>
/// <param name="Past">The generation's history.</param>
/// <param name="Inbox">What has come and is due.</param>
/// <param name="Now">The clock's time by which that was due; the turn must not have an earlier one.</param>
internal sealed record PendingTurn(
    InstanceRow Instance, List<HistoryEvent> Past, IReadOnlyList<(long Id, HistoryEvent Event)> Inbox, DateTime Now)
{
    /// <summary>Events in its past when it was loaded: the commit's proof that no other turn came between, for each adds some.</summary>
    public int Length { get; } = Past.Count;
}

/// <summary>An activity to run.</summary>
internal sealed record PendingActivity(long Generation, int TaskId, string InstanceId, string Name, string? Input);

/// <summary>Who has something to do after a commit.</summary>
internal sealed class Wakeups
{
    public HashSet<string> Instances { get; } = [];
    public List<PendingActivity> Activities { get; } = [];
    public DateTime? NextTimer { get; set; }
}

internal static class RuntimeStatus
{
    public static bool IsOver(this OrchestrationRuntimeStatus status) =>
        status is OrchestrationRuntimeStatus.Completed or OrchestrationRuntimeStatus.Failed or OrchestrationRuntimeStatus.Terminated;
}
