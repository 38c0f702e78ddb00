using System.Text;
using Azure;
using Azure.Storage.Queues;
using Azure.Storage.Queues.Models;

namespace Rlhf.Storage;

/// <summary>
/// An Azure Storage queue (or Azurite's). Texts travel as Base64, which the Functions host's queue trigger expects by default. They are
/// encoded here, since the SDK's own encoding makes the receiver throw on a message that somebody else sent without it.
/// </summary>
/// <param name="queue">The queue, with messages as they are (no encoding).</param>
public sealed class AzureMessageQueue(QueueClient queue) : IMessageQueue
{
    private static readonly UTF8Encoding StrictUtf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <inheritdoc/>
    public async Task SendAsync(string text, CancellationToken cancellation)
    {
        string encoded = Convert.ToBase64String(Encoding.UTF8.GetBytes(text));
        try
        {
            await queue.SendMessageAsync(encoded, cancellation);
        }
        catch (RequestFailedException e) when (e.ErrorCode == QueueErrorCode.QueueNotFound)
        {
            // The first message to a kind of machine: its name comes from the spec, so nobody could create the queue before.
            await queue.CreateIfNotExistsAsync(cancellationToken: cancellation);
            await queue.SendMessageAsync(encoded, cancellation);
        }
    }

    /// <inheritdoc/>
    public async Task<QueueDelivery?> ReceiveAsync(TimeSpan visibility, CancellationToken cancellation)
    {
        Response<QueueMessage?> response = await queue.ReceiveMessageAsync(visibility, cancellation);
        return response.Value is { } message
            ? new QueueDelivery(message.MessageId, message.PopReceipt, Decode(message.Body.ToString()), message.DequeueCount)
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

    /// <summary>The text; a message that is no encoded text is given as it is, for its reader to judge.</summary>
    private static string Decode(string body)
    {
        try
        {
            return StrictUtf8.GetString(Convert.FromBase64String(body));
        }
        catch (Exception e) when (e is FormatException or DecoderFallbackException)
        {
            return body;
        }
    }
}
