using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Azure;
using Azure.Identity;
using Rlhf.Storage;

namespace Rlhf.Trainer.Work;

/// <summary>
/// Waits for storage that is away: an outage must never end hours of training. Only faults that pass by themselves are waited for;
/// a missing permission or a bad request is reported at once.
/// </summary>
public sealed class Patience(WorkerLog log, TimeProvider? clock = null)
{
    private static readonly TimeSpan FirstPause = TimeSpan.FromSeconds(0.5);
    private static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(5);

    private readonly TimeProvider _clock = clock ?? TimeProvider.System;

    /// <summary>Repeats the operation until storage answers or the token is cancelled.</summary>
    public async Task<T> RetryAsync<T>(string what, Func<CancellationToken, Task<T>> operation, CancellationToken cancellation)
    {
        for (TimeSpan pause = FirstPause; ; pause = pause * 2 > LongestPause ? LongestPause : pause * 2)
        {
            try
            {
                return await operation(cancellation);
            }
            catch (Exception e) when (IsPassing(e))
            {
                cancellation.ThrowIfCancellationRequested(); // told to stop while storage was away: that is no fault of storage
                log.Line($"storage does not answer ({what}: {FirstLine(e)}); next try in {pause.TotalSeconds:0.#} s");
                await Task.Delay(pause, _clock, cancellation);
            }
        }
    }

    /// <summary>Repeats the operation until storage answers or the token is cancelled.</summary>
    public Task RetryAsync(string what, Func<CancellationToken, Task> operation, CancellationToken cancellation) =>
        RetryAsync(
            what,
            async token =>
            {
                await operation(token);
                return true;
            },
            cancellation);

    /// <summary>True for faults of network and service; false where another try would fail alike.</summary>
    internal static bool IsPassing(Exception e) => e switch
    {
        RequestFailedException { Status: 0 or 408 or 429 or >= 500 } => true,
        RequestFailedException => false,
        CredentialUnavailableException => false,
        AuthenticationFailedException => true,
        AggregateException many => many.InnerExceptions.All(IsPassing),
        HttpRequestException or SocketException => true,
        OperationCanceledException => true, // a network time limit; the caller's own cancellation is told apart by its token
        IOException { InnerException: SocketException or HttpRequestException } => true,
        HttpIOException => true,
        _ => false,
    };

    private static string FirstLine(Exception e) =>
        (e is AggregateException { InnerException: { } inner } ? inner : e).Message.Split('\n')[0].Trim();
}

/// <summary>A blob store that is waited for.</summary>
public sealed class PatientBlobStore(IBlobStore inner, Patience patience) : IBlobStore
{
    public Task<StoredBlob?> ReadAsync(string path, CancellationToken cancellation) =>
        patience.RetryAsync(path, token => inner.ReadAsync(path, token), cancellation);

    public Task<Stream> OpenReadAsync(string path, CancellationToken cancellation) =>
        patience.RetryAsync(path, token => inner.OpenReadAsync(path, token), cancellation);

    public Task<bool> TryCreateAsync(string path, BinaryData content, CancellationToken cancellation) =>
        patience.RetryAsync(path, token => inner.TryCreateAsync(path, content, token), cancellation);

    /// <inheritdoc/>
    /// <remarks>The stream must be seekable: a second try starts where the first one did.</remarks>
    public Task<bool> TryCreateAsync(string path, Stream content, CancellationToken cancellation)
    {
        long start = content.Position;
        return patience.RetryAsync(
            path,
            token =>
            {
                content.Position = start;
                return inner.TryCreateAsync(path, content, token);
            },
            cancellation);
    }

    public Task<bool> TryReplaceAsync(string path, BinaryData content, string etag, CancellationToken cancellation) =>
        patience.RetryAsync(path, token => inner.TryReplaceAsync(path, content, etag, token), cancellation);

    public Task WriteAsync(string path, BinaryData content, CancellationToken cancellation) =>
        patience.RetryAsync(path, token => inner.WriteAsync(path, content, token), cancellation);

    public Task<bool> TryAppendAsync(string path, BinaryData content, long offset, CancellationToken cancellation) =>
        patience.RetryAsync(path, token => inner.TryAppendAsync(path, content, offset, token), cancellation);

    /// <inheritdoc/>
    /// <remarks>The whole list is read before its first entry is given: one that breaks off is read again from the start.</remarks>
    public async IAsyncEnumerable<BlobEntry> ListAsync(string prefix, [EnumeratorCancellation] CancellationToken cancellation)
    {
        List<BlobEntry> entries = await patience.RetryAsync(prefix, token => ReadListAsync(prefix, token), cancellation);
        foreach (BlobEntry entry in entries)
            yield return entry;
    }

    public Task DeleteAsync(string path, CancellationToken cancellation) =>
        patience.RetryAsync(path, token => inner.DeleteAsync(path, token), cancellation);

    private async Task<List<BlobEntry>> ReadListAsync(string prefix, CancellationToken cancellation)
    {
        var entries = new List<BlobEntry>();
        await foreach (BlobEntry entry in inner.ListAsync(prefix, cancellation))
            entries.Add(entry);
        return entries;
    }
}

/// <summary>A queue that is waited for.</summary>
public sealed class PatientMessageQueue(string name, IMessageQueue inner, Patience patience) : IMessageQueue
{
    public Task SendAsync(string text, CancellationToken cancellation) =>
        patience.RetryAsync(name, token => inner.SendAsync(text, token), cancellation);

    public Task<QueueDelivery?> ReceiveAsync(TimeSpan visibility, CancellationToken cancellation) =>
        patience.RetryAsync(name, token => inner.ReceiveAsync(visibility, token), cancellation);

    public Task DeleteAsync(QueueDelivery delivery, CancellationToken cancellation) =>
        patience.RetryAsync(name, token => inner.DeleteAsync(delivery, token), cancellation);
}
