using System.Buffers;
using System.Security.Cryptography;
using Rlhf.Jobs;
using Rlhf.Storage;

namespace Rlhf.Trainer.Work;

/// <summary>
/// Local copies of blobs, by content: what is in the cache has been verified against its SHA-256, and a model that several jobs use
/// travels once.
/// </summary>
public sealed class ContentCache(IBlobStore blobs, Patience patience, string directory)
{
    /// <summary>A local file with the content; it must not be changed.</summary>
    /// <exception cref="CorruptBlobException">The blob is missing or has other bytes.</exception>
    public async Task<string> FileAsync(string blob, string sha256, CancellationToken cancellation)
    {
        if (!PlainNames.IsSha256(sha256))
            throw new CorruptBlobException(blob, $"it is named with '{sha256}', which is no SHA-256");
        string path = Path.Combine(directory, "files", sha256);
        if (File.Exists(path) && Sha256Of(path) == sha256)
            return path;
        await DownloadAsync(blob, path, sha256, cancellation);
        return path;
    }

    /// <summary>A local Hugging Face folder; it must not be changed.</summary>
    /// <exception cref="CorruptBlobException">The manifest or a file is missing or has other bytes.</exception>
    public async Task<string> FolderAsync(ModelRef model, CancellationToken cancellation)
    {
        string sum = model.Manifest[(model.Manifest.LastIndexOf('/') + 1)..];
        string manifestFile = await FileAsync(model.Manifest, sum, cancellation);
        FolderManifest manifest = CasDocument.Parse<FolderManifest>(model.Manifest, Read(manifestFile));
        if (manifest.Files.FirstOrDefault(file => file.Name == ModelExport.WeightsFile) is { } weights && weights.Sha256 != model.Sha256)
            throw new CorruptBlobException(model.Manifest, $"its {ModelExport.WeightsFile} is not the one that the job names");

        string folder = Path.Combine(directory, "folders", sum);
        foreach (ContentFile file in manifest.Files)
        {
            string path = Path.Combine(folder, CheckedName(model.Manifest, file.Name));
            if (!File.Exists(path) || Sha256Of(path) != file.Sha256)
                await DownloadAsync(BlobLayout.Content(file.Sha256), path, file.Sha256, cancellation);
        }

        return folder;
    }

    /// <summary>Copies a blob to a local file that appears under its name only when its sum is right.</summary>
    /// <exception cref="CorruptBlobException">The blob is missing or has other bytes.</exception>
    public async Task DownloadAsync(string blob, string path, string sha256, CancellationToken cancellation)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        string temporary = $"{path}.{Guid.NewGuid():N}.tmp";
        try
        {
            string found = await patience.RetryAsync(blob, token => CopyAsync(blob, temporary, token), cancellation);
            if (found != sha256)
                throw new CorruptBlobException(blob, $"its SHA-256 is {found}, expected {sha256}");
            File.Move(temporary, path, overwrite: true);
        }
        catch (FileNotFoundException)
        {
            throw new CorruptBlobException(blob, "it is missing");
        }
        finally
        {
            File.Delete(temporary);
        }
    }

    /// <summary>Gives back the disk that the copies take: each can be fetched again.</summary>
    public void Clear()
    {
        foreach (string part in (string[])["files", "folders"])
        {
            if (Directory.Exists(Path.Combine(directory, part)))
                Directory.Delete(Path.Combine(directory, part), recursive: true);
        }
    }

    /// <summary>Lower-case hexadecimal SHA-256 of a file.</summary>
    public static string Sha256Of(string path)
    {
        using FileStream stream = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    private async Task<string> CopyAsync(string blob, string path, CancellationToken cancellation)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        await using Stream source = await blobs.OpenReadAsync(blob, cancellation);
        using FileStream target = File.Create(path);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(1 << 20); // too large to be made anew for each of many small files
        try
        {
            for (int read; (read = await source.ReadAsync(buffer, cancellation)) > 0;)
                Append(buffer.AsSpan(0, read));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());

        // Local files are read and written on the spot, everywhere in this room: the runtime would only lend another thread for it.
        void Append(ReadOnlySpan<byte> some)
        {
            hash.AppendData(some);
            target.Write(some);
        }
    }

    private static BinaryData Read(string file) => BinaryData.FromBytes(File.ReadAllBytes(file));

    /// <summary>A manifest must not reach outside its folder.</summary>
    public static string CheckedName(string manifest, string name) =>
        PlainNames.IsFileName(name)
            ? name
            : throw new CorruptBlobException(manifest, $"it names the file '{name}'");
}
