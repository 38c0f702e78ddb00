using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Tokenizers;

/// <summary>Hugging Face's tokenizer files: tokenizer.json or vocab.json + merges.txt, and tokenizer_config.json beside them.</summary>
internal static class TokenizerFiles
{
    private static readonly JsonSerializerOptions Readable =
        new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static BpeDefinition Read(string directory)
    {
        string tokenizerFile = Path.Combine(directory, "tokenizer.json");
        string vocabularyFile = Path.Combine(directory, "vocab.json");
        if (File.Exists(tokenizerFile)) return ReadTokenizerJson(directory, tokenizerFile);
        if (File.Exists(vocabularyFile)) return ReadVocabularyAndMerges(directory, vocabularyFile);
        throw new ModelFormatException(directory, "holds no tokenizer: neither tokenizer.json, tokenizer.model nor vocab.json with merges.txt is there.");
    }

    public static void Write(BpeDefinition definition, string[] names, string directory)
    {
        Directory.CreateDirectory(directory);
        JsonObject file = definition.TokenizerFile;
        var json = new JsonObject
        {
            ["version"] = "1.0",
            ["truncation"] = null,
            ["padding"] = null,
            ["added_tokens"] = new JsonArray([.. definition.AddedTokens.OrderBy(t => t.Id).Select(t => t.Write(withId: true))]),
            ["normalizer"] = definition.NormaliseToNfc ? new JsonObject { ["type"] = "NFC" } : null,
            ["pre_tokenizer"] = PreTokenizerJson(definition),
            ["post_processor"] = file["post_processor"]?.DeepClone() ?? ByteLevel(addPrefixSpace: false, useRegex: true),
            ["decoder"] = file["decoder"]?.DeepClone() ?? ByteLevel(addPrefixSpace: false, useRegex: true),
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["dropout"] = null,
                ["unk_token"] = null,
                ["continuing_subword_prefix"] = null,
                ["end_of_word_suffix"] = null,
                ["fuse_unk"] = false,
                ["byte_fallback"] = false,
                ["ignore_merges"] = definition.WholeWordsFirst,
                ["vocab"] = new JsonObject(
                    definition.Vocabulary.OrderBy(v => v.Value).Select(v => KeyValuePair.Create(v.Key, (JsonNode?)v.Value))),
                ["merges"] = new JsonArray([.. definition.Merges.Select(m => JsonValue.Create($"{m.Left} {m.Right}"))]),
            },
        };
        File.WriteAllText(Path.Combine(directory, "tokenizer.json"), json.ToJsonString(Readable) + "\n");

        JsonObject config = (JsonObject)definition.ConfigFile.DeepClone();
        config["tokenizer_class"] = "PreTrainedTokenizerFast";
        config["eos_token"] = definition.Eos;
        config["pad_token"] = definition.Pad;
        config["clean_up_tokenization_spaces"] = false;
        config.Remove("added_tokens_decoder"); // tokenizer.json has them
        WriteConfig(config, directory);
    }

    /// <summary>Writes tokenizer_config.json.</summary>
    public static void WriteConfig(JsonObject config, string directory) =>
        File.WriteAllText(Path.Combine(directory, "tokenizer_config.json"), config.ToJsonString(Readable) + "\n");

    private static BpeDefinition ReadTokenizerJson(string directory, string file)
    {
        JsonObject root = JsonFile.ReadObject(file);
        if (root["model"] is not JsonObject model) throw new ModelFormatException(file, "field 'model' is missing.");
        string? type = Text(model["type"]);
        if (type is not (null or "BPE"))
            throw new ModelFormatException(file, $"a tokenizer of type '{type}' is not supported; byte-level BPE is.");
        if (model["byte_fallback"] is JsonValue fallback && fallback.TryGetValue(out bool falls) && falls)
            throw new ModelFormatException(file, "is a SentencePiece tokenizer in tokenizer.json's form, which is not read; put the model's tokenizer.model beside it.");

        Dictionary<string, int> vocabulary = ReadVocabulary(model["vocab"], file);
        var merges = new List<(string, string)>();
        if (model["merges"] is not JsonArray list) throw new ModelFormatException(file, "field 'model.merges' is missing.");
        foreach (JsonNode? merge in list)
        {
            // transformers wrote "left right" up to 4.44 and [left, right] since.
            string[] parts = merge is JsonArray pair ? [.. pair.Select(p => Text(p) ?? "")] : (Text(merge) ?? "").Split(' ');
            if (parts.Length != 2) throw new ModelFormatException(file, $"merge {merges.Count} is not a pair of tokens.");
            merges.Add((parts[0], parts[1]));
        }

        List<AddedToken> added = [];
        foreach (JsonNode? entry in root["added_tokens"] as JsonArray ?? [])
        {
            if (Number((entry as JsonObject)?["id"]) is not { } id)
                throw new ModelFormatException(file, "an entry of 'added_tokens' has no id.");
            added.Add(AddedToken.Read(id, entry, file));
        }

        (PreTokenizer preTokenizer, bool addPrefixSpace) = ReadPreTokenizer(root["pre_tokenizer"], file);
        var definition = new BpeDefinition
        {
            Source = file,
            Vocabulary = vocabulary,
            Merges = merges,
            AddedTokens = added,
            PreTokenizer = preTokenizer,
            AddPrefixSpace = addPrefixSpace,
            NormaliseToNfc = ReadNormaliser(root["normalizer"], file),
            WholeWordsFirst = model["ignore_merges"] is JsonValue ignore && ignore.TryGetValue(out bool ignores) && ignores,
            Eos = "",
            Pad = "",
            TokenizerFile = root,
        };
        return WithSpecialTokens(definition, directory);
    }

    private static BpeDefinition ReadVocabularyAndMerges(string directory, string vocabularyFile)
    {
        string mergesFile = Path.Combine(directory, "merges.txt");
        if (!File.Exists(mergesFile)) throw new ModelFormatException(mergesFile, "no such file; vocab.json needs it.");
        var merges = new List<(string, string)>();
        int line = 0;
        foreach (string text in File.ReadLines(mergesFile))
        {
            line++;
            if (text.Length == 0 || (line == 1 && text.StartsWith("#version", StringComparison.Ordinal))) continue;
            string[] parts = text.Split(' ');
            if (parts.Length != 2) throw new ModelFormatException(mergesFile, $"line {line} is not a pair of tokens.");
            merges.Add((parts[0], parts[1]));
        }

        Dictionary<string, int> vocabulary = ReadVocabulary(JsonFile.ReadObject(vocabularyFile), vocabularyFile);
        // The control tokens of these files are those that no byte names can spell, and the end token.
        AddedToken[] added =
            [.. vocabulary.Where(v => SpecialTokens.IsUsual(v.Key)).Select(v => new AddedToken(v.Value, v.Key, Special: true))];
        return WithSpecialTokens(
            new BpeDefinition
            {
                Source = vocabularyFile,
                Vocabulary = vocabulary,
                Merges = merges,
                AddedTokens = added,
                PreTokenizer = PreTokenizer.Gpt2,
                Eos = "",
                Pad = "",
            },
            directory);
    }

    private static BpeDefinition WithSpecialTokens(BpeDefinition definition, string directory)
    {
        string? start = StartOf(definition.TokenizerFile["post_processor"]);
        SpecialTokens special = SpecialTokens.Read(
            directory, definition.Vocabulary, definition.AddedTokens, startsByDefault: start is not null, start);
        return definition with
        {
            Eos = special.Eos,
            Pad = special.Pad,
            PadIsNew = special.PadIsNew,
            Start = special.Start,
            AddedTokens = special.Added,
            ConfigFile = special.ConfigFile,
        };
    }

    /// <summary>The token that a template of the post-processor puts before a text, as Llama 3's does; null where none does.</summary>
    private static string? StartOf(JsonNode? processor)
    {
        if (processor is not JsonObject step)
            return null;
        if (Text(step["type"]) == "Sequence")
            return (step["processors"] as JsonArray ?? []).Select(StartOf).FirstOrDefault(start => start is not null);
        return Text(step["type"]) == "TemplateProcessing" && step["single"] is JsonArray { Count: > 0 } single
            ? Text(((single[0] as JsonObject)?["SpecialToken"] as JsonObject)?["id"])
            : null;
    }

    private static (PreTokenizer PreTokenizer, bool AddPrefixSpace) ReadPreTokenizer(JsonNode? node, string file)
    {
        JsonNode?[] steps = node is JsonObject one && Text(one["type"]) == "Sequence" ? [.. one["pretokenizers"] as JsonArray ?? []] : [node];
        PreTokenizer? found = null;
        bool prefix = false, byteLevel = false;
        foreach (JsonObject step in steps.OfType<JsonObject>())
        {
            switch (Text(step["type"]))
            {
                case "ByteLevel":
                    byteLevel = true;
                    prefix = step["add_prefix_space"] is JsonValue p && p.TryGetValue(out bool adds) && adds;
                    bool ownPattern = step["use_regex"] is not JsonValue r || !r.TryGetValue(out bool uses) || uses;
                    if (ownPattern && found is null) found = PreTokenizer.Gpt2;
                    else if (ownPattern) throw new ModelFormatException(file, "a pre-tokenizer with two patterns is not supported.");
                    break;
                case "Split" when Text((step["pattern"] as JsonObject)?["Regex"]) is { } pattern && found is null && Text(step["behavior"]) == "Isolated":
                    found = PreTokenizer.For(pattern)
                        ?? throw new ModelFormatException(
                            file, $"the pre-tokenizer pattern {pattern} is none of those supported (GPT-2, Llama 3, Qwen2).");
                    break;
                case { } other:
                    throw new ModelFormatException(file, $"a pre-tokenizer of type '{other}' in this place is not supported.");
            }
        }

        if (!byteLevel || found is null)
            throw new ModelFormatException(file, "the pre-tokenizer is not byte-level; byte-level BPE is what is supported.");
        return (found, prefix);
    }

    private static bool ReadNormaliser(JsonNode? node, string file)
    {
        var normaliser = node as JsonObject;
        switch (Text(normaliser?["type"]))
        {
            case null: return false;
            case "NFC": return true;
            case "Sequence" when normaliser!["normalizers"] is JsonArray { Count: 0 }: return false;
            case { } other: throw new ModelFormatException(file, $"a normaliser of type '{other}' is not supported.");
        }
    }

    private static JsonObject PreTokenizerJson(BpeDefinition definition)
    {
        if (definition.PreTokenizer == PreTokenizer.Gpt2) return ByteLevel(definition.AddPrefixSpace, useRegex: true);
        return new JsonObject
        {
            ["type"] = "Sequence",
            ["pretokenizers"] = new JsonArray(
                new JsonObject
                {
                    ["type"] = "Split",
                    ["pattern"] = new JsonObject { ["Regex"] = definition.PreTokenizer.Pattern },
                    ["behavior"] = "Isolated",
                    ["invert"] = false,
                },
                ByteLevel(definition.AddPrefixSpace, useRegex: false)),
        };
    }

    private static JsonObject ByteLevel(bool addPrefixSpace, bool useRegex) => new()
    {
        ["type"] = "ByteLevel",
        ["add_prefix_space"] = addPrefixSpace,
        ["trim_offsets"] = true,
        ["use_regex"] = useRegex,
    };

    private static Dictionary<string, int> ReadVocabulary(JsonNode? node, string file)
    {
        if (node is not JsonObject entries) throw new ModelFormatException(file, "the vocabulary is missing.");
        var vocabulary = new Dictionary<string, int>(entries.Count);
        foreach ((string token, JsonNode? id) in entries)
        {
            vocabulary[token] = Number(id) is { } number and >= 0
                ? number
                : throw new ModelFormatException(file, $"token '{token}' has no id.");
        }

        return vocabulary.Count > 0 ? vocabulary : throw new ModelFormatException(file, "the vocabulary is empty.");
    }

    private static string? Text(JsonNode? node) => node is JsonValue value && value.TryGetValue(out string? text) ? text : null;

    private static int? Number(JsonNode? node) => node is JsonValue value && value.TryGetValue(out int number) ? number : null;
}
