using System.Runtime.CompilerServices;
using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Work;

/// <summary>
/// The checkpoints of one attempt. Writing: parts, then the manifest with their sums, last the head. Resuming: from the head to the
/// manifest to its parts, every one verified before anything is loaded; a corrupt checkpoint is passed over for its parent.
/// </summary>
internal sealed class Checkpoints(IBlobStore blobs, ContentCache cache, JobAttempt attempt, WorkerLog log, string scratchDirectory)
{
    /// <summary>Checkpoints of a stage that are kept: the newest, and what to fall back to.</summary>
    private const int Kept = 3;

    // Newest first: this attempt's own and the chain that it resumed from.
    private readonly LinkedList<(string Path, string Sha256, CheckpointManifest Manifest)> _chain = [];

    /// <summary>Checkpoints that failed verification.</summary>
    public int Corrupt { get; private set; }

    /// <summary>Step of the newest checkpoint; 0 before the first.</summary>
    public int Step => _chain.First?.Value.Manifest.Step ?? 0;

    /// <summary>Writes what <paramref name="save"/> gives and makes it the stage's newest checkpoint.</summary>
    /// <exception cref="FencedException">Another attempt has taken over.</exception>
    /// <remarks>What is saved is written before the call returns, on the calling thread; then it is uploaded.</remarks>
    public async Task PublishAsync(int step, Action<ICheckpointWriter> save, CancellationToken cancellation)
    {
        string directory = Path.Combine(scratchDirectory, $"save-{step}");
        Directory.CreateDirectory(directory);
        try
        {
            var writer = new CheckpointWriter(directory);
            save(writer);
            await UploadAsync(step, directory, writer.Files, cancellation);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    /// <summary>The newest intact checkpoint, verified as a whole and copied to this machine; null if there is none.</summary>
    public async Task<CheckpointReader?> ResumeAsync(CancellationToken cancellation)
    {
        var tried = new HashSet<string>(StringComparer.Ordinal);
        await foreach ((string path, string? sum) in CandidatesAsync(cancellation))
        {
            if (!tried.Add(path))
                continue;
            try
            {
                return await OpenAsync(path, sum, cancellation);
            }
            catch (CorruptBlobException e)
            {
                Corrupt++;
                log.Line($"{attempt.RunId}/{attempt.Stage}#{attempt.Fence} passes over a corrupt checkpoint: {e.Message}");
            }
        }

        return null;
    }

    /// <summary>
    /// Takes over from an earlier attempt of this process, if its newest checkpoint is still the stage's newest: then what that attempt
    /// holds in memory is what the checkpoint holds, and nothing need be loaded.
    /// </summary>
    public async Task<bool> TryGoOnFromAsync(Checkpoints before, CancellationToken cancellation)
    {
        try
        {
            Head? head = await attempt.ReadHeadAsync(cancellation);
            if (before._chain.First?.Value is not { } newest || head?.Manifest != newest.Path || head.ManifestSha256 != newest.Sha256)
                return false;
        }
        catch (CorruptBlobException)
        {
            return false; // resuming will deal with it
        }

        foreach ((string Path, string Sha256, CheckpointManifest Manifest) link in before._chain)
            _chain.AddLast(link);
        return true;
    }

    private async Task UploadAsync(int step, string directory, IReadOnlyList<string> files, CancellationToken cancellation)
    {
        var parts = new List<ContentFile>();
        foreach (string name in files)
        {
            string file = Path.Combine(directory, name);
            await using FileStream stream = File.OpenRead(file);
            parts.Add(new ContentFile(name, ContentCache.Sha256Of(file), stream.Length));
            await blobs.TryCreateAsync(BlobLayout.Checkpoint(attempt.Path, step) + name, stream, cancellation);
        }

        var manifest = new CheckpointManifest
        {
            RunId = attempt.RunId,
            Stage = attempt.Stage,
            Fence = attempt.Fence,
            Step = step,
            Parts = parts,
            Parent = _chain.First?.Value.Path,
            ParentSha256 = _chain.First?.Value.Sha256,
        };
        await attempt.PublishCheckpointAsync(manifest, cancellation);
        _chain.AddFirst((BlobLayout.CheckpointManifest(attempt.Path, step), CasDocument.Sha256(CasDocument.Serialize(manifest)), manifest));
        await DropOldAsync(cancellation);
    }

    /// <summary>Deletes all but the newest few of the chain. Only an attempt that has just moved the head gets here.</summary>
    private async Task DropOldAsync(CancellationToken cancellation)
    {
        while (_chain.Count > Kept)
        {
            (string path, _, CheckpointManifest manifest) = _chain.Last!.Value;
            _chain.RemoveLast();
            await blobs.DeleteAsync(path, cancellation);
            foreach (ContentFile part in manifest.Parts)
                await blobs.DeleteAsync(PartPath(path, part.Name), cancellation);
        }
    }

    /// <summary>
    /// Manifests in the order to try them: the head, its parents, and, where that chain is broken by a corrupt manifest, whatever other
    /// checkpoint the stage has, newest first. The last have no sum from outside; their own parts have.
    /// </summary>
    private async IAsyncEnumerable<(string Path, string? Sha256)> CandidatesAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        Head? head = null;
        bool broken = false;
        try
        {
            head = await attempt.ReadHeadAsync(cancellation);
            broken = head is { IsLost: true };
        }
        catch (CorruptBlobException e)
        {
            broken = true;
            log.Line($"{attempt.RunId}/{attempt.Stage}#{attempt.Fence}: {e.Message}");
        }

        string? path = head?.Manifest, sum = head?.ManifestSha256;
        while (path is not null)
        {
            yield return (path, sum);
            CheckpointManifest? manifest = await TryReadManifestAsync(path, sum, cancellation);
            broken |= manifest is null;
            (path, sum) = (manifest?.Parent, manifest?.ParentSha256);
        }

        if (!broken)
            yield break;
        var others = new List<string>();
        await foreach (BlobEntry entry in blobs.ListAsync(BlobLayout.Attempts(attempt.RunId, attempt.Stage), cancellation))
        {
            if (entry.Path.EndsWith("/manifest.json", StringComparison.Ordinal))
                others.Add(entry.Path);
        }

        // Paths begin with the zero-padded fence and end with the zero-padded step, so their order is that of the checkpoints.
        foreach (string other in others.OrderDescending(StringComparer.Ordinal))
            yield return (other, null);
    }

    private async Task<CheckpointManifest?> TryReadManifestAsync(string path, string? sum, CancellationToken cancellation)
    {
        try
        {
            return await ReadManifestAsync(path, sum, cancellation);
        }
        catch (CorruptBlobException)
        {
            return null;
        }
    }

    private async Task<CheckpointManifest> ReadManifestAsync(string path, string? sum, CancellationToken cancellation)
    {
        StoredBlob blob = await blobs.ReadAsync(path, cancellation) ?? throw new CorruptBlobException(path, "it is missing");
        if (sum is not null && CasDocument.Sha256(blob.Content) != sum)
            throw new CorruptBlobException(path, "its SHA-256 is not the one that the head or its child names");
        CheckpointManifest manifest = CasDocument.Parse<CheckpointManifest>(path, blob.Content);
        return manifest.RunId == attempt.RunId && manifest.Stage == attempt.Stage
            && path.EndsWith($"/ckpt/{manifest.Step:D9}/manifest.json", StringComparison.Ordinal)
                ? manifest
                : throw new CorruptBlobException(path, "it belongs to another run, stage or step");
    }

    private async Task<CheckpointReader> OpenAsync(string path, string? sum, CancellationToken cancellation)
    {
        CheckpointManifest manifest = await ReadManifestAsync(path, sum, cancellation);
        string directory = Path.Combine(scratchDirectory, $"resume-{manifest.Fence}-{manifest.Step}");
        foreach (ContentFile part in manifest.Parts)
            await cache.DownloadAsync(PartPath(path, part.Name), Path.Combine(directory, ContentCache.CheckedName(path, part.Name)), part.Sha256, cancellation);

        _chain.Clear();
        for (CheckpointManifest? link = manifest; link is not null && _chain.Count <= Kept;)
        {
            _chain.AddLast((path, sum ?? CasDocument.Sha256(CasDocument.Serialize(link)), link));
            (path, sum) = (link.Parent ?? "", link.ParentSha256);
            link = link.Parent is null ? null : await TryReadManifestAsync(path, sum, cancellation);
        }

        return new CheckpointReader(directory, manifest);
    }

    private static string PartPath(string manifestPath, string part) => manifestPath[..(manifestPath.LastIndexOf('/') + 1)] + part;
}

/// <summary>Writes the parts of one checkpoint into a local folder.</summary>
internal sealed class CheckpointWriter(string directory) : ICheckpointWriter
{
    private readonly List<string> _files = [];

    /// <summary>The parts' file names, in the order of writing.</summary>
    public IReadOnlyList<string> Files => _files;

    public void WriteTensors(string part, IEnumerable<(string Name, Tensor Value)> tensors) =>
        Safetensors.Write(NewFile(part, ".safetensors"), tensors);

    public void WriteState<T>(string part, T state)
        where T : class =>
        File.WriteAllBytes(NewFile(part, ".json"), JsonSerializer.SerializeToUtf8Bytes(state, RlhfJson.Compact));

    private string NewFile(string part, string extension)
    {
        string name = part + extension;
        if (_files.Contains(name) || name == "manifest.json" || name != Path.GetFileName(name))
            throw new ArgumentException($"'{part}' cannot name a checkpoint part: it is taken, reserved or a path.", nameof(part));
        _files.Add(name);
        return Path.Combine(directory, name);
    }
}

/// <summary>Reads the parts of one verified checkpoint from its local copy.</summary>
internal sealed class CheckpointReader(string directory, CheckpointManifest manifest) : ICheckpointReader
{
    /// <summary>The step after which the checkpoint was taken.</summary>
    public int Step => manifest.Step;

    /// <summary>The fence of the attempt that wrote it.</summary>
    public int Fence => manifest.Fence;

    public IReadOnlyDictionary<string, Tensor> ReadTensors(string part)
    {
        using SafetensorsFile file = Safetensors.Open(Find(part, ".safetensors"));
        return file.Names.ToDictionary(name => name, file.Read, StringComparer.Ordinal);
    }

    public T ReadState<T>(string part)
        where T : class
    {
        try
        {
            return JsonSerializer.Deserialize<T>(File.ReadAllBytes(Find(part, ".json")), RlhfJson.Compact)
                ?? throw new CheckpointMismatchException(part, "it holds null");
        }
        catch (JsonException e)
        {
            throw new CheckpointMismatchException(part, $"it is no {typeof(T).Name}: {e.Message}", e);
        }
    }

    private string Find(string part, string extension) =>
        manifest.Parts.Any(file => file.Name == part + extension)
            ? Path.Combine(directory, part + extension)
            : throw new CheckpointMismatchException(
                part, $"the checkpoint of step {manifest.Step} has only {string.Join(", ", manifest.Parts.Select(file => file.Name))}");
}
