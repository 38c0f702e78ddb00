using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Trainer.Methods;
using Rlhf.World;

namespace Rlhf.Trainer.Evaluation;

/// <summary>
/// How the reward model agrees with held-out rankings, beside two yardsticks: the rule "the longer one is better", and in the sample
/// world the labellers' ceiling, which is how often the judge itself agrees with the noisy labels.
/// </summary>
internal static class RewardAgreement
{
    private const string All = "all";

    /// <summary>One comparison: how far its better completion lies above the other in each respect.</summary>
    private readonly record struct Comparison(int Prompt, double Reward, double Length, double? Gold);

    /// <summary>
    /// The rows of each subset and of all: <c>accuracy</c>, <c>longer_is_better</c>, <c>labeller_ceiling</c>; of all also <c>ece</c> and
    /// <c>length_correlation</c>. Ties count one half. Intervals allow for several comparisons of a prompt not being independent.
    /// </summary>
    /// <param name="preferences">[R] ranked rows.</param>
    /// <param name="rewards">[R][K] scores of their completions.</param>
    public static IReadOnlyList<RewardModelRow> Rows(IReadOnlyList<Row> preferences, IReadOnlyList<float[]> rewards)
    {
        (string Subset, Comparison Comparison)[] comparisons =
            [.. preferences.SelectMany((row, r) => Compare(row, r, rewards[r]).Select(comparison => (row.Subset, comparison)))];
        if (comparisons.Length == 0)
            return [];
        var rows = new List<RewardModelRow>();
        Add(All, [.. comparisons.Select(entry => entry.Comparison)]);
        var subsets = comparisons.GroupBy(entry => entry.Subset, StringComparer.Ordinal)
            .OrderBy(group => group.Key, StringComparer.Ordinal).ToArray();
        if (subsets.Length > 1)
        {
            foreach (var subset in subsets)
                Add(subset.Key, [.. subset.Select(entry => entry.Comparison)]);
        }

        Comparison[] all = [.. comparisons.Select(entry => entry.Comparison)];
        double ece = RankingAccuracy.CalibrationError([.. all.Select(comparison => comparison.Reward)]);
        rows.Add(new RewardModelRow(All, "ece", ece, all.Length, 0));
        double[] scores = [.. rewards.SelectMany(row => row).Select(score => (double)score)];
        double[] lengths = [.. preferences.SelectMany(row => row.Completions).Select(completion => (double)completion.Length)];
        double r = RankingAccuracy.Correlation(scores, lengths);
        rows.Add(new RewardModelRow(All, "length_correlation", r, scores.Length, 1.96 * (1 - r * r) / Math.Sqrt(preferences.Count)));
        return rows;

        void Add(string subset, Comparison[] chosen)
        {
            rows.Add(Row(subset, "accuracy", chosen, comparison => comparison.Reward));
            rows.Add(Row(subset, "longer_is_better", chosen, comparison => comparison.Length));
            if (chosen.All(comparison => comparison.Gold is not null))
                rows.Add(Row(subset, "labeller_ceiling", chosen, comparison => comparison.Gold!.Value));
        }
    }

    private static RewardModelRow Row(string subset, string metric, Comparison[] chosen, Func<Comparison, double> gap)
    {
        // Several comparisons of a prompt are not independent: the prompt is the unit.
        Estimate estimate = Estimate.OfRatio(
        [
            .. chosen.GroupBy(comparison => comparison.Prompt)
                .Select(prompt => (prompt.Sum(comparison => Agreement(gap(comparison))), (double)prompt.Count())),
        ]);
        // Where all agree there is no variance to see, and the interval that Agresti and Coull give for a rate takes its place.
        double ci95 = estimate.Ci95 > 0
            ? estimate.Ci95
            : Estimate.OfRate((int)Math.Round(estimate.Value * estimate.N), estimate.N).Ci95;
        return new RewardModelRow(subset, metric, estimate.Value, chosen.Length, ci95);
    }

    private static IEnumerable<Comparison> Compare(Row row, int index, float[] rewards)
    {
        Truth? truth = Gold.TruthOf(row);
        double[]? gold = truth is null
            ? null
            : [.. row.Completions.Select(completion => Judge.Score(truth, completion, ended: true).Total)];
        RankedPairs pairs = RankedPairs.AllPairs([row.Ranks!]);
        return pairs.Better.Zip(pairs.Worse, (better, worse) => new Comparison(
            index, (double)rewards[better] - rewards[worse], row.Completions[(int)better].Length - row.Completions[(int)worse].Length,
            gold?[better] - gold?[worse]));
    }

    private static double Agreement(double gap) => gap > 0 ? 1 : gap < 0 ? 0 : 0.5;
}
