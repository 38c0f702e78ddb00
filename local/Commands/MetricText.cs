using System.Globalization;

namespace Rlhf.Local.Commands;

/// <summary>The few metrics that tell how a stage goes, in words.</summary>
internal static class MetricText
{
    // By interest: first what alignment is after, then what keeps it honest, then the losses. The names are the metric contract's.
    private static readonly string[] OfInterest =
    [
        "gold_reward", "proxy_reward", "objective/scores", "objective/kl", "rollout/eos_rate", "objective/entropy",
        "val/accuracy", "accuracy", "token_accuracy", "eos_rate", "loss", "val/loss",
    ];

    /// <summary>Up to <paramref name="count"/> metrics as <c>name value</c>, each after <paramref name="separator"/>.</summary>
    public static string Of(IReadOnlyDictionary<string, double> metrics, int count, string separator) => string.Concat(
        OfInterest
            .Where(metrics.ContainsKey)
            .Take(count)
            .Select(name => string.Create(CultureInfo.InvariantCulture, $"{separator}{name} {metrics[name]:0.###}")));
}
