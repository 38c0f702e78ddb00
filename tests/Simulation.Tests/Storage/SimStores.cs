using System.Runtime.CompilerServices;
using Rlhf.Storage;

namespace Rlhf.Simulation.Storage;

/// <summary>The container as one process reaches it.</summary>
internal sealed class SimBlobStore(StorageClient client) : IBlobStore
{
    private BlobServer Server => client.Service.Blobs;

    public Task<StoredBlob?> ReadAsync(string path, CancellationToken cancellation) => client.SendAsync(
        $"read {path}",
        () => Server.Read(path) is { } blob ? new StoredBlob(BinaryData.FromBytes(blob.Content), blob.ETag) : null,
        cancellation);

    public Task<Stream> OpenReadAsync(string path, CancellationToken cancellation) => client.SendAsync<Stream>(
        $"open {path}",
        () => Server.Read(path) is { } blob
            ? new MemoryStream(blob.Content, writable: false)
            : throw new FileNotFoundException($"There is no blob '{path}'.", path),
        cancellation);

    public Task<bool> TryCreateAsync(string path, BinaryData content, CancellationToken cancellation) =>
        client.SendAsync($"create {path}", () => Server.TryCreate(path, content.ToArray()), cancellation);

    public Task<bool> TryCreateAsync(string path, Stream content, CancellationToken cancellation) =>
        TryCreateAsync(path, BinaryData.FromStream(content), cancellation);

    public Task<bool> TryReplaceAsync(string path, BinaryData content, string etag, CancellationToken cancellation) =>
        client.SendAsync($"replace {path}", () => Server.TryReplace(path, content.ToArray(), etag), cancellation);

    public Task WriteAsync(string path, BinaryData content, CancellationToken cancellation) => client.SendAsync(
        $"write {path}",
        () =>
        {
            Server.Write(path, content.ToArray());
            return true;
        },
        cancellation);

    public Task<bool> TryAppendAsync(string path, BinaryData content, long offset, CancellationToken cancellation) =>
        client.SendAsync($"append {path}", () => Server.TryAppend(path, content.ToArray(), offset), cancellation);

    public async IAsyncEnumerable<BlobEntry> ListAsync(string prefix, [EnumeratorCancellation] CancellationToken cancellation)
    {
        foreach (BlobEntry entry in await client.SendAsync($"list {prefix}", () => Server.List(prefix), cancellation))
            yield return entry;
    }

    public Task DeleteAsync(string path, CancellationToken cancellation) => client.SendAsync(
        $"delete {path}",
        () =>
        {
            Server.Delete(path);
            return true;
        },
        cancellation);
}

/// <summary>A queue as one process reaches it.</summary>
internal sealed class SimMessageQueue(StorageClient client, string name) : IMessageQueue
{
    private QueueServer Server => client.Service.Queue(name);

    public Task SendAsync(string text, CancellationToken cancellation) => client.SendAsync(
        $"send {name}",
        () =>
        {
            Server.Send(text);
            return true;
        },
        cancellation);

    public Task<QueueDelivery?> ReceiveAsync(TimeSpan visibility, CancellationToken cancellation) =>
        client.SendAsync($"receive {name}", () => Server.Receive(visibility), cancellation);

    public Task DeleteAsync(QueueDelivery delivery, CancellationToken cancellation) => client.SendAsync(
        $"delete message {name}",
        () =>
        {
            Server.Delete(delivery);
            return true;
        },
        cancellation);
}
