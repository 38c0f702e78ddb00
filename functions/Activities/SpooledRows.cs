using System.Security.Cryptography;
using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Rows;
using Rlhf.Storage;

namespace Rlhf.Functions.Activities;

/// <summary>
/// Rows on their way to a blob of JSON lines: written to a temporary file, so that a large data set need not fit in memory, and a
/// half-written one is never seen.
/// </summary>
internal sealed class SpooledRows : IDisposable
{
    private readonly FileStream file = new(
        Path.Combine(Path.GetTempPath(), Path.GetRandomFileName()),
        FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, 64 * 1024, FileOptions.DeleteOnClose);

    /// <summary>Rows written.</summary>
    public int Count { get; private set; }

    public void Add(Row row)
    {
        file.Write(JsonSerializer.SerializeToUtf8Bytes(row, RlhfJson.Compact));
        file.WriteByte((byte)'\n');
        Count++;
    }

    /// <summary>Creates the blob. If an earlier execution has created it, its bytes must be the same.</summary>
    /// <exception cref="CorruptBlobException">A blob of that name holds something else.</exception>
    public async Task<DatasetRef> StoreAsync(IBlobStore blobs, string path, CancellationToken cancellation)
    {
        file.Position = 0;
        string sha256 = Sha256();
        file.Position = 0;
        if (!await blobs.TryCreateAsync(path, file, cancellation))
        {
            await using Stream stored = await blobs.OpenReadAsync(path, cancellation);
            if (Convert.ToHexStringLower(await SHA256.HashDataAsync(stored, cancellation)) != sha256)
            {
                throw new CorruptBlobException(
                    path, "an earlier execution of the same activity wrote other bytes: the input has changed while the run was on");
            }
        }

        return new DatasetRef(path, sha256, Count);
    }

    public void Dispose() => file.Dispose();

    /// <summary>Of a local file, so on the spot: the runtime would only lend another thread for it.</summary>
    private string Sha256() => Convert.ToHexStringLower(SHA256.HashData(file));
}
