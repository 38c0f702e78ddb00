namespace Microsoft.DurableTask.Client;

/// <summary>Which instances a client asks for.</summary>
public record OrchestrationQuery(
    DateTimeOffset? CreatedFrom = null, DateTimeOffset? CreatedTo = null, IEnumerable<OrchestrationRuntimeStatus>? Statuses = null,
    IEnumerable<string>? TaskHubNames = null, string? InstanceIdPrefix = null, int PageSize = OrchestrationQuery.DefaultPageSize,
    bool FetchInputsAndOutputs = false, string? ContinuationToken = null)
{
    public const int DefaultPageSize = 100;
}

/// <param name="Output">becomes the terminated instance's output</param>
/// <param name="Recursive">does nothing: neither here nor on the genuine host with Azure Storage</param>
public record TerminateInstanceOptions(object? Output = null, bool Recursive = false);

/// <param name="Recursive">also purges the instance's sub-orchestrations that are over</param>
public record PurgeInstanceOptions(bool Recursive = false);

public record PurgeInstancesFilter(
    DateTimeOffset? CreatedFrom = null, DateTimeOffset? CreatedTo = null, IEnumerable<OrchestrationRuntimeStatus>? Statuses = null);

public class PurgeResult
{
    public PurgeResult(int count) : this(count, null) { }

    public PurgeResult(int count, bool? isComplete) => (PurgedInstanceCount, IsComplete) = (count, isComplete);

    public int PurgedInstanceCount { get; }
    public bool? IsComplete { get; }
}

public static class StartOrchestrationOptionsExtensions
{
    /// <summary>Makes a start fail when an instance in one of these states has the id already; a live one always makes it fail.</summary>
    public static StartOrchestrationOptions WithDedupeStatuses(
        this StartOrchestrationOptions options, params OrchestrationRuntimeStatus[] dedupeStatuses) =>
        options with { DedupeStatuses = [.. dedupeStatuses.Select(status => status.ToString())] };
}
