using System.Runtime.CompilerServices;
using Azure;
using Azure.Storage.Blobs;
using Azure.Storage.Blobs.Models;
using Azure.Storage.Blobs.Specialized;

namespace Rlhf.Storage;

/// <summary>One container of an Azure Storage account (or of Azurite).</summary>
public sealed class AzureBlobStore(BlobContainerClient container) : IBlobStore
{
    /// <inheritdoc/>
    public async Task<StoredBlob?> ReadAsync(string path, CancellationToken cancellation)
    {
        try
        {
            Response<BlobDownloadResult> download = await container.GetBlobClient(path).DownloadContentAsync(cancellation);
            return new StoredBlob(download.Value.Content, download.Value.Details.ETag.ToString());
        }
        catch (RequestFailedException e) when (e.Status == 404)
        {
            return null;
        }
    }

    /// <inheritdoc/>
    public async Task<Stream> OpenReadAsync(string path, CancellationToken cancellation)
    {
        try
        {
            return await container.GetBlobClient(path).OpenReadAsync(new BlobOpenReadOptions(allowModifications: false), cancellation);
        }
        catch (RequestFailedException e) when (e.Status == 404)
        {
            throw new FileNotFoundException($"There is no blob '{path}' in container '{container.Name}'.", path, e);
        }
    }

    /// <inheritdoc/>
    public async Task<bool> TryCreateAsync(string path, BinaryData content, CancellationToken cancellation)
    {
        using Stream stream = content.ToStream();
        return await TryUploadAsync(path, stream, new BlobRequestConditions { IfNoneMatch = ETag.All }, cancellation);
    }

    /// <inheritdoc/>
    public Task<bool> TryCreateAsync(string path, Stream content, CancellationToken cancellation) =>
        TryUploadAsync(path, content, new BlobRequestConditions { IfNoneMatch = ETag.All }, cancellation);

    /// <inheritdoc/>
    public async Task<bool> TryReplaceAsync(string path, BinaryData content, string etag, CancellationToken cancellation)
    {
        using Stream stream = content.ToStream();
        return await TryUploadAsync(path, stream, new BlobRequestConditions { IfMatch = new ETag(etag) }, cancellation);
    }

    /// <inheritdoc/>
    public Task WriteAsync(string path, BinaryData content, CancellationToken cancellation) =>
        container.GetBlobClient(path).UploadAsync(content, overwrite: true, cancellation);

    /// <inheritdoc/>
    public async Task<bool> TryAppendAsync(string path, BinaryData content, long offset, CancellationToken cancellation)
    {
        AppendBlobClient blob = container.GetAppendBlobClient(path);
        try
        {
            if (offset == 0)
                await blob.CreateIfNotExistsAsync(cancellationToken: cancellation);
            using Stream stream = content.ToStream();
            await blob.AppendBlockAsync(
                stream,
                new AppendBlobAppendBlockOptions { Conditions = new AppendBlobRequestConditions { IfAppendPositionEqual = offset } },
                cancellation);
            return true;
        }
        catch (RequestFailedException e) when (e.Status is 404 or 412)
        {
            return false;
        }
    }

    /// <inheritdoc/>
    public async IAsyncEnumerable<BlobEntry> ListAsync(string prefix, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await foreach (BlobItem item in container.GetBlobsAsync(new GetBlobsOptions { Prefix = prefix }, cancellation))
            yield return new BlobEntry(item.Name, item.Properties.ContentLength ?? 0);
    }

    /// <inheritdoc/>
    public Task DeleteAsync(string path, CancellationToken cancellation) =>
        container.GetBlobClient(path).DeleteIfExistsAsync(cancellationToken: cancellation);

    private async Task<bool> TryUploadAsync(string path, Stream content, BlobRequestConditions conditions, CancellationToken cancellation)
    {
        try
        {
            await container.GetBlobClient(path).UploadAsync(content, new BlobUploadOptions { Conditions = conditions }, cancellation);
            return true;
        }
        catch (RequestFailedException e) when (e.Status is 404 or 409 or 412)
        {
            // 409 BlobAlreadyExists for If-None-Match, 412 for If-Match; 404 only when the container itself is missing.
            if (e.ErrorCode == BlobErrorCode.ContainerNotFound)
                throw;
            return false;
        }
    }
}
