using System.Text.Json;
using Rlhf.Storage;

namespace Rlhf.Jobs;

/// <summary>The trainer's end of the job queue: claims work, drops what is stale, sets poison aside.</summary>
public sealed class JobInbox(IBlobStore blobs, IMessageQueue jobs, IMessageQueue poison)
{
    private const int MaxDeliveries = 5, LongestName = 64, LongestKept = 7000;
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
            string reason = JsonSerializer.Serialize(new { reason = Short(fault), message = Short(delivery.Text) }, RlhfJson.Compact);
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
            fault = message switch
            {
                { V: not 1 and var v } => $"it has version {v}, this trainer reads 1",
                { RunId.Length: > 0, Stage.Length: > 0, Fence: > 0 } => IsPlain(message.RunId) && IsPlain(message.Stage)
                    ? null
                    : $"one of its names is no run id or stage (lower-case letters, digits and hyphens, {LongestName} at most)",
                _ => "a field is missing",
            };
            return fault is null ? message : null;
        }
        catch (JsonException e)
        {
            fault = $"it is no job message: {e.Message}";
        }

        return null;
    }

    /// <summary>The record must fit into a message too, however much of the text JSON has to escape.</summary>
    private static string Short(string text) => text.Length <= LongestKept ? text : $"{text[..LongestKept]} ... ({text.Length} characters)";

    /// <summary>Names become part of a path: storage answers others with an error, or with another blob.</summary>
    private static bool IsPlain(string name) =>
        name.Length <= LongestName && name.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-');
}
