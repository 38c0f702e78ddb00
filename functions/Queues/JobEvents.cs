using System.Text.Json;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Logging;
using Rlhf.Functions.Http;
using Rlhf.Functions.Orchestrators;
using Rlhf.Jobs;
using Rlhf.Storage;

namespace Rlhf.Functions.Queues;

/// <summary>
/// Hands the trainer's hints to the stage that waits. A hint that comes late, twice or never does no harm: the stage looks for itself.
/// </summary>
public sealed class JobEvents(ILogger<JobEvents> logger)
{
    /// <summary>Wakes the stage's orchestration.</summary>
    [Function(nameof(OnJobEvent))]
    public async Task OnJobEvent(
        [QueueTrigger(StorageAccount.EventsQueue, Connection = "AzureWebJobsStorage")] string message,
        [DurableClient] DurableTaskClient client, CancellationToken cancellation)
    {
        JobEvent hint;
        try
        {
            hint = JsonSerializer.Deserialize<JobEvent>(message, RlhfJson.Compact)!;
        }
        catch (JsonException e)
        {
            logger.LogWarning("A message in queue {Queue} is no job event and is dropped: {Reason}", StorageAccount.EventsQueue, e.Message);
            return;
        }

        await client.TryRaiseAsync($"{hint.RunId}:{hint.Stage}", JobDriver.ChangedEvent, $"{hint.State} {hint.Fence}", cancellation);
    }
}
