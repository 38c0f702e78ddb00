using System.Globalization;

namespace Rlhf.Local.Commands;

/// <summary>The few metrics that tell how a stage goes, in words.</summary>
internal static class MetricText
{
    // The order is the order of interest: what alignment is after first, then what keeps it honest, then the loss.
    private static readonly string[] OfInterest =
        ["reward", "score", "gold", "accuracy", "kl", "eos", "entropy", "loss", "perplexity"];

    /// <summary>Up to <paramref name="count"/> metrics as <c>name value</c>, each after <paramref name="separator"/>.</summary>
    public static string Of(IReadOnlyDictionary<string, double> metrics, int count, string separator) => string.Concat(
        metrics
            .Select(metric => (metric.Key, metric.Value, Interest: Array.FindIndex(OfInterest, word => metric.Key.Contains(word, StringComparison.OrdinalIgnoreCase))))
            .Where(metric => metric.Interest >= 0)
            .OrderBy(metric => metric.Interest).ThenBy(metric => metric.Key.Length).ThenBy(metric => metric.Key, StringComparer.Ordinal)
            .Take(count)
            .Select(metric => string.Create(CultureInfo.InvariantCulture, $"{separator}{metric.Key} {metric.Value:0.###}")));
}
