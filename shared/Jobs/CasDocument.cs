using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Rlhf.Storage;

namespace Rlhf.Jobs;

/// <summary>
/// Marks a document that is stored with the SHA-256 of its own bytes, so that no change made behind the protocol's back (a flipped bit, a
/// lost tail, an edit by hand) is ever taken for its content. For documents that no other document names by their sum.
/// </summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class SealedDocumentAttribute : Attribute;

/// <summary>JSON documents changed by compare-and-swap.</summary>
/// <remarks>
/// A sealed document is its JSON object with one last member, <c>"seal"</c>: the SHA-256 of the object without it. It remains JSON that
/// anything can read.
/// </remarks>
public static class CasDocument
{
    private const int SumLength = 64;
    private static readonly byte[] SealPrefix = ",\"seal\":\""u8.ToArray();
    private static readonly byte[] SealSuffix = "\"}"u8.ToArray();
    private static readonly JsonSerializerOptions Finite = new(RlhfJson.Compact) { Converters = { new FiniteNumbers() } };

    /// <summary>Reads a document; null when there is none.</summary>
    /// <exception cref="CorruptBlobException">The blob is no such document.</exception>
    public static async Task<T?> ReadJsonAsync<T>(this IBlobStore blobs, string path, CancellationToken cancellation)
        where T : class
    {
        StoredBlob? blob = await blobs.ReadAsync(path, cancellation);
        return blob is null ? null : Parse<T>(path, blob.Content);
    }

    /// <summary>Reads a document that can be done without; null when there is none, or it is damaged.</summary>
    public static async Task<T?> ReadIntactJsonAsync<T>(this IBlobStore blobs, string path, CancellationToken cancellation)
        where T : class
    {
        try
        {
            return await blobs.ReadJsonAsync<T>(path, cancellation);
        }
        catch (CorruptBlobException)
        {
            return null;
        }
    }

    /// <summary>Reads a document that is stored under its own SHA-256.</summary>
    /// <exception cref="CorruptBlobException">It is missing, or other than its name says.</exception>
    public static async Task<T> ReadContentJsonAsync<T>(this IBlobStore blobs, string sha256, CancellationToken cancellation)
        where T : class
    {
        string path = BlobLayout.Content(sha256);
        StoredBlob blob = await blobs.ReadAsync(path, cancellation) ?? throw new CorruptBlobException(path, "it is missing");
        return Sha256(blob.Content) == sha256
            ? Parse<T>(path, blob.Content)
            : throw new CorruptBlobException(path, "its content does not have its name's SHA-256");
    }

    /// <summary>
    /// Applies a change until it holds: reads, asks <paramref name="change"/> for the next state, writes if nobody came between,
    /// and starts again if somebody did. The change must be a pure function that recognises a state it has already brought about,
    /// since a write whose reply was lost is seen again as somebody else's.
    /// </summary>
    /// <param name="blobs">The store.</param>
    /// <param name="path">The document's blob.</param>
    /// <param name="change">From the present state (null: no document) to the next; returns its argument to leave it as it is.</param>
    /// <param name="cancellation">Cancels between tries.</param>
    /// <param name="rebuild">The next state where the present one is damaged beyond reading; without it such a document is an error.</param>
    /// <returns>The state after the change.</returns>
    /// <exception cref="CorruptBlobException">The document is damaged, and <paramref name="rebuild"/> is not given.</exception>
    public static async Task<T?> UpdateJsonAsync<T>(
        this IBlobStore blobs, string path, Func<T?, T?> change, CancellationToken cancellation, Func<T>? rebuild = null)
        where T : class
    {
        while (true)
        {
            StoredBlob? blob = await blobs.ReadAsync(path, cancellation);
            T? present = null, next;
            try
            {
                present = blob is null ? null : Parse<T>(path, blob.Content);
                next = change(present);
            }
            catch (CorruptBlobException) when (rebuild is not null)
            {
                next = rebuild();
            }

            if (next is null || ReferenceEquals(next, present))
                return present;

            BinaryData content = Serialize(next);
            bool written = blob is null
                ? await blobs.TryCreateAsync(path, content, cancellation)
                : await blobs.TryReplaceAsync(path, content, blob.ETag, cancellation);
            if (written)
                return next;
        }
    }

    /// <summary>The document's bytes.</summary>
    public static BinaryData Serialize<T>(T document)
    {
        byte[] plain = JsonSerializer.SerializeToUtf8Bytes(document, RlhfJson.Compact);
        if (!IsSealed<T>.Value)
            return new(plain);
        byte[] sum = Encoding.ASCII.GetBytes(Convert.ToHexStringLower(SHA256.HashData(plain)));
        return new((byte[])[.. plain.AsSpan(..^1), .. SealPrefix, .. sum, .. SealSuffix]);
    }

    /// <summary>Lower-case hexadecimal SHA-256.</summary>
    public static string Sha256(BinaryData content) => Convert.ToHexStringLower(SHA256.HashData(content));

    /// <summary>The document in a blob's bytes.</summary>
    /// <exception cref="CorruptBlobException">They are no such document.</exception>
    public static T Parse<T>(string path, BinaryData content)
    {
        try
        {
            ReadOnlyMemory<byte> plain = IsSealed<T>.Value ? Unseal(path, content) : content.ToMemory();
            return JsonSerializer.Deserialize<T>(plain.Span, Finite) ?? throw new CorruptBlobException(path, "it holds null");
        }
        catch (JsonException e)
        {
            throw new CorruptBlobException(path, $"it is no {typeof(T).Name}: {e.Message}");
        }
    }

    /// <summary>The document without its seal.</summary>
    private static byte[] Unseal(string path, BinaryData content)
    {
        ReadOnlySpan<byte> bytes = content.ToMemory().Span;
        int length = bytes.Length - SealPrefix.Length - SumLength - SealSuffix.Length;
        if (length < 1 || !bytes[length..].StartsWith(SealPrefix) || !bytes.EndsWith(SealSuffix))
            throw new CorruptBlobException(path, "it does not end with its seal");
        byte[] plain = [.. bytes[..length], (byte)'}'];
        return bytes.Slice(length + SealPrefix.Length, SumLength).SequenceEqual(
            Encoding.ASCII.GetBytes(Convert.ToHexStringLower(SHA256.HashData(plain))))
                ? plain
                : throw new CorruptBlobException(path, "its SHA-256 is not the one that it was sealed with");
    }

    private static class IsSealed<T>
    {
        public static readonly bool Value = typeof(T).IsDefined(typeof(SealedDocumentAttribute), inherit: false);
    }

    /// <summary>JSON has no infinity, but a damaged number such as 1e999 would be read as one, and could then not be written again.</summary>
    private sealed class FiniteNumbers : JsonConverter<double>
    {
        public override double Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            reader.GetDouble() is var value && double.IsFinite(value) ? value : throw new JsonException("a number is too large");

        public override void Write(Utf8JsonWriter writer, double value, JsonSerializerOptions options) => writer.WriteNumberValue(value);
    }
}

/// <summary>A blob whose bytes are not what they must be.</summary>
public sealed class CorruptBlobException(string path, string why)
    : Exception($"The blob '{path}' is corrupt: {why}.")
{
    /// <summary>The blob.</summary>
    public string Path { get; } = path;
}
