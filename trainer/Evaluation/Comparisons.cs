using System.Globalization;
using Rlhf.Jobs;
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
    private const string LikelihoodMetric = "comparison_likelihood";

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
        .. Rows(model, LikelihoodMetric, comparisons, [.. likelihoods.Select(row => row.Select(answer => answer.LogProb).ToArray())]),
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

    /// <summary>
    /// What no reading is worth: <c>chance</c> picks blindly, <c>majority</c> knows how the best answers are distributed and always picks
    /// the text, or the place in the list, that is most often best among the comparisons of the same subset.
    /// </summary>
    /// <param name="comparisons">[C] ranked answers.</param>
    public static IEnumerable<EvaluationRow> Baselines(IReadOnlyList<Row> comparisons)
    {
        double[][] alike = [.. comparisons.Select(row => new double[row.Completions.Count])];
        var picked = new Dictionary<string, Func<Row, int, bool>>(StringComparer.Ordinal);
        foreach (var subset in comparisons.GroupBy(row => row.Subset))
        {
            (Row Row, int Best)[] best = [.. subset.Select(row => (row, row.Ranks!.ToList().IndexOf(row.Ranks!.Min())))];
            var text = best.GroupBy(entry => entry.Row.Completions[entry.Best], StringComparer.Ordinal)
                .OrderByDescending(group => group.Count()).ThenBy(group => group.Key, StringComparer.Ordinal).First();
            var place = best.GroupBy(entry => entry.Best).OrderByDescending(group => group.Count()).ThenBy(group => group.Key).First();
            // Where it is always the same place, that is how the file lists its pairs and no trait of the answers.
            picked[subset.Key] = text.Count() > place.Count() || place.Count() == best.Length
                ? (row, answer) => row.Completions[answer] == text.Key
                : (_, answer) => answer == place.Key;
        }

        return
        [
            // Not measured but known: it has no interval.
            .. Rows("chance", LikelihoodMetric, comparisons, alike).Select(row => row with { Ci95 = 0 }),
            .. Rows(
                "majority", LikelihoodMetric, comparisons,
                [.. comparisons.Select(row => row.Completions.Select((_, i) => picked[row.Subset](row, i) ? 1.0 : 0).ToArray())]),
        ];
    }

    /// <summary>
    /// What instruction tuning changed on each subset that is large enough to tell, and where none is on all comparisons, in words that
    /// claim no more than the intervals bear.
    /// </summary>
    /// <param name="table">The report's figures.</param>
    public static IEnumerable<string> Notes(IReadOnlyList<EvaluationRow> table)
    {
        const int enough = 50;
        EvaluationRow[] tuned = [.. table.Where(row => row is { Model: ModelRoles.Sft, Metric: LikelihoodMetric })];
        EvaluationRow[] large = [.. tuned.Where(row => row.Subset is not null && row.N >= enough)];
        foreach (EvaluationRow sft in large.Length > 0 ? large : [.. tuned.Where(row => row.Subset is null)])
        {
            if (Of(ModelRoles.Base) is not { } before || Of("chance") is not { } chance)
                continue;
            string moved = Findings.Compare(before, sft) switch
            {
                Change.Higher => "rose",
                Change.Lower => "fell",
                _ => "did not move beyond the intervals",
            };
            yield return string.Create(
                CultureInfo.InvariantCulture,
                $"The likeliest answer is the best one ({sft.Subset ?? "all comparisons"}): from base to SFT this {moved}, ")
                + string.Create(
                    CultureInfo.InvariantCulture,
                    $"{before.Value:0.000} ± {before.Ci95:0.000} to {sft.Value:0.000} ± {sft.Ci95:0.000}; chance is {chance.Value:0.000}.");

            EvaluationRow? Of(string model) =>
                table.FirstOrDefault(row => row.Model == model && row.Metric == LikelihoodMetric && row.Subset == sft.Subset);
        }
    }

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
