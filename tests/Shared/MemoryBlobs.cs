using System.Runtime.CompilerServices;
using Rlhf.Storage;

namespace Rlhf.Tests;

/// <summary>The process died at a request of the storage.</summary>
public sealed class DiedException() : Exception("the process died");

/// <summary>A blob store in memory with the real one's conditions, at any of whose requests the caller can be made to die.</summary>
public sealed class MemoryBlobs : IBlobStore
{
    private readonly SortedDictionary<string, (BinaryData Content, int Version)> _blobs = new(StringComparer.Ordinal);
    private int _versions;
    private int _requestsLeft = -1;
    private bool _afterItsEffect;

    /// <summary>The paths of all blobs.</summary>
    public IReadOnlyCollection<string> Paths => _blobs.Keys;

    /// <summary>Makes a request to come the caller's last; a negative number takes that back.</summary>
    public void DieAt(int request, bool afterItsEffect) => (_requestsLeft, _afterItsEffect) = (request, afterItsEffect);

    /// <summary>A blob as it stands; null when there is none.</summary>
    public BinaryData? Peek(string path) => _blobs.TryGetValue(path, out (BinaryData Content, int) blob) ? blob.Content : null;

    public Task<StoredBlob?> ReadAsync(string path, CancellationToken cancellation) => Do(
        () => _blobs.TryGetValue(path, out (BinaryData Content, int Version) blob) ? new StoredBlob(blob.Content, $"{blob.Version}") : null);

    public Task<Stream> OpenReadAsync(string path, CancellationToken cancellation) => Do(
        () => (Peek(path) ?? throw new FileNotFoundException($"There is no blob '{path}'.", path)).ToStream());

    public Task<bool> TryCreateAsync(string path, BinaryData content, CancellationToken cancellation) =>
        Do(() => Peek(path) is null && Put(path, content));

    public Task<bool> TryCreateAsync(string path, Stream content, CancellationToken cancellation) =>
        TryCreateAsync(path, BinaryData.FromStream(content), cancellation);

    public Task<bool> TryReplaceAsync(string path, BinaryData content, string etag, CancellationToken cancellation) => Do(
        () => _blobs.TryGetValue(path, out (BinaryData, int Version) blob) && $"{blob.Version}" == etag && Put(path, content));

    public Task WriteAsync(string path, BinaryData content, CancellationToken cancellation) => Do(() => Put(path, content));

    public Task<bool> TryAppendAsync(string path, BinaryData content, long offset, CancellationToken cancellation) => Do(() =>
    {
        byte[] present = Peek(path)?.ToArray() ?? [];
        return present.Length == offset && Put(path, new BinaryData((byte[])[.. present, .. content.ToArray()]));
    });

    public async IAsyncEnumerable<BlobEntry> ListAsync(string prefix, [EnumeratorCancellation] CancellationToken cancellation)
    {
        BlobEntry[] found = await Do(() => _blobs.Where(blob => blob.Key.StartsWith(prefix, StringComparison.Ordinal))
            .Select(blob => new BlobEntry(blob.Key, blob.Value.Content.ToMemory().Length)).ToArray());
        foreach (BlobEntry entry in found)
            yield return entry;
    }

    public Task DeleteAsync(string path, CancellationToken cancellation) => Do(() => _blobs.Remove(path));

    private bool Put(string path, BinaryData content)
    {
        _blobs[path] = (content, ++_versions);
        return true;
    }

    private Task<T> Do<T>(Func<T> effect)
    {
        bool dies = _requestsLeft >= 0 && _requestsLeft-- == 0;
        if (dies && !_afterItsEffect)
            throw new DiedException();
        T result = effect();
        return dies ? throw new DiedException() : Task.FromResult(result);
    }
}
