using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization;
using Rlhf.Storage;

namespace Rlhf.Jobs;

/// <summary>JSON documents changed by compare-and-swap.</summary>
public static class CasDocument
{
    private static readonly JsonSerializerOptions Finite = new(RlhfJson.Compact) { Converters = { new FiniteNumbers() } };

    /// <summary>Reads a document; null when there is none.</summary>
    /// <exception cref="CorruptBlobException">The blob is no such document.</exception>
    public static async Task<T?> ReadJsonAsync<T>(this IBlobStore blobs, string path, CancellationToken cancellation)
        where T : class
    {
        StoredBlob? blob = await blobs.ReadAsync(path, cancellation);
        return blob is null ? null : Parse<T>(path, blob.Content);
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
    /// <returns>The state after the change.</returns>
    public static async Task<T?> UpdateJsonAsync<T>(this IBlobStore blobs, string path, Func<T?, T?> change, CancellationToken cancellation)
        where T : class
    {
        while (true)
        {
            StoredBlob? blob = await blobs.ReadAsync(path, cancellation);
            T? present = blob is null ? null : Parse<T>(path, blob.Content);
            T? next = change(present);
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
    public static BinaryData Serialize<T>(T document) => new(JsonSerializer.SerializeToUtf8Bytes(document, RlhfJson.Compact));

    /// <summary>Lower-case hexadecimal SHA-256.</summary>
    public static string Sha256(BinaryData content) => Convert.ToHexStringLower(SHA256.HashData(content));

    /// <summary>The document in a blob's bytes.</summary>
    /// <exception cref="CorruptBlobException">They are no such document.</exception>
    public static T Parse<T>(string path, BinaryData content)
    {
        try
        {
            return content.ToObjectFromJson<T>(Finite) ?? throw new CorruptBlobException(path, "it holds null");
        }
        catch (JsonException e)
        {
            throw new CorruptBlobException(path, $"it is no {typeof(T).Name}: {e.Message}");
        }
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
