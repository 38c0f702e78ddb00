using System.Text.Json;
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
            for (ReadOnlySpan<char> rest = text; rest.Length > 0; rest = rest[pieces[^1].Length..]) pieces.Add(rest[..PreTokenizer.Gpt2.NextLength(rest)].ToString());
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

    private static TemporaryFolder FixtureFolder(bool tokenizerJson)
    {
        var folder = new TemporaryFolder();
        foreach (string name in tokenizerJson ? (string[])["tokenizer.json"] : ["vocab.json", "merges.txt"])
            File.Copy(Path.Combine(Folder, name), Path.Combine(folder.Path, name));
        return folder;
    }

    private static int[] Ids(JsonElement json) => [.. json.EnumerateArray().Select(v => v.GetInt32())];
}
