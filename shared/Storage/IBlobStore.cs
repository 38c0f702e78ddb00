namespace Rlhf.Storage;

/// <summary>A blob's bytes and the version tag that conditional writes compare.</summary>
public sealed record StoredBlob(BinaryData Content, string ETag);

/// <summary>A listed blob.</summary>
public sealed record BlobEntry(string Path, long Length);

/// <summary>
/// The conditional storage semantics that the job protocol rests on. <see cref="AzureBlobStore"/> is the real one; the protocol's
/// simulation brings a store with the same semantics and injected faults. Every write is atomic: readers see all of it or nothing.
/// </summary>
public interface IBlobStore
{
    /// <summary>The blob, or null when there is none.</summary>
    Task<StoredBlob?> ReadAsync(string path, CancellationToken cancellation);

    /// <summary>A stream over the blob, for data that does not fit in memory.</summary>
    /// <exception cref="FileNotFoundException">There is no such blob.</exception>
    Task<Stream> OpenReadAsync(string path, CancellationToken cancellation);

    /// <summary>Creates the blob; false when one of that name exists (<c>If-None-Match: *</c>).</summary>
    Task<bool> TryCreateAsync(string path, BinaryData content, CancellationToken cancellation);

    /// <summary>Creates the blob from a stream; false when one of that name exists.</summary>
    Task<bool> TryCreateAsync(string path, Stream content, CancellationToken cancellation);

    /// <summary>Replaces the blob if it still has that tag; false when it changed or went (<c>If-Match</c>).</summary>
    Task<bool> TryReplaceAsync(string path, BinaryData content, string etag, CancellationToken cancellation);

    /// <summary>Writes without a condition: only for blobs that one attempt owns, such as its heartbeat.</summary>
    Task WriteAsync(string path, BinaryData content, CancellationToken cancellation);

    /// <summary>Appends at the given offset, creating the blob at offset 0; false when the blob's length differs.</summary>
    Task<bool> TryAppendAsync(string path, BinaryData content, long offset, CancellationToken cancellation);

    /// <summary>All blobs below the prefix, in the order of their names.</summary>
    IAsyncEnumerable<BlobEntry> ListAsync(string prefix, CancellationToken cancellation);

    /// <summary>Deletes the blob if it is there.</summary>
    Task DeleteAsync(string path, CancellationToken cancellation);
}

/// <summary>A received queue message: invisible to others until its visibility time ends.</summary>
/// <param name="Id">The message's id.</param>
/// <param name="Receipt">What deletes exactly this delivery.</param>
/// <param name="Text">The body.</param>
/// <param name="Deliveries">How often it was delivered, this time included.</param>
public sealed record QueueDelivery(string Id, string Receipt, string Text, long Deliveries);

/// <summary>An at-least-once queue.</summary>
public interface IMessageQueue
{
    /// <summary>Sends a message.</summary>
    Task SendAsync(string text, CancellationToken cancellation);

    /// <summary>Receives one message, or null when none is visible.</summary>
    Task<QueueDelivery?> ReceiveAsync(TimeSpan visibility, CancellationToken cancellation);

    /// <summary>Deletes a received message; nothing happens if it went or was delivered again.</summary>
    Task DeleteAsync(QueueDelivery delivery, CancellationToken cancellation);
}
