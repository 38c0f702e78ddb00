using System.Collections.Concurrent;
using Rlhf.Jobs;
using Rlhf.Storage;

namespace Rlhf.Simulation.Storage;

/// <summary>A view of the storage that changes what is read; the base of the trainers of the negative controls.</summary>
internal abstract class AlteredReads(IBlobStore inner) : IBlobStore
{
    protected IBlobStore Inner => inner;

    public async Task<StoredBlob?> ReadAsync(string path, CancellationToken cancellation) =>
        await inner.ReadAsync(path, cancellation) is { } blob ? await AlterAsync(path, blob, cancellation) : null;

    public Task<Stream> OpenReadAsync(string path, CancellationToken cancellation) => inner.OpenReadAsync(path, cancellation);

    public Task<bool> TryCreateAsync(string path, BinaryData content, CancellationToken cancellation) =>
        inner.TryCreateAsync(path, content, cancellation);

    public Task<bool> TryCreateAsync(string path, Stream content, CancellationToken cancellation) =>
        inner.TryCreateAsync(path, content, cancellation);

    public virtual Task<bool> TryReplaceAsync(string path, BinaryData content, string etag, CancellationToken cancellation) =>
        inner.TryReplaceAsync(path, content, etag, cancellation);

    public Task WriteAsync(string path, BinaryData content, CancellationToken cancellation) =>
        inner.WriteAsync(path, content, cancellation);

    public Task<bool> TryAppendAsync(string path, BinaryData content, long offset, CancellationToken cancellation) =>
        inner.TryAppendAsync(path, content, offset, cancellation);

    public IAsyncEnumerable<BlobEntry> ListAsync(string prefix, CancellationToken cancellation) => inner.ListAsync(prefix, cancellation);

    public Task DeleteAsync(string path, CancellationToken cancellation) => inner.DeleteAsync(path, cancellation);

    protected abstract Task<StoredBlob> AlterAsync(string path, StoredBlob blob, CancellationToken cancellation);

    protected static bool IsJob(string path) => path.EndsWith("/job.json", StringComparison.Ordinal);

    protected static bool IsHead(string path) => path.EndsWith("/head.json", StringComparison.Ordinal);

    protected static T Parse<T>(StoredBlob blob) => CasDocument.Parse<T>("", blob.Content);

    protected static StoredBlob With<T>(StoredBlob blob, T document) => blob with { Content = CasDocument.Serialize(document) };
}

/// <summary>A trainer that does not look at fences: to it, the job that it has claimed stays its own, and no head is sealed.</summary>
internal sealed class WithoutFence(IBlobStore inner) : AlteredReads(inner)
{
    private readonly ConcurrentDictionary<string, JobDocument> claimed = new();
    private readonly ConcurrentDictionary<string, int> seals = new();

    public override async Task<bool> TryReplaceAsync(string path, BinaryData content, string etag, CancellationToken cancellation)
    {
        if (IsHead(path)) // it does not heed the seal, but it does not break it either
            content = CasDocument.Serialize(CasDocument.Parse<Head>(path, content) with { SealedBy = seals.GetValueOrDefault(path) });
        if (!await base.TryReplaceAsync(path, content, etag, cancellation))
            return false;
        if (IsJob(path))
        {
            JobDocument job = CasDocument.Parse<JobDocument>(path, content);
            if (job.State == JobState.Running)
                claimed[path] = job;
            else
                claimed.TryRemove(path, out _);
        }

        return true;
    }

    protected override Task<StoredBlob> AlterAsync(string path, StoredBlob blob, CancellationToken cancellation)
    {
        if (IsJob(path) && claimed.TryGetValue(path, out JobDocument? mine) && Parse<JobDocument>(blob).Fence > mine.Fence)
            blob = With(blob, mine);
        if (IsHead(path))
        {
            Head head = Parse<Head>(blob);
            seals[path] = head.SealedBy;
            blob = With(blob, head with { SealedBy = 0, Fence = 0 });
        }

        return Task.FromResult(blob);
    }
}

/// <summary>A trainer that does not drop duplicate messages: a job that another attempt has claimed looks unclaimed to it.</summary>
internal sealed class WithoutDeduplication(IBlobStore inner) : AlteredReads(inner)
{
    private readonly ConcurrentDictionary<string, bool> mine = new();

    public override async Task<bool> TryReplaceAsync(string path, BinaryData content, string etag, CancellationToken cancellation)
    {
        bool done = await base.TryReplaceAsync(path, content, etag, cancellation);
        if (done && IsJob(path) && CasDocument.Parse<JobDocument>(path, content).AttemptId is { } attempt)
            mine[attempt] = true;
        return done;
    }

    protected override Task<StoredBlob> AlterAsync(string path, StoredBlob blob, CancellationToken cancellation)
    {
        bool isAnothers = IsJob(path) && Parse<JobDocument>(blob) is { State: JobState.Running, AttemptId: { } attempt }
            && !mine.ContainsKey(attempt);
        return Task.FromResult(isAnothers
            ? With(blob, Parse<JobDocument>(blob) with { State = JobState.Queued, AttemptId = null })
            : blob);
    }
}

/// <summary>
/// A trainer that does not verify checkpoints: manifests and heads always name the sums of what is there, so that every comparison holds.
/// </summary>
internal sealed class WithoutChecksum(IBlobStore inner) : AlteredReads(inner)
{
    protected override async Task<StoredBlob> AlterAsync(string path, StoredBlob blob, CancellationToken cancellation)
    {
        if (path.EndsWith("/manifest.json", StringComparison.Ordinal))
            return With(blob, await AlterAsync(path, Parse<CheckpointManifest>(blob), cancellation));
        if (IsHead(path) && Parse<Head>(blob) is { Manifest: { } manifest } head)
            return With(blob, head with { ManifestSha256 = await SumAsync(manifest, cancellation) });
        return blob;
    }

    private async Task<CheckpointManifest> AlterAsync(string path, CheckpointManifest manifest, CancellationToken cancellation)
    {
        var parts = new List<ContentFile>();
        foreach (ContentFile part in manifest.Parts)
        {
            string blob = path[..(path.LastIndexOf('/') + 1)] + part.Name;
            string sum = await Inner.ReadAsync(blob, cancellation) is { } content ? CasDocument.Sha256(content.Content) : part.Sha256;
            parts.Add(part with { Sha256 = sum });
        }

        return manifest with
        {
            Parts = parts,
            ParentSha256 = manifest.Parent is null ? null : await SumAsync(manifest.Parent, cancellation),
        };
    }

    private async Task<string?> SumAsync(string manifest, CancellationToken cancellation) =>
        await ReadAsync(manifest, cancellation) is { } blob ? CasDocument.Sha256(blob.Content) : null;
}
