using System.Text;
using System.Text.Json.Nodes;
using FsCheck;
using FsCheck.Fluent;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using Xunit;

namespace Rlhf.Trainer.Tests.Tokenizers;

/// <summary>Small SentencePiece models written here, against the plainest form of the algorithm.</summary>
public sealed class SentencePieceTokenizerTests
{
    private static readonly (string Text, float Score, PieceType Type)[] Control =
        [("<unk>", 0, PieceType.Unknown), ("<s>", 0, PieceType.Control), ("</s>", 0, PieceType.Control)];

    private static readonly (string Text, float Score, PieceType Type)[] Bytes =
        [.. Enumerable.Range(0, 256).Select(value => ($"<0x{value:X2}>", 0f, PieceType.Byte))];

    private static readonly (string Text, float Score, PieceType Type)[] Words =
    [
        .. new[]
        {
            ("▁▁", -1f), ("▁a", -2), ("ab", -3), ("bc", -3), ("▁ab", -4), ("cc", -4.5f), ("abc", -5), ("ccc", -6), ("▁▁▁▁", -7),
            ("▁", -20), ("a", -21), ("b", -22), ("c", -23), ("é", -24), ("😀", -25), (":", -26),
        }.Select(word => (word.Item1, word.Item2, PieceType.Normal)),
    ];

    private static PlainSentencePiece Llama => new([.. Control, .. Bytes, .. Words]);

    private static Dictionary<string, PlainSentencePiece> Models => new()
    {
        ["as Llama 2"] = Llama,
        ["no prefix"] = Llama with { DummyPrefix = false },
        ["extra spaces removed"] = Llama with { RemoveExtra = true },
        ["no byte fallback"] = new([.. Control, .. Words], ByteFallback: false),
        ["user-defined pieces"] = Llama with
        {
            Pieces = [.. Llama.Pieces, ("<x>", 0, PieceType.UserDefined), ("bca", 0, PieceType.UserDefined)],
        },
        ["unused pieces"] = Llama with
        {
            Pieces = [.. Llama.Pieces.Select(piece => piece.Text == "ab" ? piece with { Type = PieceType.Unused } : piece)],
        },
    };

    public static TheoryData<string> ModelNames => [.. Models.Keys];

    [Theory]
    [MemberData(nameof(ModelNames))]
    public void Ids_are_those_of_the_plain_algorithm_and_give_the_text_back(string name)
    {
        PlainSentencePiece plain = Models[name];
        using TemporaryFolder folder = Folder(plain);
        ITokenizer tokenizer = TokenizerFolder.Load(folder.Path);
        string[] parts = ["a", "b", "c", "ab", "abc", " ", "  ", "▁", "é", "😀", "z", "\n", "<x>", "bca", "<s>", "日", "<0x41>"];
        Gen<string> texts = Gen.Elements(parts).ArrayOf().Select(chosen => string.Concat(chosen.Take(30)));
        Prop.ForAll(texts.ToArbitrary(), text =>
        {
            int[] ids = tokenizer.Encode(text), expected = plain.Encode(text);
            if (!expected.SequenceEqual(ids))
                Assert.Fail($"'{text}': [{Names(tokenizer, ids)}] not [{Names(tokenizer, expected)}]");
            Assert.Equal(plain.Encode(text, continuation: true), tokenizer.EncodeContinuation(text));
            if (plain is { ByteFallback: true, RemoveExtra: false, DummyPrefix: true })
                Assert.Equal(text.Replace('▁', ' '), tokenizer.Decode(ids));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(300));
    }

    [Fact]
    public void Every_text_comes_back()
    {
        using TemporaryFolder folder = Folder(Llama);
        ITokenizer tokenizer = TokenizerFolder.Load(folder.Path);
        Prop.ForAll<NonNull<string>>(text =>
        {
            string valid = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text.Get)).Replace('▁', ' ');
            return tokenizer.Decode(tokenizer.Encode(valid)) == valid;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(500));
    }

    /// <summary>The cases in which Microsoft.ML.Tokenizers 2.0.1 gives other ids than SentencePiece.</summary>
    [Theory]
    [InlineData("as Llama 2", "  ", "▁▁ ▁")] // of equal pairs the leftmost
    [InlineData("as Llama 2", "bccc", "▁ bc cc")]
    [InlineData("no byte fallback", "zzb", "▁ <unk> b")] // neighbouring unknown characters are one
    [InlineData("no byte fallback", "é", "▁ é")]
    [InlineData("extra spaces removed", " ", "")]
    [InlineData("extra spaces removed", "  a  b ", "▁a ▁ b")]
    [InlineData("unused pieces", "abc", "▁a bc")]
    [InlineData("user-defined pieces", "abcab", "▁a bca b")]
    public void Merging_follows_SentencePiece(string model, string text, string pieces)
    {
        using TemporaryFolder folder = Folder(Models[model]);
        ITokenizer tokenizer = TokenizerFolder.Load(folder.Path);
        Assert.Equal(pieces, Names(tokenizer, tokenizer.Encode(text)));
    }

    [Fact]
    public void A_continuation_has_no_space_of_its_own()
    {
        using TemporaryFolder folder = Folder(Llama);
        ITokenizer tokenizer = TokenizerFolder.Load(folder.Path);
        Assert.Equal(tokenizer.Encode("ab: ab c"), (int[])[.. tokenizer.Encode("ab:"), .. tokenizer.EncodeContinuation(" ab c")]);
    }

    [Fact]
    public void Special_tokens_in_a_text_are_text_unless_allowed()
    {
        using TemporaryFolder folder = Folder(Llama, """{"added_tokens_decoder": {"275": {"content": "<call>", "special": false}}}""");
        ITokenizer tokenizer = TokenizerFolder.Load(folder.Path);
        Assert.DoesNotContain(tokenizer.EosId, tokenizer.Encode("a</s>"));
        Assert.Equal("▁a </s> b", Names(tokenizer, tokenizer.Encode("a</s>b", allowSpecial: true)));
        Assert.Equal("a</s>b", tokenizer.Decode(tokenizer.Encode("a</s>b", allowSpecial: true)));
        Assert.Equal("▁a <call> b", Names(tokenizer, tokenizer.Encode("a<call>b")));
    }

    [Fact]
    public void A_padding_token_is_added_where_there_is_none_and_the_files_come_through_intact()
    {
        using TemporaryFolder folder = Folder(Llama, """{"eos_token": "</s>", "pad_token": "</s>", "legacy": false, "chat_template": "x"}""");
        ITokenizer tokenizer = TokenizerFolder.Load(folder.Path);
        Assert.Equal((2, 275, 276, true), (tokenizer.EosId, tokenizer.PadId, tokenizer.VocabularySize, tokenizer.PadIsNew));

        using var saved = new TemporaryFolder();
        tokenizer.Save(saved.Path);
        Assert.Equal(
            File.ReadAllBytes(Path.Combine(folder.Path, "tokenizer.model")), File.ReadAllBytes(Path.Combine(saved.Path, "tokenizer.model")));
        JsonNode config = JsonNode.Parse(File.ReadAllText(Path.Combine(saved.Path, "tokenizer_config.json")))!;
        Assert.Equal("LlamaTokenizer", config["tokenizer_class"]!.GetValue<string>());
        Assert.Equal("x", config["chat_template"]!.GetValue<string>());
        Assert.Equal("<|pad|>", config["pad_token"]!.GetValue<string>());
        Assert.Equal("<|pad|>", config["added_tokens_decoder"]!["275"]!["content"]!.GetValue<string>());
        Assert.Equal("</s>", config["added_tokens_decoder"]!["2"]!["content"]!.GetValue<string>());

        ITokenizer again = TokenizerFolder.Load(saved.Path);
        Assert.Equal((275, 276, false), (again.PadId, again.VocabularySize, again.PadIsNew));
        Assert.Equal(tokenizer.Encode("ab 😀 z"), again.Encode("ab 😀 z"));
    }

    [Fact]
    public void A_model_gets_a_row_for_the_padding_token_and_is_exported_with_its_tokenizer()
    {
        using TemporaryFolder folder = Folder(Llama), saved = new();
        using (var model = new Transformer(ModelConfig.Llama(
            275, hiddenSize: 8, layers: 1, heads: 2, keyValueHeads: 1, intermediateSize: 16, maxPositions: 32, eosId: 2, padId: 2)))
        {
            model.InitialiseWeights(1);
            HuggingFaceFolder.Save(folder.Path, model, tokenizer: null);
        }

        using LoadedModel loaded = HuggingFaceFolder.Load(folder.Path);
        Assert.Equal((276, 275), (loaded.Config.VocabularySize, loaded.Tokenizer.PadId));
        HuggingFaceFolder.Save(saved.Path, loaded.Model, loaded.Tokenizer);
        using LoadedModel again = HuggingFaceFolder.Load(saved.Path);
        Assert.Equal((276, 275, false), (again.Config.VocabularySize, again.Config.PadId, again.Tokenizer.PadIsNew));
    }

    [Theory]
    [InlineData("{}", 1)]
    [InlineData("""{"add_bos_token": true, "bos_token": {"content": "<s>"}}""", 1)]
    [InlineData("""{"add_bos_token": false}""", null)]
    public void A_prompt_begins_as_the_model_was_trained_and_keeps_that_when_it_is_cut(string config, int? start)
    {
        using TemporaryFolder folder = Folder(Llama, config);
        ITokenizer tokenizer = TokenizerFolder.Load(folder.Path);
        Assert.Equal(start, tokenizer.StartId);
        var rows = new RowTokenizer(
            tokenizer, new ModelSpec { MaxPromptTokens = 8, MaxCompletionTokens = 4, ChatTemplate = ChatTemplateName.Plain },
            positions: 32, maxNewTokens: 4);
        int[] whole = rows.WholePrompt([new Turn("user", "a b c a b c a b c")]), cut = rows.Prompt([new Turn("user", "a b c a b c a b c")]);
        Assert.Equal(start is null ? [] : [1], whole.Where(id => id == 1));
        Assert.Equal(8, cut.Length);
        Assert.Equal(start is null ? whole[^8..] : [1, .. whole[^7..]], cut);
        Assert.Equal((int[])[.. tokenizer.EncodeContinuation(" ab"), 2], rows.Completion("ab"));
    }

    [Fact]
    public void A_file_that_breaks_off_anywhere_is_refused_or_read_without_harm()
    {
        using TemporaryFolder folder = Folder(Llama);
        string file = Path.Combine(folder.Path, "tokenizer.model");
        byte[] whole = File.ReadAllBytes(file);
        for (int length = 1; length < whole.Length; length += 7)
        {
            File.WriteAllBytes(file, whole[..length]);
            Assert.Throws<ModelFormatException>(() => TokenizerFolder.Load(folder.Path));
        }
    }

    [Theory]
    [InlineData("4194304")]
    [InlineData("2147483646")]
    [InlineData("2147483647")]
    public void An_id_that_would_take_all_memory_is_refused(string id)
    {
        using TemporaryFolder folder = Folder(Llama, $$"""{"added_tokens_decoder": {"{{id}}": {"content": "<far>"} } }""");
        var error = Assert.Throws<ModelFormatException>(() => TokenizerFolder.Load(folder.Path));
        Assert.Contains("ids go from 0 to 4194303", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Models_of_other_kinds_say_so()
    {
        using TemporaryFolder folder = Folder(Llama);
        string file = Path.Combine(folder.Path, "tokenizer.model");
        byte[] whole = File.ReadAllBytes(file);
        // A later field wins in a protocol buffer: TrainerSpec.model_type = unigram; NormalizerSpec.precompiled_charsmap = one byte.
        File.WriteAllBytes(file, [.. whole, 0x12, 2, 0x18, 1]);
        Assert.Contains("type 'unigram'", Assert.Throws<ModelFormatException>(() => TokenizerFolder.Load(folder.Path)).Message, StringComparison.Ordinal);
        File.WriteAllBytes(file, [.. whole, 0x1A, 3, 0x12, 1, 7]);
        Assert.Contains("by a table", Assert.Throws<ModelFormatException>(() => TokenizerFolder.Load(folder.Path)).Message, StringComparison.Ordinal);
    }

    private static TemporaryFolder Folder(PlainSentencePiece model, string? config = null)
    {
        var folder = new TemporaryFolder();
        model.Write(Path.Combine(folder.Path, "tokenizer.model"));
        if (config is not null)
            File.WriteAllText(Path.Combine(folder.Path, "tokenizer_config.json"), config);
        return folder;
    }

    private static string Names(ITokenizer tokenizer, int[] ids)
    {
        Dictionary<int, string> names = Models.Values.SelectMany(model => model.Pieces).Select(piece => piece.Text).Append("<call>").Distinct()
            .Where(text => tokenizer.IdOf(text) is not null).GroupBy(text => tokenizer.IdOf(text)!.Value)
            .ToDictionary(group => group.Key, group => group.First());
        return string.Join(' ', ids.Select(id => names.GetValueOrDefault(id, $"#{id}")));
    }
}
