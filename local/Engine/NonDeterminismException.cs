namespace Rlhf.Local.Engine;

/// <summary>The code does not do what its history says it did. The instance is parked, its history stays as it is.</summary>
internal sealed class NonDeterminismException(string instanceId, string expected, string actual) : Exception(
    $"Orchestration '{instanceId}' does not replay: its history has {Excerpt(expected, actual)}, " +
    $"its code now asks for {Excerpt(actual, expected)}. " +
    "Put the old code back, or let running instances finish before changing it; then restart the host or resume the instance.")
{
    private const int Before = 200, Longest = 600; // characters, around the first difference

    private static string Excerpt(string text, string other)
    {
        if (text.Length <= Longest) return text;
        int start = Math.Max(0, text.AsSpan().CommonPrefixLength(other) - Before);
        int end = Math.Min(text.Length, start + Longest);
        return $"{(start > 0 ? "... " : "")}{text[start..end]}{(end < text.Length ? " ..." : "")}";
    }
}
