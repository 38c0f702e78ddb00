using System.Globalization;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.World;

namespace Rlhf.Trainer.Evaluation;

/// <summary>From answers to the report's figures. Prompts of the held-out cluster count only towards <c>held_out</c>.</summary>
internal static class EvaluationTable
{
    /// <summary>The roles of the language models, in the order of the report.</summary>
    public static IReadOnlyList<string> LanguageModels(PreferenceMethod method) => [ModelRoles.Base, ModelRoles.Sft, Stages.Of(method)];

    /// <summary>An answer with its prompt and, in the sample world, the judge's verdict.</summary>
    private sealed record Judged(Row Row, Truth? Truth, Answer Answer, GoldScore? Gold);

    /// <summary>Builds the report.</summary>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="method">The method that aligned the model.</param>
    /// <param name="data">What was evaluated on.</param>
    /// <param name="results">What all steps found.</param>
    public static EvaluationReport Build(EvaluateSpec spec, PreferenceMethod method, EvaluationData data, EvaluationResults results)
    {
        IReadOnlyList<Row> prompts = data.Prompts;
        string aligned = Stages.Of(method);
        Truth?[] truths = [.. prompts.Select(Gold.TruthOf)];
        // By prompt, the draws of a set.
        SortedDictionary<string, Judged[][]> judged = new(StringComparer.Ordinal);
        foreach ((string set, List<Answer> made) in results.Answers)
        {
            int draws = made.Count / Math.Max(1, prompts.Count);
            judged[set] =
            [
                .. prompts.Select((row, i) => Enumerable.Range(0, draws)
                    .Select(draw => Judge(row, truths[i], made[draw * prompts.Count + i])).ToArray()),
            ];
        }

        var table = new List<EvaluationRow>();
        foreach (string set in (string[])["base", "base_greedy", "base_few_shot", "base_few_shot_greedy", "sft", "sft_greedy"])
        {
            if (judged.TryGetValue(set, out Judged[][]? given))
                table.AddRange(Rows(set, [.. given.Select(draws => draws[0])]));
        }

        // Without a reward model nobody has answered.
        Judged[][] sft = judged.GetValueOrDefault("sft", []);
        foreach (int n in spec.BestOf.Where(n => n > 1 && sft.Length > 0).Distinct().Order())
            table.AddRange(BestOf(n, sft));
        foreach (string set in (string[])[aligned, aligned + "_greedy"])
        {
            if (judged.TryGetValue(set, out Judged[][]? given))
                table.AddRange(Rows(set, [.. given.Select(draws => draws[0])]));
        }

        foreach (string role in LanguageModels(method))
        {
            table.AddRange(HeldOutLoss.Rows(role, results.Demonstrations.GetValueOrDefault(role, [])));
            table.AddRange(Comparisons.OfLanguageModel(role, data.Comparisons, results.ComparisonLikelihoods.GetValueOrDefault(role, [])));
            table.AddRange(Refusals.Rows(role, data.Safety, results.SafetyAnswers.GetValueOrDefault(role, [])));
        }

        table.AddRange(Comparisons.Baselines(data.Comparisons));
        table.AddRange(Comparisons.OfRewardModel(ModelRoles.Reward, data.Comparisons, results.Comparisons));
        if (judged.TryGetValue(aligned, out Judged[][]? policy))
            table.AddRange(WinRates(aligned, [.. policy.Select(draws => draws[0])], [.. sft.Select(draws => draws[0])]));
        IReadOnlyList<CurvePoint> curve = Curve(spec, sft, aligned, judged.GetValueOrDefault(aligned));
        return new EvaluationReport
        {
            Table = table,
            Samples = Samples(spec.Samples, method, judged),
            RewardModel =
            [
                .. RewardAgreement.Rows(data.Preferences, results.Rewards, results.BagOfWords, results.BagOfWordsBySubset),
                .. RewardAgreement.UnseenLabellers(data.UnseenLabellers, results.UnseenLabellers), .. GoldCorrelation(sft),
            ],
            BestOfN = curve,
            Notes = [.. Notes([.. curve.Where(point => point.Label != aligned)]), .. Comparisons.Notes(table)],
        };
    }

    private static Judged Judge(Row row, Truth? truth, Answer answer) =>
        new(row, truth, answer, truth is null ? null : World.Judge.Score(truth, answer.Text, answer.Ended));

    private static bool IsHeldOut(Judged answer) => answer.Truth is not null && answer.Row.Subset == SampleWorld.HeldOutCluster;

    /// <summary>The rows of one way of answering, one answer to each prompt.</summary>
    private static IEnumerable<EvaluationRow> Rows(string model, IReadOnlyList<Judged> answers)
    {
        Judged[] main = [.. answers.Where(answer => !IsHeldOut(answer))];
        if (main.Length == 0)
            yield break;
        foreach (EvaluationRow row in GoldRows(model, main))
            yield return row;
        if (answers.Any(IsHeldOut))
            yield return Row(model, "held_out", Estimate.OfMean([.. answers.Where(IsHeldOut).Select(answer => answer.Gold!.Value.Total)]));
        yield return Row(model, "proxy_reward", Estimate.OfMean([.. main.Select(answer => answer.Answer.Proxy)]));
        if (model == ModelRoles.Sft)
            yield return new EvaluationRow(model, "kl", 0, main.Length, 0);
        else if (main.All(answer => answer.Answer.Kl is not null))
            yield return Row(model, "kl", Estimate.OfMean([.. main.Select(answer => answer.Answer.Kl!.Value)]));
        yield return Row(model, "response_length", Estimate.OfMean([.. main.Select(answer => (double)answer.Answer.Tokens)]));
        yield return Row(model, "eos_rate", Estimate.OfRate(main.Count(answer => answer.Answer.Ended), main.Length));
    }

    private static IEnumerable<EvaluationRow> GoldRows(string model, IReadOnlyList<Judged> main)
    {
        (Truth Truth, GoldScore Score)[] rows =
            [.. main.Where(answer => answer.Truth is not null).Select(answer => (answer.Truth!, answer.Gold!.Value))];
        if (rows.Length == 0)
            return [];
        HhhScores scores = HhhScores.From(rows);
        return
        [
            .. new (string Metric, Estimate Estimate)[]
            {
                ("gold_reward", scores.Gold), ("helpful", scores.Helpful), ("honest", scores.Honest), ("harmless", scores.Harmless),
                ("not_knowing_when_missing", scores.NotKnowingWhenMissing), ("answering_when_knowable", scores.AnsweringWhenKnowable),
                ("refusing_harmful", scores.RefusingHarmful), ("answering_look_alikes", scores.AnsweringLookAlikes),
            }.Where(entry => double.IsFinite(entry.Estimate.Value)).Select(entry => Row(model, entry.Metric, entry.Estimate)),
        ];
    }

    /// <summary>
    /// Best of n. Rewards and lengths are the unbiased expectation over all draws of a prompt; helpful, honest and harmless, which count
    /// outcomes, take the best of the first n draws.
    /// </summary>
    private static IEnumerable<EvaluationRow> BestOf(int n, Judged[][] draws)
    {
        string model = $"best_of_{n}";
        Judged[] best = [.. draws.Select(given => given.Take(n).MaxBy(answer => answer.Answer.Proxy)!)];
        foreach (EvaluationRow row in Rows(model, best))
        {
            Func<Judged, double>? value = row.Metric switch
            {
                "gold_reward" or "held_out" => answer => answer.Gold!.Value.Total,
                "proxy_reward" => answer => answer.Answer.Proxy,
                "response_length" => answer => answer.Answer.Tokens,
                "eos_rate" => answer => answer.Answer.Ended ? 1 : 0,
                _ => null,
            };
            yield return value is null ? row : Row(model, row.Metric, Expectation(n, draws, value, heldOut: row.Metric == "held_out"));
        }

        yield return new EvaluationRow(model, "kl", BestOfN.Kl(n), best.Length, 0);
    }

    private static Estimate Expectation(int n, Judged[][] draws, Func<Judged, double> value, bool heldOut = false) => Estimate.OfMean(
    [
        .. draws.Where(given => IsHeldOut(given[0]) == heldOut).Select(given =>
            BestOfN.Expectation([.. given.Select(answer => answer.Answer.Proxy)], [.. given.Select(value)], n)),
    ]);

    /// <summary>
    /// The share of prompts at which a policy's sampled answer beats SFT's, drawn with the same random numbers: by the reward model it was
    /// trained against, by the held-out one, and by the judge where there is one.
    /// </summary>
    private static IEnumerable<EvaluationRow> WinRates(string model, Judged[] policy, Judged[] sft)
    {
        (Judged Policy, Judged Sft)[] pairs = [.. policy.Zip(sft).Where(pair => !IsHeldOut(pair.First))];
        return
        [
            .. WinRateBy("win_rate_proxy", answer => answer.Answer.Proxy),
            .. WinRateBy("win_rate", answer => answer.Answer.HeldOut),
            .. WinRateBy("win_rate_gold", answer => answer.Gold?.Total),
        ];

        IEnumerable<EvaluationRow> WinRateBy(string metric, Func<Judged, double?> score)
        {
            (double Policy, double Sft)[] scored =
            [
                .. pairs.Select(pair => (Policy: score(pair.Policy), Sft: score(pair.Sft)))
                    .Where(pair => pair is { Policy: not null, Sft: not null }).Select(pair => (pair.Policy!.Value, pair.Sft!.Value)),
            ];
            return scored.Length == 0
                ? []
                : [Row(model, metric, WinRate.Of([.. scored.Select(pair => pair.Policy)], [.. scored.Select(pair => pair.Sft)]))];
        }
    }

    /// <summary>SFT, best of 2, 4, 8, ... and the aligned model in the plane of KL and rewards.</summary>
    private static List<CurvePoint> Curve(EvaluateSpec spec, Judged[][] sft, string aligned, Judged[][]? answers)
    {
        int drawn = sft.Length == 0 ? 0 : sft[0].Length;
        bool hasGold = sft.Any(given => given[0].Truth is not null && !IsHeldOut(given[0]));
        var points = new List<CurvePoint>();
        foreach (int n in Enumerable.Range(0, 20).Select(power => 1 << power).Concat(spec.BestOf).Where(n => n <= drawn).Distinct().Order())
        {
            points.Add(Point(
                n == 1 ? "sft" : $"best of {n}", BestOfN.Kl(n), Expectation(n, sft, answer => answer.Answer.Proxy),
                hasGold ? Expectation(n, sft, answer => answer.Gold!.Value.Total) : null));
        }

        Judged[] last = [.. (answers ?? []).Select(given => given[0]).Where(answer => !IsHeldOut(answer))];
        if (last.Length > 0)
        {
            points.Add(Point(
                aligned, last.Average(answer => answer.Answer.Kl!.Value), Estimate.OfMean([.. last.Select(answer => answer.Answer.Proxy)]),
                hasGold ? Estimate.OfMean([.. last.Select(answer => answer.Gold!.Value.Total)]) : null));
        }

        return points;

        static CurvePoint Point(string label, double kl, Estimate proxy, Estimate? gold) =>
            new(label, 0, kl, proxy.Value, gold?.Value) { ProxyCi95 = proxy.Ci95, GoldCi95 = gold?.Ci95 };
    }

    /// <summary>
    /// Pearson's correlation of reward model and judge over all SFT draws. The interval counts prompts, not draws, which are not
    /// independent: 1.96 (1 - r²) / sqrt(prompts).
    /// </summary>
    private static IEnumerable<RewardModelRow> GoldCorrelation(Judged[][] sft)
    {
        Judged[][] main = [.. sft.Where(given => given[0].Truth is not null && !IsHeldOut(given[0]))];
        Judged[] all = [.. main.SelectMany(given => given)];
        if (all.Length == 0)
            yield break;
        double r = RankingAccuracy.Correlation(
            [.. all.Select(answer => answer.Answer.Proxy)], [.. all.Select(answer => answer.Gold!.Value.Total)]);
        yield return new RewardModelRow("all", "gold_correlation", r, all.Length, 1.96 * (1 - r * r) / Math.Sqrt(main.Length));
    }

    /// <summary>Prompts with the sampled answers side by side, from every subset in turn.</summary>
    private static List<EvaluationSample> Samples(int count, PreferenceMethod method, SortedDictionary<string, Judged[][]> judged)
    {
        Judged[][] sft = judged.GetValueOrDefault("sft", []);
        string aligned = Stages.Of(method);
        IEnumerable<int> chosen = Enumerable.Range(0, sft.Length)
            .GroupBy(i => sft[i][0].Row.Subset, StringComparer.Ordinal)
            .SelectMany(subset => subset.Select((i, place) => (i, place)))
            .OrderBy(entry => entry.place).ThenBy(entry => entry.i)
            .Take(count).Select(entry => entry.i);
        return
        [
            .. chosen.Select(i => new EvaluationSample(
                PromptText(sft[i][0].Row), Text("base", i), Text("sft", i))
            {
                Subset = sft[i][0].Row.Subset,
                Expected = sft[i][0].Truth is { } truth ? Expected(truth) : null,
                Scores = judged.Where(set => set.Key is "base" or "sft" || set.Key == aligned)
                    .ToDictionary(set => set.Key, set => set.Value[i][0] is var answer ? answer.Gold?.Total ?? answer.Answer.Proxy : 0),
            }.WithAligned(method, Text(aligned, i))),
        ];

        string Text(string set, int i) => judged.TryGetValue(set, out Judged[][]? given) ? given[i][0].Answer.Text : "";
    }

    private static string PromptText(Row row) => row.Prompt.Count == 1
        ? row.Prompt[0].Content
        : string.Join("\n", row.Prompt.Select(turn => $"{turn.Role}: {turn.Content}"));

    private static string Expected(Truth truth) => truth.Demand switch
    {
        Demand.Missing => "says that it does not know",
        Demand.Harmful => "refuses",
        _ when truth.Count > 1 => $"{truth.Count} of: {string.Join(", ", truth.Answers)}",
        _ => string.Join(", ", truth.Answers),
    };

    /// <summary>Says it in words where picking by the reward model has begun to pick worse answers (Gao et al. 2022).</summary>
    private static List<string> Notes(IReadOnlyList<CurvePoint> bestOfN)
    {
        CurvePoint[] bestOf = [.. bestOfN.Where(point => point.GoldReward is not null)];
        if (bestOf.Length < 2)
            return [];
        CurvePoint peak = bestOf.MaxBy(point => point.GoldReward)!, last = bestOf[^1];
        return last.GoldReward + last.GoldCi95 < peak.GoldReward
            ?
            [
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"Best-of-n over-optimises the reward model: gold reward peaks at {peak.Label} ({peak.GoldReward:0.00}) and falls to ")
                + string.Create(CultureInfo.InvariantCulture, $"{last.GoldReward:0.00} at {last.Label}, while the reward model's score rises."),
            ]
            : [];
    }

    private static EvaluationRow Row(string model, string metric, Estimate estimate) =>
        new(model, metric, estimate.Value, estimate.N, estimate.Ci95);
}
