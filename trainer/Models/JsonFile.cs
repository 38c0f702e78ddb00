using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Unicode;

namespace Rlhf.Trainer.Models;

/// <summary>JSON files of model folders, read strictly: what they say twice, or in halves of characters, has no one meaning.</summary>
internal static class JsonFile
{
    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false };

    /// <summary>Reads a file that holds one JSON object.</summary>
    /// <exception cref="ModelFormatException">It does not; the message says where it breaks.</exception>
    public static JsonObject ReadObject(string file)
    {
        try
        {
            byte[] bytes = File.ReadAllBytes(file);
            ReadOnlySpan<byte> text = bytes.AsSpan().StartsWith("\uFEFF"u8) ? bytes.AsSpan(3) : bytes;
            CheckCharacters(text);
            return JsonNode.Parse(text, documentOptions: Strict) as JsonObject
                ?? throw new ModelFormatException(file, "not a JSON object.");
        }
        catch (JsonException e)
        {
            throw new ModelFormatException(file, $"not a JSON object: {e.Message}", e);
        }
    }

    /// <summary>An escape such as \ud800 alone is half of a character; the tree would only find it when it is read.</summary>
    private static void CheckCharacters(ReadOnlySpan<byte> text)
    {
        if (!Utf8.IsValid(text))
            throw new JsonException("it holds bytes that are not UTF-8.");
        var reader = new Utf8JsonReader(text);
        while (reader.Read())
        {
            if (!reader.ValueIsEscaped)
                continue;
            try
            {
                _ = reader.GetString();
            }
            catch (InvalidOperationException e)
            {
                throw new JsonException($"a text at byte {reader.TokenStartIndex} holds half a character (an unpaired surrogate).", e);
            }
        }
    }
}
