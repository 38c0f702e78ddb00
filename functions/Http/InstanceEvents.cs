using Microsoft.DurableTask.Client;

namespace Rlhf.Functions.Http;

/// <summary>Raising events at instances that may end at any moment.</summary>
internal static class InstanceEvents
{
    /// <summary>
    /// Raises the event if the instance is there and goes on. An instance that ends between the look and the event makes the platform
    /// throw, with an exception type of its transport: so it is looked at again instead.
    /// </summary>
    /// <returns>False when nobody was there to hear it.</returns>
    public static async Task<bool> TryRaiseAsync(
        this DurableTaskClient client, string instanceId, string eventName, object payload, CancellationToken cancellation)
    {
        if (!await client.IsOpenAsync(instanceId, cancellation))
            return false;
        try
        {
            await client.RaiseEventAsync(instanceId, eventName, payload, cancellation);
            return true;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            if (await client.IsOpenAsync(instanceId, cancellation))
                throw;
            return false;
        }
    }

    /// <summary>True for an instance that is there and not over.</summary>
    public static async Task<bool> IsOpenAsync(this DurableTaskClient client, string instanceId, CancellationToken cancellation) =>
        await client.GetInstanceAsync(instanceId, cancellation) is { IsCompleted: false };
}
