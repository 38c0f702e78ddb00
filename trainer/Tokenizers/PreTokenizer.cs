using System.Globalization;
using System.Text;

namespace Rlhf.Trainer.Tokenizers;

/// <summary>
/// Splits a text into the pieces within which byte pairs may merge. The patterns of the model families are written out as scanners over
/// Unicode scalar values: .NET's regular expressions work on UTF-16 units and do not see the class of a letter outside the basic plane.
/// </summary>
internal sealed class PreTokenizer
{
    /// <summary>GPT-2 (Radford et al. 2019); also the pattern behind "use_regex": true of Hugging Face's ByteLevel.</summary>
    public const string Gpt2Pattern = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    public const string Llama3Pattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    public const string Qwen2Pattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    public static readonly PreTokenizer Gpt2 = new(Gpt2Pattern, 0);
    public static readonly PreTokenizer Llama3 = new(Llama3Pattern, 3);
    public static readonly PreTokenizer Qwen2 = new(Qwen2Pattern, 1);

    private readonly int maximumDigits; // 0: GPT-2's pattern

    private PreTokenizer(string pattern, int maximumDigits)
    {
        Pattern = pattern;
        this.maximumDigits = maximumDigits;
    }

    public string Pattern { get; }

    /// <summary>The scanner of a pattern as it stands in tokenizer.json; null if it is none of those known.</summary>
    public static PreTokenizer? For(string pattern) => pattern switch
    {
        Gpt2Pattern => Gpt2,
        Llama3Pattern => Llama3,
        Qwen2Pattern => Qwen2,
        _ => null,
    };

    /// <summary>Length in UTF-16 units of the piece at the start of a text that is not empty.</summary>
    public int NextLength(ReadOnlySpan<char> text) => maximumDigits == 0 ? NextGpt2(text) : NextLlama3(text);

    private static int NextGpt2(ReadOnlySpan<char> text)
    {
        if (Contraction(text, ignoreCase: false) is > 0 and int contraction) return contraction;

        int start = text[0] == ' ' ? 1 : 0;
        Kind first = KindAt(text, start, out _);
        return first switch
        {
            Kind.None or Kind.Space => WhiteSpace(text),
            _ => Run(text, start, first, int.MaxValue),
        };
    }

    private int NextLlama3(ReadOnlySpan<char> text)
    {
        if (Contraction(text, ignoreCase: true) is > 0 and int contraction) return contraction;

        // [^\r\n\p{L}\p{N}]?\p{L}+
        Kind first = KindAt(text, 0, out int size);
        if (first == Kind.Letter) return Run(text, 0, Kind.Letter, int.MaxValue);
        if (first == Kind.Number) return Run(text, 0, Kind.Number, maximumDigits);
        if (text[0] is not ('\r' or '\n') && KindAt(text, size, out _) == Kind.Letter) return Run(text, size, Kind.Letter, int.MaxValue);

        //  ?[^\s\p{L}\p{N}]+[\r\n]*
        int start = text[0] == ' ' ? 1 : 0;
        if (KindAt(text, start, out _) == Kind.Other)
        {
            int end = Run(text, start, Kind.Other, int.MaxValue);
            while (end < text.Length && text[end] is '\r' or '\n') end++;
            return end;
        }

        // \s*[\r\n]+ : up to the last line break of the white space
        int spaces = Run(text, 0, Kind.Space, int.MaxValue);
        int lastBreak = text[..spaces].LastIndexOfAny('\r', '\n');
        return lastBreak >= 0 ? lastBreak + 1 : WhiteSpace(text);
    }

    /// <summary>\s+(?!\S)|\s+ : white space before a word leaves its last character to the word.</summary>
    private static int WhiteSpace(ReadOnlySpan<char> text)
    {
        int end = Run(text, 0, Kind.Space, int.MaxValue);
        return end < text.Length && end > 1 ? end - 1 : end;
    }

    private static int Contraction(ReadOnlySpan<char> text, bool ignoreCase)
    {
        if (text.Length < 2 || text[0] != '\'') return 0;
        char second = text[1], third = text.Length > 2 ? text[2] : '\0';
        if (ignoreCase)
        {
            // U+017F, the long s, is an s when case is ignored.
            second = second == 'ſ' ? 's' : char.ToLowerInvariant(second);
            third = char.ToLowerInvariant(third);
        }

        return (second, third) switch
        {
            ('s' or 't' or 'm' or 'd', _) => 2,
            ('r', 'e') or ('v', 'e') or ('l', 'l') => 3,
            _ => 0,
        };
    }

    private static int Run(ReadOnlySpan<char> text, int start, Kind kind, int maximum)
    {
        int end = start;
        for (int count = 0; count < maximum && KindAt(text, end, out int size) == kind; count++) end += size;
        return end;
    }

    private static Kind KindAt(ReadOnlySpan<char> text, int index, out int size)
    {
        size = 0;
        if (index >= text.Length) return Kind.None;
        char c = text[index];
        if (c < 128)
        {
            size = 1;
            if (char.IsAsciiLetter(c)) return Kind.Letter;
            if (char.IsAsciiDigit(c)) return Kind.Number;
            return char.IsWhiteSpace(c) ? Kind.Space : Kind.Other;
        }

        Rune.DecodeFromUtf16(text[index..], out Rune rune, out size);
        if (Rune.IsWhiteSpace(rune)) return Kind.Space;
        return Rune.GetUnicodeCategory(rune) switch
        {
            UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter
                or UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter => Kind.Letter,
            UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => Kind.Number,
            _ => Kind.Other,
        };
    }

    private enum Kind
    {
        None,
        Space,
        Letter,
        Number,
        Other,
    }
}
