using System.Text.Json;
using System.Text.Json.Nodes;
using FsCheck;
using FsCheck.Fluent;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using Xunit;

namespace Rlhf.Trainer.Tests.Tokenizers;

public sealed class ByteLevelBpeTests
{
    private static readonly string Folder = Path.Combine(AppContext.BaseDirectory, "fixtures", "tokenizer");
    private static readonly JsonElement Cases = JsonDocument.Parse(File.ReadAllText(Path.Combine(Folder, "cases.json"))).RootElement;

    public static TheoryData<bool> BothFileFormats => [true, false];

    [Theory]
    [MemberData(nameof(BothFileFormats))]
    public void Ids_agree_with_the_reference_encoder_and_decode_to_the_text(bool tokenizerJson)
    {
        using TemporaryFolder folder = FixtureFolder(tokenizerJson);
        ByteLevelBpe tokenizer = ByteLevelBpe.Load(folder.Path);
        int checkedCases = 0;
        foreach (JsonElement sample in Cases.GetProperty("cases").EnumerateArray())
        {
            string text = sample.GetProperty("text").GetString()!;
            int[] expected = Ids(sample.GetProperty("ids"));
            Assert.True(expected.SequenceEqual(tokenizer.Encode(text)), $"'{text}': [{string.Join(",", tokenizer.Encode(text))}]");
            Assert.Equal(text, tokenizer.Decode(expected));
            if (sample.GetProperty("ids_hf_slow_gpt2_tokenizer") is { ValueKind: JsonValueKind.Array } special)
                Assert.Equal(Ids(special), tokenizer.Encode(text, allowSpecial: true));
            checkedCases++;
        }

        Assert.Equal(150, checkedCases);
    }

    [Fact]
    public void Pieces_agree_with_the_reference_pattern()
    {
        foreach (JsonElement sample in Cases.GetProperty("cases").EnumerateArray())
        {
            string text = sample.GetProperty("text").GetString()!;
            var pieces = new List<string>();
            for (ReadOnlySpan<char> rest = text; rest.Length > 0; rest = rest[pieces[^1].Length..])
                pieces.Add(rest[..PreTokenizer.Gpt2.NextLength(rest)].ToString());
            Assert.Equal(sample.GetProperty("pieces").EnumerateArray().Select(p => p.GetString()!), pieces);
        }
    }

    [Fact]
    public void Bytes_that_are_no_utf8_decode_to_replacement_characters()
    {
        ByteLevelBpe tokenizer = ByteLevelBpe.Load(Folder);
        foreach (JsonElement sample in Cases.GetProperty("decode_invalid_utf8").EnumerateArray())
            Assert.Equal(sample.GetProperty("text").GetString(), tokenizer.Decode(Ids(sample.GetProperty("ids"))));
    }

    [Fact]
    public void Training_merges_the_most_frequent_pair_first_and_the_smaller_among_equals()
    {
        // "ab" occurs 3 times, "cd" and "ef" 2 times each; then "ab"+"cd" does not occur.
        ByteLevelBpe tokenizer = ByteLevelBpe.Train(["ab\nab\nab\ncd\ncd\nef\nef"], 2 + 256 + 3, ["<|endoftext|>", "<|pad|>"]);
        Assert.Equal(261, tokenizer.VocabularySize);
        Assert.Equal((258, 259, 260), (tokenizer.IdOf("ab"), tokenizer.IdOf("cd"), tokenizer.IdOf("ef")));
        Assert.Equal((0, 1), (tokenizer.EosId, tokenizer.PadId));
    }

    [Fact]
    public void Training_does_not_depend_on_the_order_of_the_texts()
    {
        string[] texts = Texts();
        using var first = new TemporaryFolder();
        using var second = new TemporaryFolder();
        Train(texts).Save(first.Path);
        Train([.. texts.Reverse()]).Save(second.Path);
        Assert.Equal(
            File.ReadAllBytes(Path.Combine(first.Path, "tokenizer.json")), File.ReadAllBytes(Path.Combine(second.Path, "tokenizer.json")));
    }

    /// <summary>Counting all pairs anew after each merge is slow and plainly right.</summary>
    [Fact]
    public void Training_finds_the_merges_of_the_plain_algorithm()
    {
        string[] texts = Texts();
        Dictionary<string, int> words = BpeTrainer.CountWords(texts, PreTokenizer.Gpt2);
        List<(int, int)> expected = [];
        List<(List<int> Symbols, int Count)> state =
            [.. words.Select(w => (System.Text.Encoding.UTF8.GetBytes(w.Key).Select(b => ByteOrder.Rank(b)).ToList(), w.Value))];
        while (expected.Count < 200)
        {
            var counts = new Dictionary<(int, int), int>();
            foreach ((List<int> symbols, int count) in state)
                foreach ((int a, int b) in symbols.Zip(symbols.Skip(1))) counts[(a, b)] = counts.GetValueOrDefault((a, b)) + count;
            (int Left, int Right) best = counts.OrderByDescending(c => c.Value).ThenBy(c => c.Key).First().Key;
            if (counts[best] < 2) break;
            foreach ((List<int> symbols, _) in state)
            {
                for (int i = 0; i + 1 < symbols.Count; i++)
                {
                    if ((symbols[i], symbols[i + 1]) != best) continue;
                    symbols[i] = 256 + expected.Count;
                    symbols.RemoveAt(i + 1);
                }
            }

            expected.Add(best);
        }

        Assert.Equal(expected, BpeTrainer.Learn(words, 200, 0));
    }

    [Fact]
    public void A_saved_tokenizer_loads_as_the_same()
    {
        ByteLevelBpe tokenizer = Train(Texts());
        using var folder = new TemporaryFolder();
        tokenizer.Save(folder.Path);
        ByteLevelBpe loaded = ByteLevelBpe.Load(folder.Path);
        Assert.Equal((tokenizer.EosId, tokenizer.PadId, tokenizer.VocabularySize), (loaded.EosId, loaded.PadId, loaded.VocabularySize));
        foreach (string text in Texts().Append("unseen ☃ text\n<|endoftext|>"))
        {
            Assert.Equal(tokenizer.Encode(text), loaded.Encode(text));
            Assert.Equal(tokenizer.Encode(text, true), loaded.Encode(text, true));
        }
    }

    [Fact]
    public void Every_text_comes_back()
    {
        ByteLevelBpe tokenizer = ByteLevelBpe.Load(Folder);
        Prop.ForAll<NonNull<string>>(text =>
        {
            // Lone surrogates have no UTF-8; they are the only text that cannot come back.
            string valid = System.Text.Encoding.UTF8.GetString(System.Text.Encoding.UTF8.GetBytes(text.Get));
            return tokenizer.Decode(tokenizer.Encode(valid)) == valid;
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void Long_pieces_merge_as_short_ones_do()
    {
        ByteLevelBpe tokenizer = ByteLevelBpe.Load(Folder);
        var random = new Random(3);
        for (int round = 0; round < 50; round++)
        {
            // The letters of frequent merges, in one piece of 60 to 300 bytes.
            string piece = string.Concat(Enumerable.Range(0, 60 + round * 5).Select(_ => "theandingor"[random.Next(11)]));
            Assert.Equal(PlainMerges(tokenizer, piece), tokenizer.Encode(piece));
        }
    }

    [Fact]
    public void Special_tokens_in_a_text_are_text_unless_allowed()
    {
        ByteLevelBpe tokenizer = Train(Texts());
        Assert.DoesNotContain(tokenizer.EosId, tokenizer.Encode("a<|endoftext|>b"));
        int[] ids = tokenizer.Encode("a<|endoftext|><|pad|>b", allowSpecial: true);
        Assert.Equal([tokenizer.EosId, tokenizer.PadId], ids[1..3]);
        Assert.Equal("a<|endoftext|><|pad|>b", tokenizer.Decode(ids));
    }

    [Fact]
    public void Padding_that_is_the_end_token_is_replaced()
    {
        using TemporaryFolder folder = FixtureFolder(tokenizerJson: true);
        File.WriteAllText(
            Path.Combine(folder.Path, "tokenizer_config.json"),
            """{"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "chat_template": "x"}""");
        ByteLevelBpe tokenizer = ByteLevelBpe.Load(folder.Path);
        Assert.Equal((856, 857, 858), (tokenizer.EosId, tokenizer.PadId, tokenizer.VocabularySize));
        tokenizer.Save(folder.Path);
        JsonNode config = JsonNode.Parse(File.ReadAllText(Path.Combine(folder.Path, "tokenizer_config.json")))!;
        Assert.Equal(("<|pad|>", "x"), (config["pad_token"]!.GetValue<string>(), config["chat_template"]!.GetValue<string>()));
        Assert.Equal(857, ByteLevelBpe.Load(folder.Path).PadId);
    }

    /// <summary>Llama 3's and Qwen2's tokenizer.json, as far as they differ from GPT-2's, over the fixture's vocabulary.</summary>
    [Theory]
    [InlineData(PreTokenizer.Llama3Pattern, "12345", "123|45")]
    [InlineData(PreTokenizer.Qwen2Pattern, "12345", "1|2|3|4|5")]
    [InlineData(PreTokenizer.Llama3Pattern, "IT'S you", "IT|'S| you")]
    public void A_split_pattern_in_tokenizer_json_decides_where_pairs_may_merge(string pattern, string text, string pieces)
    {
        using TemporaryFolder folder = Changed(json => json["pre_tokenizer"] = JsonNode.Parse($$"""
            {"type": "Sequence", "pretokenizers": [
              {"type": "Split", "pattern": {"Regex": {{JsonSerializer.Serialize(pattern)}} }, "behavior": "Isolated", "invert": false},
              {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}
            """));
        ByteLevelBpe tokenizer = ByteLevelBpe.Load(folder.Path);
        Assert.Equal(pieces.Split('|').SelectMany(piece => tokenizer.Encode(piece)), tokenizer.Encode(text));
        using var saved = new TemporaryFolder();
        tokenizer.Save(saved.Path);
        Assert.Equal(tokenizer.Encode(text), ByteLevelBpe.Load(saved.Path).Encode(text));
    }

    [Fact]
    public void Added_tokens_take_the_space_beside_them_where_they_say_so()
    {
        using TemporaryFolder folder = Changed(json =>
        {
            var added = (JsonArray)json["added_tokens"]!;
            added.Add(JsonNode.Parse("""{"id": 857, "content": "<sep>", "lstrip": true, "rstrip": true, "special": false}"""));
            added.Add(JsonNode.Parse("""{"id": 858, "content": "<sep>2", "special": false}"""));
        });
        ByteLevelBpe tokenizer = ByteLevelBpe.Load(folder.Path);
        Assert.Equal([.. tokenizer.Encode("you"), 857, .. tokenizer.Encode("are")], tokenizer.Encode("you \n<sep>  are").AsEnumerable());
        Assert.Equal([.. tokenizer.Encode("you "), 858, .. tokenizer.Encode(" are")], tokenizer.Encode("you <sep>2 are").AsEnumerable());
        using var saved = new TemporaryFolder();
        tokenizer.Save(saved.Path);
        Assert.Equal(tokenizer.Encode("you <sep> are"), ByteLevelBpe.Load(saved.Path).Encode("you <sep> are"));

        using TemporaryFolder words = Changed(json => json["added_tokens"]![0]!["single_word"] = true);
        string message = Assert.Throws<ModelFormatException>(() => ByteLevelBpe.Load(words.Path)).Message;
        Assert.Contains("'<|endoftext|>' is to be found as a whole word only", message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{}", 856)]
    [InlineData("""{"add_bos_token": false}""", null)]
    public void A_post_processor_that_begins_texts_names_the_start_token(string config, int? start)
    {
        using TemporaryFolder folder = Changed(json => json["post_processor"] = JsonNode.Parse("""
            {"type": "Sequence", "processors": [
              {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
              {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}]}
            """));
        File.WriteAllText(Path.Combine(folder.Path, "tokenizer_config.json"), config);
        Assert.Equal(start, ByteLevelBpe.Load(folder.Path).StartId);
        Assert.Null(ByteLevelBpe.Load(Folder).StartId);
    }

    private static TemporaryFolder Changed(Action<JsonObject> change)
    {
        TemporaryFolder folder = FixtureFolder(tokenizerJson: true);
        string file = Path.Combine(folder.Path, "tokenizer.json");
        JsonObject json = JsonNode.Parse(File.ReadAllText(file))!.AsObject();
        change(json);
        File.WriteAllText(file, json.ToJsonString());
        return folder;
    }

    public static TheoryData<string, string> Unsupported => new()
    {
        { """{"model": {"type": "WordPiece"}}""", "type 'WordPiece' is not supported" },
        { """{"model": {"type": "BPE", "byte_fallback": true}}""", "SentencePiece" },
        { """{"model": {"type": "BPE", "vocab": {"a": 0}}}""", "'model.merges' is missing" },
        { """{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b c"]}}""", "merge 0 is not a pair" },
        { """{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "Whitespace"}}""", "'Whitespace'" },
        { """{"model": {"type": "BPE", "vocab": {"</s>": 0}, "merges": []}, "pre_tokenizer": {"type": "ByteLevel"}}""", "lacks byte 0" },
        { """{"model":""", "not a JSON object" },
        { "[]", "not a JSON object" },
    };

    [Theory]
    [MemberData(nameof(Unsupported))]
    public void A_tokenizer_that_cannot_be_used_says_why(string json, string reason)
    {
        using var folder = new TemporaryFolder();
        File.WriteAllText(Path.Combine(folder.Path, "tokenizer.json"), json);
        ModelFormatException e = Assert.Throws<ModelFormatException>(() => ByteLevelBpe.Load(folder.Path));
        Assert.Contains(reason, e.Message, StringComparison.Ordinal);
        Assert.Contains("tokenizer.json", e.Message, StringComparison.Ordinal);
    }

    /// <summary>Merges one pair at a time, by the ranks of merges.txt.</summary>
    private static int[] PlainMerges(ByteLevelBpe tokenizer, string piece)
    {
        Dictionary<string, int> ranks =
            File.ReadLines(Path.Combine(Folder, "merges.txt")).Skip(1).Index().ToDictionary(m => m.Item, m => m.Index);
        List<string> symbols = [.. piece.Select(c => c.ToString())];
        while (true)
        {
            int best = -1, rank = int.MaxValue;
            for (int i = 0; i + 1 < symbols.Count; i++)
            {
                if (ranks.TryGetValue($"{symbols[i]} {symbols[i + 1]}", out int r) && r < rank) (best, rank) = (i, r);
            }

            if (best < 0) return [.. symbols.Select(s => tokenizer.IdOf(s)!.Value)];
            symbols[best] += symbols[best + 1];
            symbols.RemoveAt(best + 1);
        }
    }

    private static ByteLevelBpe Train(string[] texts) => ByteLevelBpe.Train(texts, 400, ["<|endoftext|>", "<|pad|>"]);

    private static string[] Texts() => [.. Cases.GetProperty("cases").EnumerateArray().Select(c => c.GetProperty("text").GetString()!)];

    private static TemporaryFolder FixtureFolder(bool tokenizerJson)
    {
        var folder = new TemporaryFolder();
        foreach (string name in tokenizerJson ? (string[])["tokenizer.json"] : ["vocab.json", "merges.txt"])
            File.Copy(Path.Combine(Folder, name), Path.Combine(folder.Path, name));
        return folder;
    }

    private static int[] Ids(JsonElement json) => [.. json.EnumerateArray().Select(v => v.GetInt32())];
}
