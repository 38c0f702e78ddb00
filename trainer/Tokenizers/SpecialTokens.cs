using System.Globalization;
using System.Text.Json.Nodes;
using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Tokenizers;

/// <summary>A token outside the merges, found in the text as it stands; a special one is a control token.</summary>
internal sealed record AddedToken(int Id, string Content, bool Special)
{
    /// <summary>White space before it belongs to it ("lstrip").</summary>
    public bool TakesSpaceBefore { get; init; }

    /// <summary>White space behind it belongs to it ("rstrip").</summary>
    public bool TakesSpaceBehind { get; init; }

    /// <summary>Reads an entry of "added_tokens" or "added_tokens_decoder".</summary>
    /// <exception cref="ModelFormatException">It has no content, or asks for what is not supported.</exception>
    public static AddedToken Read(int id, JsonNode? entry, string file)
    {
        if ((entry as JsonObject)?["content"] is not JsonValue name || !name.TryGetValue(out string? content) || content.Length == 0)
            throw new ModelFormatException(file, $"the added token {id} has no content.");
        if (Is("single_word"))
            throw new ModelFormatException(file, $"the added token '{content}' is to be found as a whole word only, which is not supported.");
        return new AddedToken(id, content, Is("special")) { TakesSpaceBefore = Is("lstrip"), TakesSpaceBehind = Is("rstrip") };

        bool Is(string field) => entry[field] is JsonValue value && value.TryGetValue(out bool given) && given;
    }

    /// <summary>The entry that <see cref="Read"/> reads; "added_tokens" have their ids in it, "added_tokens_decoder" has them as keys.</summary>
    public JsonObject Write(bool withId)
    {
        JsonObject entry = withId ? new() { ["id"] = Id } : [];
        entry["content"] = Content;
        entry["single_word"] = false;
        entry["lstrip"] = TakesSpaceBefore;
        entry["rstrip"] = TakesSpaceBehind;
        entry["normalized"] = false;
        entry["special"] = Special;
        return entry;
    }

    /// <summary>What comes before it in a text that it splits.</summary>
    public ReadOnlySpan<char> Before(ReadOnlySpan<char> text) => TakesSpaceBefore ? text.TrimEnd() : text;

    /// <summary>What comes behind it.</summary>
    public ReadOnlySpan<char> Behind(ReadOnlySpan<char> text) => TakesSpaceBehind ? text.TrimStart() : text;

    /// <summary>The longest of the tokens that a text begins with; there is one.</summary>
    public static AddedToken LongestAt(ReadOnlySpan<char> text, IEnumerable<AddedToken> tokens, bool allowSpecial)
    {
        AddedToken? longest = null;
        foreach (AddedToken token in tokens)
        {
            if ((allowSpecial || !token.Special) && text.StartsWith(token.Content, StringComparison.Ordinal)
                && token.Content.Length > (longest?.Content.Length ?? 0))
                longest = token;
        }

        return longest!;
    }
}

/// <summary>
/// The tokens with a part to play, from tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json beside the
/// vocabulary.
/// </summary>
internal sealed record SpecialTokens
{
    /// <summary>Tables have a row for every id; no vocabulary comes near this one.</summary>
    public const int LargestId = (1 << 22) - 1;

    private const string PadName = "<|pad|>";
    private static readonly string[] UsualPad = [PadName, "<pad>", "[PAD]", "<|finetune_right_pad_id|>"];

    /// <summary>Names that end tokens have where no file names one.</summary>
    public static readonly string[] UsualEos = ["<|endoftext|>", "</s>", "<|end_of_text|>", "<|im_end|>", "<eos>"];

    /// <summary>Ends a text.</summary>
    public required string Eos { get; init; }

    /// <summary>Fills up a batch; never <see cref="Eos"/>.</summary>
    public required string Pad { get; init; }

    /// <summary>The model had no padding token but the end token: <see cref="Pad"/> was added behind the vocabulary.</summary>
    public required bool PadIsNew { get; init; }

    /// <summary>Stands before a text, where the model was trained so ("add_bos_token"); null where it was not.</summary>
    public required string? Start { get; init; }

    /// <summary>All tokens outside the merges.</summary>
    public required IReadOnlyList<AddedToken> Added { get; init; }

    /// <summary>tokenizer_config.json, to be passed on.</summary>
    public required JsonObject ConfigFile { get; init; }

    /// <summary>True for a usual name of an end or padding token.</summary>
    public static bool IsUsual(string name) => UsualEos.Contains(name) || UsualPad.Contains(name);

    /// <summary>The longest added token that a text begins with; there is one.</summary>
    public AddedToken At(ReadOnlySpan<char> text, bool allowSpecial) => AddedToken.LongestAt(text, Added, allowSpecial);

    /// <summary>
    /// Finds the end and the padding token: tokenizer_config.json, special_tokens_map.json, config.json, then the usual names. A padding
    /// token that would be the end token is replaced by one of its own, added behind the vocabulary.
    /// </summary>
    /// <param name="directory">The folder.</param>
    /// <param name="vocabulary">The tokens by name.</param>
    /// <param name="known">Added tokens that the vocabulary's own file names.</param>
    /// <param name="startsByDefault">What holds where "add_bos_token" is missing.</param>
    /// <param name="startNamed">The start token that the vocabulary's own file names.</param>
    public static SpecialTokens Read(
        string directory, IReadOnlyDictionary<string, int> vocabulary, IReadOnlyList<AddedToken> known, bool startsByDefault,
        string? startNamed = null)
    {
        JsonObject tokenizerConfig = ReadIfPresent(directory, "tokenizer_config.json");
        JsonObject map = ReadIfPresent(directory, "special_tokens_map.json");
        JsonObject config = ReadIfPresent(directory, "config.json");
        List<AddedToken> added = [.. known];
        foreach (AddedToken token in Further(directory, tokenizerConfig))
        {
            if (added.All(other => other.Content != token.Content))
                added.Add(token);
        }

        var ids = new Dictionary<string, int>(vocabulary);
        foreach (AddedToken token in added)
            ids[token.Content] = token.Id;

        string eos = Named("eos_token") ?? ById("eos_token_id") ?? UsualEos.FirstOrDefault(ids.ContainsKey)
            ?? throw new ModelFormatException(directory, "no end token is named; give 'eos_token' in tokenizer_config.json.");
        string? pad = Named("pad_token");
        if (pad is null || pad == eos) pad = ById("pad_token_id");
        if (pad is null || pad == eos) pad = UsualPad.FirstOrDefault(ids.ContainsKey);
        bool starts = tokenizerConfig["add_bos_token"] is JsonValue value && value.TryGetValue(out bool given) ? given : startsByDefault;
        string? start = Named("bos_token") ?? startNamed ?? ById("bos_token_id") ?? (ids.ContainsKey("<s>") ? "<s>" : null);
        if (!starts)
            start = null;
        foreach (string? token in (string?[])[eos, pad, start])
        {
            if (token is not null && added.All(t => t.Content != token)) added.Add(new AddedToken(ids[token], token, Special: true));
        }

        bool padIsNew = pad is null;
        if (pad is null)
        {
            pad = PadName;
            added.Add(new AddedToken(ids.Values.Max() + 1, pad, Special: true));
        }

        return new SpecialTokens
        {
            Eos = eos,
            Pad = pad,
            PadIsNew = padIsNew,
            Start = start,
            Added = added,
            ConfigFile = tokenizerConfig,
        };

        string? Named(string field)
        {
            JsonNode? value = tokenizerConfig[field] ?? map[field];
            string? name = Text(value) ?? Text((value as JsonObject)?["content"]);
            return name is not null && ids.ContainsKey(name) ? name : null;
        }

        string? ById(string field)
        {
            JsonNode? value = config[field] is JsonArray { Count: > 0 } several ? several[0] : config[field];
            int? id = Number(value);
            return id is null ? null : ids.Where(t => t.Value == id).Select(t => t.Key).FirstOrDefault();
        }
    }

    /// <summary>What tokenizer_config.json ("added_tokens_decoder") and added_tokens.json add to the vocabulary.</summary>
    private static IEnumerable<AddedToken> Further(string directory, JsonObject tokenizerConfig)
    {
        foreach ((string key, JsonNode? entry) in tokenizerConfig["added_tokens_decoder"] as JsonObject ?? [])
        {
            string file = Path.Combine(directory, "tokenizer_config.json");
            yield return int.TryParse(key, NumberStyles.None, CultureInfo.InvariantCulture, out int id)
                ? AddedToken.Read(id, entry, file)
                : throw new ModelFormatException(file, $"'added_tokens_decoder' has '{key}' where a token's id belongs.");
        }

        foreach ((string content, JsonNode? id) in ReadIfPresent(directory, "added_tokens.json"))
        {
            yield return new AddedToken(
                Number(id) is { } number and >= 0
                    ? number
                    : throw new ModelFormatException(Path.Combine(directory, "added_tokens.json"), $"token '{content}' has no id."),
                content, Special: true);
        }
    }

    private static JsonObject ReadIfPresent(string directory, string name)
    {
        string file = Path.Combine(directory, name);
        return File.Exists(file) ? JsonFile.ReadObject(file) : [];
    }

    private static string? Text(JsonNode? node) => node is JsonValue value && value.TryGetValue(out string? text) ? text : null;

    private static int? Number(JsonNode? node) => node is JsonValue value && value.TryGetValue(out int number) ? number : null;
}
