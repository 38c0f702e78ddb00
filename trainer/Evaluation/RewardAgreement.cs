using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Trainer.Methods;
using Rlhf.World;

namespace Rlhf.Trainer.Evaluation;

/// <summary>
/// How the reward model agrees with held-out rankings, beside its yardsticks: a bag of words that learnt from the same rankings, the rule
/// "the longer one is better", and in the sample world the labellers' ceiling, which is how often the judge itself agrees with the noisy
/// labels. Ties count one half. Several comparisons of a prompt are not independent: in every interval the prompt is the unit.
/// </summary>
internal static class RewardAgreement
{
    /// <summary>The subset of the rankings by labellers of whom the reward model has seen none.</summary>
    public const string UnseenLabeller = "unseen labellers";

    private const string All = "all";

    /// <summary>One comparison: how far its better completion lies above the other in each respect.</summary>
    private readonly record struct Comparison(int Prompt, double Reward, double Length, double? Gold, float? Bag, float? SubsetBag);

    /// <summary>
    /// The rows of each subset and of all: <c>accuracy</c>; <c>bag_of_words</c>, which learnt from all training rankings, and
    /// <c>bag_of_words_of_subset</c>, from those of the subset; <c>above_bag_of_words</c>, the accuracy less that of the first, with the
    /// interval of the paired difference; <c>longer_is_better</c>; <c>labeller_ceiling</c>. Of all also <c>ece</c> and
    /// <c>length_correlation</c>.
    /// </summary>
    /// <param name="preferences">[R] ranked rows.</param>
    /// <param name="rewards">[R][K] scores of their completions.</param>
    /// <param name="bag">[R][K] scores of the bag of words; may be empty.</param>
    /// <param name="subsetBags">[R][K] scores of the bag of words of each row's subset; may be empty.</param>
    public static IReadOnlyList<RewardModelRow> Rows(
        IReadOnlyList<Row> preferences, IReadOnlyList<float[]> rewards, IReadOnlyList<float[]> bag, IReadOnlyList<float[]> subsetBags)
    {
        (string Subset, Comparison Comparison)[] comparisons =
        [
            .. preferences.SelectMany((row, r) =>
                Compare(row, r, rewards[r], bag.ElementAtOrDefault(r), subsetBags.ElementAtOrDefault(r))
                    .Select(comparison => (row.Subset, comparison))),
        ];
        if (comparisons.Length == 0)
            return [];
        Comparison[] all = [.. comparisons.Select(entry => entry.Comparison)];
        var rows = new List<RewardModelRow>(Of(All, all));
        var subsets = comparisons.GroupBy(entry => entry.Subset, StringComparer.Ordinal)
            .OrderBy(group => group.Key, StringComparer.Ordinal).ToArray();
        foreach (var subset in subsets.Length > 1 ? subsets : [])
            rows.AddRange(Of(subset.Key, [.. subset.Select(entry => entry.Comparison)]));
        double ece = RankingAccuracy.CalibrationError([.. all.Select(comparison => comparison.Reward)]);
        rows.Add(new RewardModelRow(All, "ece", ece, all.Length, 0));
        double[] scores = [.. rewards.SelectMany(row => row).Select(score => (double)score)];
        double[] lengths = [.. preferences.SelectMany(row => row.Completions).Select(completion => (double)completion.Length)];
        double r = RankingAccuracy.Correlation(scores, lengths);
        rows.Add(new RewardModelRow(All, "length_correlation", r, scores.Length, 1.96 * (1 - r * r) / Math.Sqrt(preferences.Count)));
        return rows;
    }

    /// <summary>The same figures for rankings by unseen labellers, without the baselines.</summary>
    /// <param name="preferences">[U] ranked rows.</param>
    /// <param name="rewards">[U][K] scores of their completions.</param>
    public static IEnumerable<RewardModelRow> UnseenLabellers(IReadOnlyList<Row> preferences, IReadOnlyList<float[]> rewards) =>
        preferences.Count == 0 ? [] : Of(UnseenLabeller, [.. preferences.SelectMany((row, r) => Compare(row, r, rewards[r], null, null))]);

    private static IEnumerable<RewardModelRow> Of(string subset, Comparison[] chosen)
    {
        yield return Share(subset, "accuracy", chosen, comparison => Agreement(comparison.Reward));
        if (chosen.All(comparison => comparison.Bag is not null))
        {
            yield return Share(subset, "bag_of_words", chosen, comparison => Agreement(comparison.Bag!.Value));
            yield return Difference(
                subset, "above_bag_of_words", chosen, comparison => Agreement(comparison.Reward) - Agreement(comparison.Bag!.Value));
        }

        if (subset != All && chosen.All(comparison => comparison.SubsetBag is not null))
            yield return Share(subset, "bag_of_words_of_subset", chosen, comparison => Agreement(comparison.SubsetBag!.Value));
        yield return Share(subset, "longer_is_better", chosen, comparison => Agreement(comparison.Length));
        if (chosen.All(comparison => comparison.Gold is not null))
            yield return Share(subset, "labeller_ceiling", chosen, comparison => Agreement(comparison.Gold!.Value));
    }

    private static RewardModelRow Share(string subset, string metric, Comparison[] chosen, Func<Comparison, double> agreement)
    {
        Estimate share = Estimate.OfShare(ByPrompt(chosen, agreement));
        return new RewardModelRow(subset, metric, share.Value, chosen.Length, share.Ci95);
    }

    private static RewardModelRow Difference(string subset, string metric, Comparison[] chosen, Func<Comparison, double> difference)
    {
        Estimate mean = Estimate.OfRatio(ByPrompt(chosen, difference));
        return new RewardModelRow(subset, metric, mean.Value, chosen.Length, mean.Ci95);
    }

    private static (double, double)[] ByPrompt(Comparison[] chosen, Func<Comparison, double> value) =>
        [.. chosen.GroupBy(comparison => comparison.Prompt).Select(prompt => (prompt.Sum(value), (double)prompt.Count()))];

    private static IEnumerable<Comparison> Compare(Row row, int index, float[] rewards, float[]? bag, float[]? subsetBag)
    {
        Truth? truth = Gold.TruthOf(row);
        double[]? gold = truth is null
            ? null
            : [.. row.Completions.Select(completion => Judge.Score(truth, completion, ended: true).Total)];
        RankedPairs pairs = RankedPairs.AllPairs([row.Ranks!]);
        return pairs.Better.Zip(pairs.Worse, (better, worse) => new Comparison(
            index, (double)rewards[better] - rewards[worse], row.Completions[(int)better].Length - row.Completions[(int)worse].Length,
            gold?[better] - gold?[worse], bag?[better] - bag?[worse], subsetBag?[better] - subsetBag?[worse]));
    }

    private static double Agreement(double gap) => gap > 0 ? 1 : gap < 0 ? 0 : 0.5;
}
