namespace Microsoft.DurableTask;

/// <summary>How often and when a failed activity or sub-orchestration is tried again.</summary>
public class RetryPolicy
{
    private readonly Func<TaskFailureDetails, bool> _handleFailure = static _ => true;

    /// <param name="maxNumberOfAttempts">attempts in all, the first one included; at least 1</param>
    /// <param name="firstRetryInterval">the pause before the second attempt; positive</param>
    /// <param name="backoffCoefficient">what each further pause is multiplied by; at least 1</param>
    /// <param name="maxRetryInterval">the longest pause; one hour unless told</param>
    /// <param name="retryTimeout">no retry starts later than this after the first attempt; unbounded unless told</param>
    public RetryPolicy(
        int maxNumberOfAttempts, TimeSpan firstRetryInterval, double backoffCoefficient = 1,
        TimeSpan? maxRetryInterval = null, TimeSpan? retryTimeout = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(maxNumberOfAttempts, 1);
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(firstRetryInterval, TimeSpan.Zero);
        ArgumentOutOfRangeException.ThrowIfLessThan(backoffCoefficient, 1);
        MaxNumberOfAttempts = maxNumberOfAttempts;
        FirstRetryInterval = firstRetryInterval;
        BackoffCoefficient = backoffCoefficient;
        MaxRetryInterval = maxRetryInterval ?? TimeSpan.FromHours(1);
        RetryTimeout = retryTimeout ?? Timeout.InfiniteTimeSpan;
    }

    public int MaxNumberOfAttempts { get; }
    public TimeSpan FirstRetryInterval { get; }
    public double BackoffCoefficient { get; }
    public TimeSpan MaxRetryInterval { get; }
    public TimeSpan RetryTimeout { get; }

    /// <summary>Which failures are worth another attempt; all of them unless set.</summary>
    public Func<TaskFailureDetails, bool> HandleFailure { init => _handleFailure = value; }

    internal bool Handles(TaskFailureDetails failure) => _handleFailure(failure);

    /// <summary>min(first interval · coefficient^(attempt − 1), longest interval).</summary>
    internal TimeSpan DelayAfter(int attempt)
    {
        double milliseconds = FirstRetryInterval.TotalMilliseconds * Math.Pow(BackoffCoefficient, attempt - 1);
        return TimeSpan.FromMilliseconds(Math.Min(milliseconds, MaxRetryInterval.TotalMilliseconds));
    }
}
