namespace Rlhf;

/// <summary>Names that come from outside and become part of a path.</summary>
public static class PlainNames
{
    private const int LongestId = 48;
    private const int LongestFileName = 255;

    /// <summary>True for what can be a run's id or a model's name: 1 to 48 lower-case letters, digits and, inside, hyphens.</summary>
    public static bool IsId(string name) =>
        name.Length is > 0 and <= LongestId && name[0] != '-' && name[^1] != '-'
        && name.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-');

    /// <summary>True for a file's name in any system: no separator, no drive, no way up, no control character.</summary>
    public static bool IsFileName(string name) =>
        name.Length is > 0 and <= LongestFileName && name is not ("." or "..")
        && !name.Any(c => c is '/' or '\\' or ':' || char.IsControl(c));

    /// <summary>True for lower-case hexadecimal SHA-256.</summary>
    public static bool IsSha256(string text) => text.Length == 64 && text.All(char.IsAsciiHexDigitLower);
}
