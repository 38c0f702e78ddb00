using Rlhf.Trainer.Data;

namespace Rlhf.Trainer.Methods;

/// <summary>How well rewards agree with rankings. Every pair of different rank counts once.</summary>
public static class RankingAccuracy
{
    private const int CalibrationBins = 10;

    /// <summary>One comparison: reward and length (tokens) of the preferred completion minus those of the other.</summary>
    private readonly record struct Pair(double Gap, int LengthGap);

    /// <summary>
    /// loss (mean -log σ of the gap), accuracy, accuracy/{subset}, longer_accuracy and longer_accuracy/{subset} (of the rule "the
    /// longer one is better"; equal lengths count half), margin_mean, margin_std, ece (expected calibration error of σ(gap), ten bins),
    /// length_correlation (Pearson, of reward and completion length over all completions), pairs and pairs/{subset}.
    /// </summary>
    /// <param name="rows">Ranked completions.</param>
    /// <param name="rewards">The reward of each completion of each row.</param>
    public static IReadOnlyDictionary<string, double> Measure(IReadOnlyList<TokenizedPreference> rows, IReadOnlyList<float[]> rewards)
    {
        (string Subset, Pair Pair)[] all =
        [
            .. rows.Index().SelectMany(row => Pairs(row.Item, rewards[row.Index]).Select(pair => (row.Item.Subset, pair))),
        ];
        if (all.Length == 0)
            return new Dictionary<string, double>();
        double[] gaps = [.. all.Select(entry => entry.Pair.Gap)];
        double mean = gaps.Average();
        Dictionary<string, double> metrics = new()
        {
            ["loss"] = gaps.Average(gap => Math.Log(1 + Math.Exp(-Math.Abs(gap))) + Math.Max(-gap, 0)),
            ["margin_mean"] = mean,
            ["margin_std"] = Math.Sqrt(gaps.Average(gap => (gap - mean) * (gap - mean))),
            ["ece"] = CalibrationError(gaps),
            ["length_correlation"] = Correlation(
                [.. rewards.SelectMany(row => row).Select(reward => (double)reward)],
                [.. rows.SelectMany(row => row.Completions).Select(completion => (double)completion.Length)]),
        };
        Add(metrics, "", [.. all.Select(entry => entry.Pair)]);
        foreach (var subset in all.GroupBy(entry => entry.Subset).OrderBy(group => group.Key, StringComparer.Ordinal))
            Add(metrics, $"/{subset.Key}", [.. subset.Select(entry => entry.Pair)]);
        return metrics;
    }

    /// <summary>Pearson's correlation; 0 where one side does not vary.</summary>
    public static double Correlation(IReadOnlyList<double> x, IReadOnlyList<double> y)
    {
        double meanX = x.Average(), meanY = y.Average();
        double covariance = 0, varianceX = 0, varianceY = 0;
        for (int i = 0; i < x.Count; i++)
        {
            covariance += (x[i] - meanX) * (y[i] - meanY);
            varianceX += (x[i] - meanX) * (x[i] - meanX);
            varianceY += (y[i] - meanY) * (y[i] - meanY);
        }

        return varianceX > 0 && varianceY > 0 ? covariance / Math.Sqrt(varianceX * varianceY) : 0;
    }

    private static void Add(Dictionary<string, double> metrics, string suffix, IReadOnlyList<Pair> pairs)
    {
        metrics["accuracy" + suffix] = pairs.Average(pair => HalfForTies(pair.Gap));
        metrics["longer_accuracy" + suffix] = pairs.Average(pair => HalfForTies(pair.LengthGap));
        metrics["pairs" + suffix] = pairs.Count;
    }

    private static double HalfForTies(double gap) => gap > 0 ? 1 : gap < 0 ? 0 : 0.5;

    private static IEnumerable<Pair> Pairs(TokenizedPreference row, float[] rewards)
    {
        RankedPairs pairs = RankedPairs.AllPairs([row.Ranks]);
        return pairs.Better.Zip(pairs.Worse, (better, worse) => new Pair(
            (double)rewards[better] - rewards[worse], row.Completions[(int)better].Length - row.Completions[(int)worse].Length));
    }

    /// <summary>
    /// Guo et al. 2017, eq. 3: the confidence of a pair is max(σ(gap), 1 - σ(gap)), in ten bins from one half to one; the error is the mean
    /// distance of confidence and accuracy, weighted by the bins' sizes.
    /// </summary>
    internal static double CalibrationError(IReadOnlyCollection<double> gaps)
    {
        var bins = gaps
            .Select(gap => (Confidence: 1 / (1 + Math.Exp(-Math.Abs(gap))), Correct: HalfForTies(gap)))
            .GroupBy(entry => Math.Min((int)((entry.Confidence - 0.5) * 2 * CalibrationBins), CalibrationBins - 1));
        return bins.Sum(bin => Math.Abs(bin.Sum(entry => entry.Confidence) - bin.Sum(entry => entry.Correct))) / gaps.Count;
    }
}
