namespace Microsoft.DurableTask;

/// <returns>whether the task is tried again.</returns>
public delegate bool RetryHandler(RetryContext retryContext);

/// <inheritdoc cref="RetryHandler"/>
public delegate Task<bool> AsyncRetryHandler(RetryContext retryContext);

/// <summary>What a retry handler decides by.</summary>
public record RetryContext(
    TaskOrchestrationContext OrchestrationContext, int LastAttemptNumber, TaskFailureDetails LastFailure,
    TimeSpan TotalRetryTime, CancellationToken CancellationToken);

/// <summary>Either a policy or a handler.</summary>
public sealed class TaskRetryOptions
{
    public TaskRetryOptions(RetryPolicy policy) => Policy = policy;
    public TaskRetryOptions(AsyncRetryHandler handler) => Handler = handler;

    public RetryPolicy? Policy { get; }
    public AsyncRetryHandler? Handler { get; }

    public static implicit operator TaskRetryOptions(RetryPolicy policy) => FromRetryPolicy(policy);
    public static implicit operator TaskRetryOptions(AsyncRetryHandler handler) => FromRetryHandler(handler);
    public static implicit operator TaskRetryOptions(RetryHandler handler) => FromRetryHandler(handler);

    public static TaskRetryOptions FromRetryPolicy(RetryPolicy policy) => new(policy);
    public static TaskRetryOptions FromRetryHandler(AsyncRetryHandler handler) => new(handler);
    public static TaskRetryOptions FromRetryHandler(RetryHandler handler) => new(context => Task.FromResult(handler(context)));
}
