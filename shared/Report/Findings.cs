using Rlhf.Spec;

namespace Rlhf.Report;

/// <summary>How a figure moved between two models, judged by their 95% intervals.</summary>
public enum Change
{
    /// <summary>Above, and the intervals are disjoint.</summary>
    Higher,

    /// <summary>Below, and the intervals are disjoint.</summary>
    Lower,

    /// <summary>The intervals overlap: too little to tell.</summary>
    Unclear,
}

/// <summary>Over-optimisation as Gao 2022 describes it: past a peak the gold reward falls while the proxy goes on rising.</summary>
/// <param name="Peak">The point of the highest gold reward.</param>
/// <param name="Last">The last measured point.</param>
public sealed record OverOptimisation(CurvePoint Peak, CurvePoint Last);

/// <summary>What the figures of a report say, in words. Pure functions; they claim nothing that the intervals do not bear.</summary>
public static class Findings
{
    private static readonly string[] Hhh = ["helpful", "honest", "harmless"];
    private static readonly string[] Rewards = ["gold_reward", "proxy_reward"];

    /// <summary>One figure of the table; null where it was not measured.</summary>
    public static EvaluationRow? Find(EvaluationReport? evaluation, string model, string metric, string? subset = null) =>
        evaluation?.Table.FirstOrDefault(row => row.Model == model && row.Metric == metric && row.Subset == subset);

    /// <summary>The reward that counts: gold where a judge gave one, else proxy; null where neither was measured.</summary>
    public static string? RewardMetric(EvaluationReport? evaluation) =>
        Rewards.FirstOrDefault(metric => evaluation?.Table.Any(row => row.Metric == metric) ?? false);

    /// <summary>Whether a figure moved beyond both intervals.</summary>
    public static Change Compare(EvaluationRow before, EvaluationRow after) =>
        after.Value - after.Ci95 > before.Value + before.Ci95 ? Change.Higher
        : after.Value + after.Ci95 < before.Value - before.Ci95 ? Change.Lower
        : Change.Unclear;

    /// <summary>
    /// Over-optimisation on the curve of an online method: at the last point the gold reward is below its peak by more than the interval of
    /// the difference (the root of the squared half-widths), while the proxy is above what it was at the peak. Null when there is none,
    /// or no gold judge.
    /// </summary>
    public static OverOptimisation? FindOverOptimisation(IReadOnlyList<CurvePoint> curve)
    {
        CurvePoint[] points = [.. curve.Where(point => point.GoldReward is not null).OrderBy(point => point.Step)];
        if (points.Length < 2)
            return null;

        CurvePoint peak = points.MaxBy(point => point.GoldReward)!;
        CurvePoint last = points[^1];
        double margin = Math.Sqrt(Math.Pow(peak.GoldCi95 ?? 0, 2) + Math.Pow(last.GoldCi95 ?? 0, 2));
        return peak.GoldReward - last.GoldReward > margin && last.ProxyReward > peak.ProxyReward ? new OverOptimisation(peak, last) : null;
    }

    /// <summary>What the run came to, in a few words.</summary>
    public static string Headline(RunReport report)
    {
        if (report.State != RunStates.Succeeded)
        {
            string? stage = report.Stages.LastOrDefault(stage => stage.State is "failed" or "cancelled")?.Name;
            string where = stage is null ? string.Empty : $" in the {stage} stage";
            return report.State == RunStates.Cancelled ? $"The run was cancelled{where}" : $"The run failed{where}";
        }

        PreferenceMethod method = report.Spec.Method;
        if (RewardMetric(report.Evaluation) is not { } metric || Find(report.Evaluation, Stages.Of(method), metric) is not { } aligned)
            return Tuned(report.Evaluation, row => Number(row.Value)) ?? "The run succeeded";
        EvaluationRow? sft = Find(report.Evaluation, "sft", metric);
        return (sft is null ? Change.Unclear : Compare(sft, aligned)) switch
        {
            Change.Higher when Find(report.Evaluation, "base", metric) is { } basis && Compare(basis, aligned) == Change.Higher
                => $"Alignment raised the {Name(metric)} from {Number(basis.Value)} to {Number(aligned.Value)}",
            Change.Higher => $"{Name(method)} raised the {Name(metric)} from {Number(sft!.Value)} to {Number(aligned.Value)}",
            Change.Lower => $"{Name(method)} lowered the {Name(metric)} from {Number(sft!.Value)} to {Number(aligned.Value)}",
            _ => $"{Name(method)} changed the {Name(metric)} too little to tell",
        };
    }

    /// <summary>What a succeeded run came to, in one sentence: for <see cref="RunReport.Summary"/>.</summary>
    public static string Summary(
        PreferenceMethod method, EvaluationReport? evaluation, IReadOnlyList<CurvePoint> curve, PromotionReport? promotion)
    {
        if (RewardMetric(evaluation) is not { } metric
            || Find(evaluation, "sft", metric) is not { } sft || Find(evaluation, Stages.Of(method), metric) is not { } aligned)
        {
            string tuned = Tuned(evaluation, Figure) is { } change ? $"{change} nats per token" : "The run succeeded";
            return promotion is null ? $"{tuned}." : $"{tuned}; {Decision(promotion)}.";
        }

        string moved = Compare(sft, aligned) switch
        {
            Change.Higher => $"{Name(method)} raised the {Name(metric)} from {Figure(sft)} (SFT) to {Figure(aligned)}",
            Change.Lower => $"{Name(method)} lowered the {Name(metric)} from {Figure(sft)} (SFT) to {Figure(aligned)}",
            _ => $"{Name(method)}'s {Name(metric)} of {Figure(aligned)} does not differ from SFT's {Figure(sft)} beyond the intervals",
        };
        string over = FindOverOptimisation(curve) is { Peak: var peak }
            ? $"; over-optimisation set in after {Name(peak)} (KL {Number(peak.Kl)})"
            : string.Empty;
        return moved + over + (promotion is null ? string.Empty : $"; {Decision(promotion)}") + ".";
    }

    /// <summary>All findings, one sentence each, the evaluation's own notes last.</summary>
    public static IReadOnlyList<string> Sentences(RunReport report)
    {
        EvaluationReport? evaluation = report.Evaluation;
        PreferenceMethod method = report.Spec.Method;
        string role = Stages.Of(method), name = Name(method);
        var sentences = new List<string>();
        if (MovedScores(method, evaluation) is { } scores)
            sentences.Add(scores);
        if (RewardMetric(evaluation) is { } metric
            && Find(evaluation, role, metric) is { } aligned && Find(evaluation, "best_of_16", metric) is { } best)
        {
            string kl = Find(evaluation, "best_of_16", "kl") is { } bestKl && Find(evaluation, role, "kl") is { } ownKl
                ? $" (KL {Number(ownKl.Value)} against {Number(bestKl.Value)} nats)"
                : string.Empty;
            string against = $"{Name(metric)}: {Figure(aligned)} against {Figure(best)}{kl}";
            sentences.Add(Compare(best, aligned) switch
            {
                Change.Higher => $"{name} is above best-of-16 sampling from SFT in {against}.",
                Change.Lower => $"{name} is below best-of-16 sampling from SFT in {against}.",
                _ => $"{name} does not differ from best-of-16 sampling from SFT beyond the intervals in {against}.",
            });
        }

        if (FindOverOptimisation(report.Curve) is { Peak: var peak, Last: var last })
        {
            sentences.Add(
                $"Over-optimisation: gold reward peaked after {Name(peak)} (KL {Number(peak.Kl)} nats) "
                + $"at {Number(peak.GoldReward!.Value)}; by {Name(last)} it fell to {Number(last.GoldReward!.Value)} "
                + $"while the proxy rose from {Number(peak.ProxyReward)} to {Number(last.ProxyReward)}.");
        }
        else if (report.Curve.Count(point => point.GoldReward is not null) >= 3)
        {
            sentences.Add(
                $"No over-optimisation was seen: at {name}'s end the gold reward is not below its peak by more than the interval.");
        }

        if (AgreementOf(evaluation) is { } agreement)
            sentences.Add(agreement);
        sentences.AddRange(AboveBagOfWords(evaluation));
        foreach ((string rate, string judge) in new[] { ("win_rate", "the held-out reward model"), ("win_rate_gold", "the gold judge") })
        {
            if (Find(evaluation, role, rate) is { } wins)
            {
                string verdict = wins.Value - wins.Ci95 > 0.5 ? $"{name} beats SFT"
                    : wins.Value + wins.Ci95 < 0.5 ? $"{name} loses to SFT"
                    : $"{name} and SFT cannot be told apart";
                sentences.Add($"By {judge}, {verdict}: it wins {Percent(wins.Value)} (± {Charts.Number(100 * wins.Ci95, "0.0")}) of {wins.N} prompts.");
            }
        }

        sentences.AddRange(evaluation?.Notes ?? []);
        return sentences;
    }

    /// <summary>A metric's name for people: <c>gold_reward</c> is "gold reward", <c>kl</c> is "KL".</summary>
    public static string Name(string metric) => metric switch
    {
        "kl" => "KL",
        "ece" => "calibration error",
        "eos_rate" => "share that ends by itself",
        "held_out" => "held-out cluster",
        "bag_of_words_of_subset" => "bag of words, own subset only",
        "above_bag_of_words" => "above bag of words",
        _ => metric.Replace('_', ' '),
    };

    /// <summary>A method's name for people.</summary>
    public static string Name(PreferenceMethod method) => method.ToString().ToUpperInvariant();

    /// <summary>A point's name for people: <c>ppo 40</c> is "iteration 40", <c>dpo</c> is "DPO".</summary>
    public static string Name(CurvePoint point) => point.Label.Split(' ') switch
    {
        [Stages.Dpo, var step] => $"step {step}",
        [Stages.Ppo or Stages.Rloo or Stages.Grpo, var iteration] => $"iteration {iteration}",
        ["sft" or Stages.Ppo or Stages.Dpo or Stages.Rloo or Stages.Grpo] => point.Label.ToUpperInvariant(),
        _ => point.Label,
    };

    /// <summary>What SFT changed, in a run that ends with it; null where that was not measured or is too little to tell.</summary>
    private static string? Tuned(EvaluationReport? evaluation, Func<EvaluationRow, string> figure) =>
        Find(evaluation, "base", "loss") is { } before && Find(evaluation, "sft", "loss") is { } after
        && Compare(before, after) is (Change.Higher or Change.Lower) and var change
            ? $"SFT {(change == Change.Lower ? "lowered" : "raised")} the loss on held-out demonstrations from {figure(before)} to {figure(after)}"
            : null;

    private static string? MovedScores(PreferenceMethod method, EvaluationReport? evaluation)
    {
        (string Metric, Change Change)[] changes =
        [
            .. from metric in Hhh
               let sft = Find(evaluation, "sft", metric)
               let aligned = Find(evaluation, Stages.Of(method), metric)
               where sft is not null && aligned is not null
               select (metric, Compare(sft, aligned)),
        ];
        if (changes.Length == 0)
            return null;

        string[] parts =
        [
            .. from part in new[] { (Change.Higher, "rose"), (Change.Lower, "fell"), (Change.Unclear, "did not move") }
               let metrics = changes.Where(change => change.Change == part.Item1).Select(change => change.Metric).ToArray()
               where metrics.Length > 0
               select $"{List(metrics)} {part.Item2}",
        ];
        return $"From SFT to {Name(method)}, {string.Join("; ", parts)} beyond the 95% intervals.";
    }

    private static string? AgreementOf(EvaluationReport? evaluation)
    {
        RewardModelRow? Row(string metric) => evaluation?.RewardModel.FirstOrDefault(row => row.Subset == "all" && row.Metric == metric);
        if (Row("accuracy") is not { } accuracy)
            return null;
        string interval = Charts.Number(100 * accuracy.Ci95, "0.0");
        string ceiling = Row("labeller_ceiling") is { } top ? $", where the labellers' own noise allows {Percent(top.Value)}" : "";
        string longer = Row("longer_is_better") is { } length ? $"; 'the longer one is better' would get {Percent(length.Value)}" : "";
        return $"The reward model agrees with {Percent(accuracy.Value)} of held-out preferences (± {interval}){ceiling}{longer}.";
    }

    /// <summary>
    /// Whether the reward model is above the bag of words that learnt from the same rows: of each subset, or where there are many overall,
    /// with those that differ beyond their interval.
    /// </summary>
    private static IEnumerable<string> AboveBagOfWords(EvaluationReport? evaluation)
    {
        const int few = 4;
        RewardModelRow[] rows = [.. (evaluation?.RewardModel ?? []).Where(row => row.Metric == "above_bag_of_words")];
        RewardModelRow[] subsets = rows.Length > 1 ? [.. rows.Where(row => row.Subset != "all")] : rows;
        if (subsets.Length == 0)
            yield break;
        RewardModelRow? overall = rows.FirstOrDefault(row => row.Subset == "all");
        bool many = subsets.Length > few && overall is not null;
        RewardModelRow[] told = many ? [overall!, .. subsets.Where(row => Math.Abs(row.Value) > row.Ci95)] : subsets;
        string figures = string.Join("; ", told.Select(row => (row.Subset != "all" ? $"{row.Subset} " : many ? "overall " : "")
            + $"{(row.Value >= 0 ? "+" : "")}{Charts.Number(100 * row.Value, "0.0")} ± {Charts.Number(100 * row.Ci95, "0.0")} points"));
        string others = many && told.Length <= subsets.Length
            ? $"; {(told.Length == 1 ? "no subset differs" : "the other subsets do not differ")} beyond the interval"
            : "";
        yield return $"Against a bag of words that learnt from the same rows, the reward model’s accuracy is: {figures}{others}.";
    }

    private static string Decision(PromotionReport promotion) => $"the model was {(promotion.Promoted ? "" : "not ")}promoted";

    private static string List(string[] words) => words.Length == 1 ? words[0] : $"{string.Join(", ", words[..^1])} and {words[^1]}";

    private static string Figure(EvaluationRow row) => $"{Number(row.Value)} ± {Number(row.Ci95)}";

    private static string Percent(double share) => $"{Charts.Number(100 * share, "0.0")}%";

    private static string Number(double value) => Charts.Number(value);
}
