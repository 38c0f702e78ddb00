using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Rlhf.Trainer.Tokenizers;
using Xunit;

namespace Rlhf.Trainer.Tests.Tokenizers;

/// <summary>Against Python's unicodedata.normalize("NFC", ...) with Unicode 14.</summary>
public sealed class CanonicalCompositionTests
{
    [Fact]
    public void Random_texts_agree_with_the_reference()
    {
        string[] lines = File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "fixtures", "tokenizer", "nfc.txt"));
        Assert.Equal(400, lines.Length);
        int changed = 0;
        foreach (string line in lines)
        {
            string[] sides = [.. line.Split(';').Select(Text)];
            Assert.Equal(sides[1], CanonicalComposition.Of(sides[0]));
            Assert.Equal(sides[1], CanonicalComposition.Of(sides[1]));
            changed += sides[0] == sides[1] ? 0 : 1;
        }

        Assert.True(changed > 100);

        static string Text(string points) =>
            string.Concat(points.Split(' ').Select(point => new Rune(int.Parse(point, NumberStyles.HexNumber, CultureInfo.InvariantCulture))));
    }

    [Fact]
    public void Every_character_alone_agrees_with_the_reference()
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        for (int point = 0; point < 0x110000; point++)
        {
            if (Rune.IsValid(point))
                hash.AppendData(Encoding.UTF8.GetBytes(CanonicalComposition.Of(new Rune(point).ToString())));
        }

        Assert.Equal(
            "1FFC8E6CE9E83DF8E49FD62D6ABB68F981775AED0B5101B88C213D4653E9B540", Convert.ToHexString(hash.GetHashAndReset()));
    }

    [Fact]
    public void A_tokenizer_that_asks_for_it_sees_composed_text()
    {
        using var folder = new TemporaryFolder();
        string source = Path.Combine(AppContext.BaseDirectory, "fixtures", "tokenizer", "tokenizer.json");
        File.WriteAllText(
            Path.Combine(folder.Path, "tokenizer.json"),
            File.ReadAllText(source).Replace("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", StringComparison.Ordinal));
        ByteLevelBpe composing = ByteLevelBpe.Load(folder.Path), plain = ByteLevelBpe.Load(Path.GetDirectoryName(source)!);
        const string decomposed = "cafe\u0301", composed = "caf\u00e9";
        Assert.Equal(plain.Encode(composed), composing.Encode(decomposed));
        Assert.NotEqual(plain.Encode(composed), plain.Encode(decomposed));
    }
}
