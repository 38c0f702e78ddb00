using Azure;
using Azure.Storage.Queues;
using Azure.Storage.Queues.Models;

namespace Rlhf.Storage;

/// <summary>An Azure Storage queue (or Azurite's).</summary>
public sealed class AzureMessageQueue(QueueClient queue) : IMessageQueue
{
    /// <inheritdoc/>
    public async Task SendAsync(string text, CancellationToken cancellation)
    {
        try
        {
            await queue.SendMessageAsync(text, cancellation);
        }
        catch (RequestFailedException e) when (e.ErrorCode == QueueErrorCode.QueueNotFound)
        {
            // The first message to a kind of machine: its name comes from the spec, so nobody could create the queue before.
            await queue.CreateIfNotExistsAsync(cancellationToken: cancellation);
            await queue.SendMessageAsync(text, cancellation);
        }
    }

    /// <inheritdoc/>
    public async Task<QueueDelivery?> ReceiveAsync(TimeSpan visibility, CancellationToken cancellation)
    {
        Response<QueueMessage?> response = await queue.ReceiveMessageAsync(visibility, cancellation);
        return response.Value is { } message
            ? new QueueDelivery(message.MessageId, message.PopReceipt, message.Body.ToString(), message.DequeueCount)
            : null;
    }

    /// <inheritdoc/>
    public async Task DeleteAsync(QueueDelivery delivery, CancellationToken cancellation)
    {
        try
        {
            await queue.DeleteMessageAsync(delivery.Id, delivery.Receipt, cancellation);
        }
        catch (RequestFailedException e) when (e.Status is 400 or 404)
        {
            // Delivered again since (the receipt is old) or gone: the fence makes the other delivery harmless.
        }
    }
}
