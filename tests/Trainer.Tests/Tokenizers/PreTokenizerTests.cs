using System.Text.RegularExpressions;
using Rlhf.Trainer.Tokenizers;
using Xunit;

namespace Rlhf.Trainer.Tests.Tokenizers;

public sealed class PreTokenizerTests
{
    /// <summary>
    /// .NET's regular expressions are the reference here: within the basic plane they read the patterns as the families mean them.
    /// </summary>
    [Fact]
    public void The_scanners_split_as_the_patterns_do()
    {
        string[] atoms =
        [
            "a", "Z", "word", "é", "好", "1", "2024", "٣", "½", " ", "  ", "\n", "\r\n", "\t", "\u00A0", "\u3000",
            "'s", "'T", "'Re", "'ll", "'", "'x", "!", "?!", "-", "…", "\u200D", "_", "\u0301",
        ];
        var random = new Random(17);
        foreach (PreTokenizer scanner in (PreTokenizer[])[PreTokenizer.Gpt2, PreTokenizer.Llama3, PreTokenizer.Qwen2])
        {
            var pattern = new Regex(scanner.Pattern, RegexOptions.CultureInvariant);
            for (int round = 0; round < 4000; round++)
            {
                string text = string.Concat(Enumerable.Range(0, 1 + round % 12).Select(_ => atoms[random.Next(atoms.Length)]));
                Assert.Equal(pattern.Matches(text).Select(m => m.Value), Pieces(scanner, text));
            }
        }
    }

    [Theory]
    [InlineData("𠀀𠀁 𝐀b", "𠀀𠀁| 𝐀b")] // letters beyond the basic plane
    [InlineData("𝟏𝟐a", "𝟏𝟐|a")] // digits there
    [InlineData("a😀😀b", "a|😀😀|b")]
    public void Characters_beyond_the_basic_plane_keep_their_class(string text, string pieces) =>
        Assert.Equal(pieces.Split('|'), Pieces(PreTokenizer.Gpt2, text));

    [Theory]
    [InlineData("12345", "123|45")]
    [InlineData("Hello, WORLD'S 1st\n\n  end", "Hello|,| WORLD|'S| |1|st|\n\n| | end")]
    [InlineData("'ſo", "'ſ|o")] // the long s folds to s
    public void Llama3_takes_three_digits_and_ignores_the_case_of_contractions(string text, string pieces) =>
        Assert.Equal(pieces.Split('|'), Pieces(PreTokenizer.Llama3, text));

    [Fact]
    public void Qwen2_takes_digits_one_by_one() => Assert.Equal(["1", "2", "3", " a"], Pieces(PreTokenizer.Qwen2, "123 a"));

    private static List<string> Pieces(PreTokenizer scanner, string text)
    {
        var pieces = new List<string>();
        for (ReadOnlySpan<char> rest = text; rest.Length > 0; rest = rest[pieces[^1].Length..])
            pieces.Add(rest[..scanner.NextLength(rest)].ToString());
        return pieces;
    }
}
