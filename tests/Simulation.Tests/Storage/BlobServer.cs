using Rlhf.Storage;

namespace Rlhf.Simulation.Storage;

/// <summary>A blob as the server has it.</summary>
internal sealed record ServerBlob(byte[] Content, long Version)
{
    public string ETag => $"\"{Version}\"";
}

/// <summary>
/// The storage service behind <see cref="SimBlobStore"/>: the conditional semantics of Azure Blob Storage, each request at one instant.
/// </summary>
internal sealed class BlobServer
{
    private readonly SortedDictionary<string, ServerBlob> blobs = new(StringComparer.Ordinal);
    private long versions;

    /// <summary>Called before each change with the path, the blob before and after (null: none).</summary>
    public event Action<string, ServerBlob?, ServerBlob?>? Changing;

    /// <summary>A service that ignores <c>If-Match</c> and <c>If-None-Match</c>: a negative control.</summary>
    public bool IgnoresConditions { get; init; }

    public IEnumerable<string> Paths => blobs.Keys;

    public ServerBlob? Read(string path) => blobs.GetValueOrDefault(path);

    public bool TryCreate(string path, byte[] content)
    {
        if (blobs.ContainsKey(path) && !IgnoresConditions)
            return false;
        Put(path, content);
        return true;
    }

    public bool TryReplace(string path, byte[] content, string etag)
    {
        if (Read(path)?.ETag != etag && !IgnoresConditions)
            return false;
        Put(path, content);
        return true;
    }

    public void Write(string path, byte[] content) => Put(path, content);

    public bool TryAppend(string path, byte[] content, long offset)
    {
        byte[] before = Read(path)?.Content ?? [];
        if (before.Length != offset || (offset > 0 && Read(path) is null))
            return false;
        Put(path, [.. before, .. content]);
        return true;
    }

    public BlobEntry[] List(string prefix) =>
    [
        .. blobs.Where(blob => blob.Key.StartsWith(prefix, StringComparison.Ordinal))
            .Select(blob => new BlobEntry(blob.Key, blob.Value.Content.Length)),
    ];

    public void Delete(string path)
    {
        if (Read(path) is not { } before)
            return;
        Changing?.Invoke(path, before, null);
        blobs.Remove(path);
    }

    /// <summary>Blobs that were damaged and have not been written anew since.</summary>
    public HashSet<string> Damaged { get; } = [];

    /// <summary>The path among those that was written last; null when there is none.</summary>
    public string? Newest(Func<string, bool> among) => blobs.Keys.Where(among).MaxBy(path => blobs[path].Version);

    /// <summary>Damages a blob behind everybody's back; null takes it away.</summary>
    public void Damage(string path, byte[]? content)
    {
        Damaged.Add(path);
        if (content is null)
            blobs.Remove(path);
        else
            blobs[path] = new ServerBlob(content, ++versions);
    }

    private void Put(string path, byte[] content)
    {
        var after = new ServerBlob(content, ++versions);
        Changing?.Invoke(path, Read(path), after);
        blobs[path] = after;
        Damaged.Remove(path);
    }
}
