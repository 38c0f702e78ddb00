using System.Net.Sockets;
using Azure;
using Microsoft.DurableTask;

namespace Rlhf.Functions.Orchestrators;

/// <summary>
/// Which failures of activities are tried again: those of storage and network, for about a day. Nothing else gets better by waiting.
/// </summary>
internal static class Retries
{
    public static readonly TaskOptions Storage = TaskOptions.FromRetryPolicy(
        new RetryPolicy(300, TimeSpan.FromSeconds(1), backoffCoefficient: 2, maxRetryInterval: TimeSpan.FromMinutes(5))
        {
            HandleFailure = IsStorageTrouble,
        });

    public static bool IsStorageTrouble(TaskFailureDetails failure) =>
        failure.IsCausedBy<RequestFailedException>() || failure.IsCausedBy<AggregateException>()
        || failure.IsCausedBy<HttpRequestException>() || failure.IsCausedBy<SocketException>()
        || failure.IsCausedBy<TimeoutException>() || failure.IsCausedBy<OperationCanceledException>()
        || (failure.IsCausedBy<IOException>() && !failure.IsCausedBy<FileNotFoundException>());

    /// <summary>The text of the failure that began it: those above it only say which task passed it on.</summary>
    public static string Reason(TaskFailedException failed)
    {
        TaskFailureDetails failure = failed.FailureDetails;
        while (failure.IsCausedBy<TaskFailedException>() && failure.InnerFailure is { } inner)
            failure = inner;
        return failure.ErrorMessage;
    }
}
