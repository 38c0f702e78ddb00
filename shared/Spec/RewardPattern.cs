using System.Text.RegularExpressions;

namespace Rlhf.Spec;

/// <summary>
/// The regular expressions of reward sources. They come from outside and meet whatever a model writes, so they are matched without
/// backtracking, in time linear in the text.
/// </summary>
public static class RewardPattern
{
    /// <summary>The longest pattern in characters.</summary>
    public const int MaxLength = 1000;

    /// <summary>What one answer may take; only a pattern of huge repetition counts needs more.</summary>
    public static readonly TimeSpan TimeLimit = TimeSpan.FromSeconds(2);

    /// <summary>Compiles a pattern.</summary>
    /// <exception cref="ArgumentException">It is no regular expression; the message says where.</exception>
    /// <exception cref="NotSupportedException">It needs backtracking: look-around, back references, atomic groups.</exception>
    public static Regex Compile(string pattern) =>
        new(pattern, RegexOptions.NonBacktracking | RegexOptions.CultureInvariant, TimeLimit);
}
