using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.World;

namespace Rlhf.Trainer.Evaluation;

/// <summary>
/// Comparisons with a known better answer, such as helpful, honest and harmless ones (Askell et al. 2021): how often a language model
/// finds the better one likelier, and the reward model scores it higher. Of several best or tied answers each gets its share.
/// </summary>
internal static class Comparisons
{
    /// <summary>
    /// One language model: <c>comparison_likelihood</c> compares the log-probability of whole answers, which favours short ones;
    /// <c>comparison_likelihood_per_token</c> divides it by the answer's tokens.
    /// </summary>
    /// <param name="model">The model's name in the report.</param>
    /// <param name="comparisons">[C] ranked answers.</param>
    /// <param name="likelihoods">[C][K] their likelihoods.</param>
    public static IEnumerable<EvaluationRow> OfLanguageModel(
        string model, IReadOnlyList<Row> comparisons, IReadOnlyList<CompletionLikelihood[]> likelihoods) =>
    [
        .. Rows(model, "comparison_likelihood", comparisons, [.. likelihoods.Select(row => row.Select(answer => answer.LogProb).ToArray())]),
        .. Rows(
            model, "comparison_likelihood_per_token", comparisons,
            [.. likelihoods.Select(row => row.Select(answer => answer.PerToken).ToArray())]),
    ];

    /// <summary>The reward model: <c>comparison_reward</c>.</summary>
    /// <param name="model">The model's name in the report.</param>
    /// <param name="comparisons">[C] ranked answers.</param>
    /// <param name="rewards">[C][K] their scores.</param>
    public static IEnumerable<EvaluationRow> OfRewardModel(
        string model, IReadOnlyList<Row> comparisons, IReadOnlyList<float[]> rewards) =>
        Rows(model, "comparison_reward", comparisons, [.. rewards.Select(row => row.Select(reward => (double)reward).ToArray())]);

    /// <summary>The figure over all comparisons, then by subset where there are several.</summary>
    private static IEnumerable<EvaluationRow> Rows(
        string model, string metric, IReadOnlyList<Row> comparisons, IReadOnlyList<double[]> scores)
    {
        (string Subset, double Hit)[] all = [.. comparisons.Zip(scores, (row, given) => (row.Subset, Hit(row.Ranks!, given)))];
        if (all.Length == 0)
            yield break;
        yield return Row(null, [.. all.Select(entry => entry.Hit)]);
        var subsets = all.GroupBy(entry => entry.Subset, entry => entry.Hit).OrderBy(group => group.Key, StringComparer.Ordinal).ToArray();
        foreach (var subset in subsets.Length > 1 ? subsets : [])
            yield return Row(subset.Key, [.. subset]);

        EvaluationRow Row(string? subset, double[] hits)
        {
            Estimate share = Estimate.OfShare([.. hits.Select(hit => (hit, 1.0))]);
            return new EvaluationRow(model, metric, share.Value, share.N, share.Ci95) { Subset = subset };
        }
    }

    /// <summary>1 when a best-ranked answer has the highest score alone; where several share the highest score, the best ones' part.</summary>
    private static double Hit(IReadOnlyList<int> ranks, double[] scores)
    {
        double highest = scores.Max();
        int[] chosen = [.. Enumerable.Range(0, scores.Length).Where(i => scores[i] == highest)];
        return chosen.Count(i => ranks[i] == ranks.Min()) / (double)chosen.Length;
    }
}
