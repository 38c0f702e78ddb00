using Rlhf.Jobs;
using Rlhf.Storage;

namespace Rlhf.Trainer.Work;

/// <summary>Puts finished folders and files into content-addressed storage. The same content twice is stored once.</summary>
public static class ModelExport
{
    /// <summary>The file whose sum identifies a model.</summary>
    public const string WeightsFile = "model.safetensors";

    /// <summary>Stores a Hugging Face or PEFT folder.</summary>
    /// <param name="blobs">The storage.</param>
    /// <param name="folder">The folder.</param>
    /// <param name="weightsFile">The file in it whose sum identifies it.</param>
    /// <param name="cancellation">Ends it early.</param>
    public static async Task<ModelRef> PublishFolderAsync(
        IBlobStore blobs, string folder, string weightsFile, CancellationToken cancellation)
    {
        var files = new List<ContentFile>();
        foreach (string path in Directory.GetFiles(folder).Order(StringComparer.Ordinal))
            files.Add(await PublishFileAsync(blobs, path, cancellation));
        string weights = files.SingleOrDefault(file => file.Name == weightsFile)?.Sha256
            ?? throw new InvalidOperationException($"The exported folder has no {weightsFile}.");

        BinaryData manifest = CasDocument.Serialize(new FolderManifest(files));
        string blob = BlobLayout.Content(CasDocument.Sha256(manifest));
        await blobs.TryCreateAsync(blob, manifest, cancellation);
        return new ModelRef(blob, weights);
    }

    /// <summary>Stores one file under its content.</summary>
    public static async Task<ContentFile> PublishFileAsync(IBlobStore blobs, string path, CancellationToken cancellation)
    {
        string sum = ContentCache.Sha256Of(path);
        await using FileStream stream = File.OpenRead(path);
        await blobs.TryCreateAsync(BlobLayout.Content(sum), stream, cancellation);
        return new ContentFile(Path.GetFileName(path), sum, stream.Length);
    }
}
