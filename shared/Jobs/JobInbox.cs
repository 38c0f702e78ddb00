using System.Text.Json;
using Rlhf.Storage;

namespace Rlhf.Jobs;

/// <summary>The trainer's end of the job queue: claims work, drops what is stale, sets poison aside.</summary>
public sealed class JobInbox(IBlobStore blobs, IMessageQueue jobs, IMessageQueue poison)
{
    private const int MaxDeliveries = 5;
    private static readonly TimeSpan ClaimTime = TimeSpan.FromMinutes(2);

    /// <summary>
    /// Takes one message. Returns the claimed attempt, or null when the queue was empty or the message asked for nothing.
    /// A message that cannot be read, or failed five times, goes to the poison queue with its reason.
    /// </summary>
    /// <param name="cancellation">Cancels the wait for a message. Once there is one it is seen through: half a claim would leave a
    /// running job that nobody works on.</param>
    public async Task<JobAttempt?> TryTakeAsync(CancellationToken cancellation)
    {
        if (await jobs.ReceiveAsync(ClaimTime, cancellation) is not { } delivery)
            return null;

        JobMessage? message = Parse(delivery.Text, out string? fault);
        if (message is null || delivery.Deliveries > MaxDeliveries)
        {
            fault ??= $"it was delivered {delivery.Deliveries} times without a claim";
            string reason = JsonSerializer.Serialize(new { reason = fault, message = delivery.Text }, RlhfJson.Compact);
            await poison.SendAsync(reason, CancellationToken.None);
            await jobs.DeleteAsync(delivery, CancellationToken.None);
            return null;
        }

        JobAttempt? attempt = await JobAttempt.TryClaimAsync(blobs, message, Guid.CreateVersion7().ToString("N"), CancellationToken.None);
        await jobs.DeleteAsync(delivery, CancellationToken.None);
        return attempt;
    }

    private static JobMessage? Parse(string text, out string? fault)
    {
        fault = null;
        try
        {
            JobMessage? message = JsonSerializer.Deserialize<JobMessage>(text, RlhfJson.Compact);
            if (message is { V: 1, RunId.Length: > 0, Stage.Length: > 0, Fence: > 0 })
                return message;
            fault = message?.V is { } v and not 1 ? $"it has version {v}, this trainer reads 1" : "a field is missing";
        }
        catch (JsonException e)
        {
            fault = $"it is no job message: {e.Message}";
        }

        return null;
    }
}
