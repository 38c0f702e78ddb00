namespace Microsoft.DurableTask;

/// <summary>Options of an activity call.</summary>
public record TaskOptions
{
    public TaskOptions(TaskRetryOptions? retry) : this(retry, null) { }

    public TaskOptions(TaskRetryOptions? retry = null, IDictionary<string, string>? tags = null) => (Retry, Tags) = (retry, tags);

    public TaskRetryOptions? Retry { get; init; }
    public IDictionary<string, string>? Tags { get; init; }

    public static TaskOptions FromRetryPolicy(RetryPolicy policy) => new(policy);
    public static TaskOptions FromRetryHandler(AsyncRetryHandler handler) => new(handler);
    public static TaskOptions FromRetryHandler(RetryHandler handler) => new(TaskRetryOptions.FromRetryHandler(handler));

    public SubOrchestrationOptions WithInstanceId(string instanceId) => new(this, instanceId);
}

/// <summary>Options of a sub-orchestration call.</summary>
public record SubOrchestrationOptions : TaskOptions
{
    public SubOrchestrationOptions(TaskRetryOptions? retry = null, string? instanceId = null) : base(retry) => InstanceId = instanceId;

    public SubOrchestrationOptions(TaskOptions options, string? instanceId = null) : base(options)
    {
        InstanceId = instanceId;
        if (options is not SubOrchestrationOptions sub) return;
        InstanceId ??= sub.InstanceId;
        Version = sub.Version;
    }

    /// <summary>The child's id; null lets the engine derive one from the parent's.</summary>
    public string? InstanceId { get; init; }

    /// <summary>The child's version; null means the host's default version at the time the child starts.</summary>
    public TaskVersion? Version { get; init; }
}

/// <summary>Options of a new orchestration.</summary>
public record StartOrchestrationOptions(string? InstanceId = null, DateTimeOffset? StartAt = null)
{
    public IReadOnlyDictionary<string, string> Tags { get; init; } = new Dictionary<string, string>();

    /// <summary>Null means the host's default version.</summary>
    public TaskVersion? Version { get; init; }

    /// <summary>Set by WithDedupeStatuses: a start fails when an instance in one of these states has the id.</summary>
    public IReadOnlyList<string>? DedupeStatuses { get; init; }
}

/// <summary>How an orchestration goes on in a new generation.</summary>
public class ContinueAsNewOptions
{
    public object? NewInput { get; set; }
    public bool PreserveUnprocessedEvents { get; set; } = true;

    /// <summary>The next generation's version; null keeps the present one.</summary>
    public string? NewVersion { get; set; }
}
