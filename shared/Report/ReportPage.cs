using System.Globalization;
using System.Text.Json;
using Rlhf.Spec;

namespace Rlhf.Report;

/// <summary>
/// A run's report as one HTML page for people who want to know what alignment changed: no script, no network, light and dark, printable.
/// Parts that a run did not come to are left out.
/// </summary>
public static class ReportPage
{
    private const string Greedy = "_greedy";

    private static readonly string[] AlignedModels = [.. Enum.GetValues<PreferenceMethod>().Select(Stages.Of)];
    private static readonly string[] ModelOrder = ["base", "base_few_shot", "sft", "best_of_4", "best_of_16", .. AlignedModels];
    private static readonly string[] MetricOrder = ["gold_reward", "proxy_reward", "helpful", "honest", "harmless", "held_out", "kl"];
    private static readonly string[] KeyMetrics = ["gold_reward", "helpful", "honest", "harmless", "held_out", "proxy_reward"];
    private static readonly Html Style = ReadStyle();

    /// <summary>The whole page.</summary>
    public static string Render(RunReport report)
    {
        (string Id, string Title, Html Content)[] sections =
        [
            .. new (string, string, Html)[]
            {
                ("evaluation", "Before and after", Evaluation(report.Evaluation)),
                ("curve", "Reward against distance", Curve(report)),
                ("reward-model", "The reward model", RewardModel(report.Evaluation)),
                ("wins", "Win rates", Wins(report)),
                ("language", "Held-out text", HeldOutText(report.Evaluation)),
                ("comparisons", "Comparisons", Comparisons(report.Evaluation)),
                ("refusals", "Refusals", Refusals(report.Evaluation)),
                ("samples", "Answers side by side", Samples(report)),
                ("run", "How the run went", Run(report)),
                ("data", "The data", Data(report.Data)),
                ("lineage", "What was made of what", Lineage(report)),
                ("spec", "The spec", Spec(report)),
            }.Where(section => section.Item3.ToString().Length > 0),
        ];
        return Html.Of($"""
            <!doctype html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
            <title>{Findings.Headline(report)} · {report.Spec.Name}</title>
            <style>{Style}</style>
            </head>
            <body>
            <main>
            {Header(report)}
            <nav aria-label="Sections">{sections.Select(section => Html.Of($"""<a href="#{section.Id}">{section.Title}</a>"""))}</nav>
            {KeyFigures(report)}
            {FindingsList(report)}
            {sections.Select(section => Html.Of($"""
                <section id="{section.Id}"><h2>{section.Title}</h2>
                {section.Content}
                </section>
                """))}
            </main>
            </body>
            </html>

            """).ToString();
    }

    private static Html Header(RunReport report)
    {
        TimeReport time = report.Time;
        (string Name, string? Value)[] facts =
        [
            ("Total time", Duration(time.TotalSeconds)),
            ("Trainer time", Duration(time.TrainerSeconds)),
            ("Overhead", Percent(time.Overhead)),
            ("Attempts", Charts.Number(report.Stages.Sum(stage => stage.Attempts), "0")),
            ("Cost", time.Cost > 0 ? Charts.Number(time.Cost) : null),
            ("Waited for people", time.WaitingSeconds > 0 ? Duration(time.WaitingSeconds) : null),
        ];
        string seed = report.Spec.Seed.ToString(CultureInfo.InvariantCulture);
        return Html.Of($"""
            <header>
            <p class="eyebrow">Alignment report <span>{report.Spec.Name}</span> <span>run {report.RunId}</span> <span>seed {seed}</span></p>
            <h1>{Findings.Headline(report)}</h1>
            <p class="lead">{report.Summary}</p>
            {Verdict(report)}
            <dl class="facts">{facts.Where(fact => fact.Value is not null).Select(fact => Html.Of($"""
                <div><dt>{fact.Name}</dt><dd>{fact.Value}</dd></div>
                """))}</dl>
            </header>
            """);
    }

    private static Html Verdict(RunReport report)
    {
        (string style, string word) = report switch
        {
            { State: RunStates.Failed } => ("bad", "Failed"),
            { State: RunStates.Cancelled } => ("warn", "Cancelled"),
            { Promotion: null } => ("", "No promotion decision"),
            { Promotion.Promoted: true } => ("good", "Promoted"),
            _ => ("warn", "Not promoted"),
        };
        PromotionReport? promotion = report.State == RunStates.Succeeded ? report.Promotion : null;
        string note = string.IsNullOrEmpty(promotion?.Note) ? "" : $": “{promotion.Note}”";
        Html by = promotion?.By is { } who ? Html.Of($"""<span class="by">Decided by {who}{note}</span>""") : Html.Empty;
        return Html.Of($"""
            <p class="verdict {style}"><b>{word}</b> {promotion?.Reason}{by}</p>
            """);
    }

    private static Html KeyFigures(RunReport report)
    {
        EvaluationReport? evaluation = report.Evaluation;
        string role = Stages.Of(report.Spec.Method);
        string[] metrics = [.. KeyMetrics.Where(metric => Findings.Find(evaluation, role, metric) is not null).Take(4)];
        return metrics.Length == 0 ? Html.Empty : Html.Of($"""
            <section class="tiles" aria-label="Key figures">{metrics.Select(Tile)}</section>
            """);

        Html Tile(string metric)
        {
            EvaluationRow aligned = Findings.Find(evaluation, role, metric)!;
            EvaluationRow? sft = Findings.Find(evaluation, "sft", metric);
            EvaluationRow[] rows = [.. new[] { Findings.Find(evaluation, "base", metric), sft, aligned }.OfType<EvaluationRow>()];
            string name = Findings.Name(metric);
            return Html.Of($"""
                <div class="tile">
                <h3>{Capital(name)}</h3>
                <p class="big">{Charts.Number(aligned.Value)}<span class="pm"> ± {Charts.Number(aligned.Ci95)}</span></p>
                {(sft is null ? Html.Empty : Gain(sft, aligned))}
                {Charts.Spark($"spark-{metric}", $"{name} of base, SFT and {LabelOf(role)}", [.. rows.Select(row => ToDot(row, null))])}
                <p class="path">{rows.Select((row, index) => Html.Of($"""
                    <span class="{StyleOf(row.Model)}">{(index > 0 ? "→ " : "")}{ToDot(row, null).InWords}</span>
                    """))}</p>
                </div>
                """);
        }

        static Html Gain(EvaluationRow sft, EvaluationRow aligned)
        {
            Change change = Findings.Compare(sft, aligned);
            string style = change switch { Change.Higher => "good", Change.Lower => "bad", _ => "" };
            string sign = aligned.Value >= sft.Value ? "+" : "";
            string caveat = change == Change.Unclear ? ", within the intervals" : "";
            return Html.Of($"""
                <p class="delta {style}">{sign}{Charts.Number(aligned.Value - sft.Value)} against SFT{caveat}</p>
                """);
        }
    }

    private static Html FindingsList(RunReport report)
    {
        IReadOnlyList<string> sentences = Findings.Sentences(report);
        return sentences.Count == 0 ? Html.Empty : Html.Of($"""
            <section class="findings"><h2>Findings</h2><ul>{sentences.Select(sentence => Html.Of($"<li>{sentence}</li>"))}</ul></section>
            """);
    }

    private static Html Evaluation(EvaluationReport? evaluation)
    {
        if (evaluation is not { Table.Count: > 0 })
            return Html.Empty;

        EvaluationRow[] shown = [.. evaluation.Table.Where(row => row.Subset is null && !HasSectionOfItsOwn(row.Metric))];
        if (shown.Length == 0)
            return Html.Empty;
        string[] models = [.. shown.Select(row => row.Model).Distinct().OrderBy(model => Rank(ModelOrder, Sampled(model)))];
        string[] metrics = [.. shown.Select(row => row.Metric).Distinct().OrderBy(metric => Rank(MetricOrder, metric))];
        int main = metrics.Count(MetricOrder.Contains);
        Html[] panels = [.. metrics.Select(Panel)];
        string marks = models.Any(IsGreedy) ? " Dots: sampled answers; hollow diamonds: greedy ones." : "";
        Html more = main == metrics.Length
            ? Html.Empty
            : Fold($"More metrics ({metrics.Length - main})", Html.Of($"""<div class="grid">{panels.Skip(main)}</div>"""));
        Html table = Table(["model", .. metrics.Select(Findings.Name)], models.Select(model => Html.Of($"""
            <tr><th scope="row" class="{StyleOf(Sampled(model))}">{LabelOf(model)}</th>
            {metrics.Select(metric => Findings.Find(evaluation, model, metric) is { } row ? Cell(row.Value, row.Ci95, row.N) : NoCell)}</tr>
            """)));
        return Html.Of($"""
            <p>Means over the evaluation prompts, which no stage had seen, with 95% intervals.{marks}
            Rewards and scores are better the higher they are; KL is the distance from the SFT model in nats per answer.</p>
            <div class="grid">{panels.Take(main)}</div>
            {more}{Fold("The figures as a table", table)}
            """);

        Html Panel(string metric, int index)
        {
            Dot[] dots =
            [
                .. from model in models
                   where !IsGreedy(model)
                   let row = Findings.Find(evaluation, model, metric)
                   where row is not null
                   select ToDot(row, Findings.Find(evaluation, model + Greedy, metric)?.Value),
            ];
            return dots.Length == 0 ? Html.Empty : Html.Of($"""
                <figure><figcaption>{Capital(Findings.Name(metric))}</figcaption>
                {Charts.Dots($"dots-{index}", Findings.Name(metric), dots)}</figure>
                """);
        }
    }

    private static bool HasSectionOfItsOwn(string metric) => metric is "loss" or "perplexity" or "full_refusal"
        || metric.StartsWith("comparison_", StringComparison.Ordinal) || metric.StartsWith("win_rate", StringComparison.Ordinal);

    private static Html Curve(RunReport report)
    {
        CurvePoint[] slices = [.. report.Curve.OrderBy(point => point.Step)];
        if (slices.Length == 0)
            return Html.Empty;

        string name = Findings.Name(report.Spec.Method);
        bool online = report.Spec.Online() is not null;
        IReadOnlyList<RewardSourceSpec> sources = report.Spec.Rewards;
        string scored = sources.Count == 0
            ? "the reward model’s score"
            : $"the weighted sum of {string.Join(", ", sources.Select(source => source.Weight == 1 ? Source(source) : $"{Charts.Number(source.Weight)} × {Source(source)}"))}";
        string proxy = online ? $"{scored}, which {name} is trained on" : scored;
        ILookup<bool, CurvePoint> evaluated = (report.Evaluation?.BestOfN ?? []).ToLookup(point => AlignedModels.Contains(point.Label));
        CurvePoint[] bestOfN = [.. evaluated[false]], final = [.. evaluated[true]];
        bool drawn = report.Fits.Any(fit => fit.R2 >= GaoFit.DrawnFrom);
        Html legend = Legend(
            ("slices", online ? $"{name} after each slice" : $"{name} on validation prompts"),
            ("bestofn", bestOfN.Length > 0 ? "best of n" : null),
            ("final", final.Length > 0 ? $"{name} in the final evaluation (other prompts{(online ? " and temperature" : "")})" : null),
            ("fit", drawn ? "fitted form (table below)" : null));
        CurvePoint[] points = [.. slices, .. bestOfN, .. final];
        Html table = Table(["point", "KL", "√KL", "proxy reward", "gold reward"], points.Select(point => Html.Of($"""
            <tr><th scope="row">{Findings.Name(point)}</th>
            {Cell(point.Kl, null)}{Cell(Math.Sqrt(Math.Max(0, point.Kl)), null)}
            {Cell(point.ProxyReward, point.ProxyCi95)}{(point.GoldReward is { } gold ? Cell(gold, point.GoldCi95) : NoCell)}</tr>
            """)));
        return Html.Of($"""
            <p>{name} buys reward with distance from the SFT model. The proxy is {proxy}{(points.Any(point => point.GoldReward is not null)
                ? "; gold is what it stands for. Where gold falls while the proxy goes on rising, the policy exploits the errors of its reward"
                : ". There is no judge here, so that a rise by itself does not say whether the answers are better or only exploit its errors")}
            (Gao, Schulman and Hilton 2022).</p>
            <figure class="wide">{legend}
            {Charts.RewardOverKl("curve-chart", sources.Count == 0 ? "the reward model" : "sum of the run’s rewards", slices, bestOfN, final, report.Fits, Findings.FindOverOptimisation(slices))}</figure>
            {Fits(report.Fits, name, slices, bestOfN)}
            {Fold("The points as a table", table)}
            """);

        static string Source(RewardSourceSpec source) => source.Name ?? JsonNamingPolicy.CamelCase.ConvertName(source.Source.ToString());
    }

    private static Html Fits(IReadOnlyList<GaoFit> fits, string method, CurvePoint[] slices, CurvePoint[] bestOfN)
    {
        (Pressure Pressure, string Name, string Form, CurvePoint[] Points)[] series =
            [(Pressure.Rl, method, "d (α − β log d)", slices), (Pressure.BestOfN, "best of n", "d (α − β d)", bestOfN)];
        // An offline method has one point, at its end: nothing that could be fitted.
        string not = string.Join("; ", series.Where(entry => entry.Points.Length > 1 && fits.All(fit => fit.Pressure != entry.Pressure)).Select(entry =>
            entry.Points.Length < GaoFit.LeastPoints
                ? $"{entry.Name} has {entry.Points.Length} points, and a fit takes {GaoFit.LeastPoints}"
                : $"the points of {entry.Name} are too near to each other"));
        string notFitted = not.Length == 0 ? "" : $" Not fitted: {not}.";
        if (fits.Count == 0)
            return not.Length == 0 ? Html.Empty : Html.Of($"<p>Gao’s forms are not fitted: {not}.</p>");
        Html table = Table(
            ["fit", "form", "points", "r₀", "α", "β", "peak at √KL", "residual", "R²"],
            fits.Select(fit =>
            {
                (_, string name, string form, CurvePoint[] points) = series.Single(entry => entry.Pressure == fit.Pressure);
                return Html.Of($"""
                    <tr><th scope="row">{name}, {fit.Reward}</th><td>r₀ + {form}</td><td>{fit.Points}</td>
                    {Cell(fit.Start, null)}{Cell(fit.Alpha, null)}{Cell(fit.Beta, null)}<td>{Peak(fit, points)}</td>
                    {Cell(fit.Residual, null)}{Cell(fit.R2, null)}</tr>
                    """);
            }));
        return Html.Of($"""
            <h3>Gao’s forms, fitted</h3>
            <p>d is √KL. α is what the first steps gain, β how fast the gain fades; past the peak, more optimisation costs reward. A peak
            beyond the points is extrapolated, and a fit with R² below {Charts.Number(GaoFit.DrawnFrom)} is not drawn: it explains too little.{notFitted}</p>
            {table}
            """);

        static string Peak(GaoFit fit, CurvePoint[] points) => fit.Peak is not { } peak ? "none"
            : peak > Math.Sqrt(points.Max(point => point.Kl)) ? $"{Charts.Number(peak)} (beyond the points)"
            : Charts.Number(peak);
    }

    private static Html RewardModel(EvaluationReport? evaluation)
    {
        if (evaluation is not { RewardModel.Count: > 0 })
            return Html.Empty;

        IReadOnlyList<RewardModelRow> rows = evaluation.RewardModel;
        string[] metrics = [.. rows.Select(row => row.Metric).Distinct()];
        string[] subsets = [.. rows.Select(row => row.Subset).Distinct().OrderBy(subset => subset == "all" ? "" : subset, StringComparer.Ordinal)];
        Agreement[] agreements =
        [
            .. from subset in subsets
               let accuracy = Row(subset, "accuracy")
               where accuracy is not null
               select new Agreement(
                   subset, accuracy, Row(subset, "longer_is_better")?.Value, Row(subset, "labeller_ceiling")?.Value, Row(subset, "bag_of_words")),
        ];
        Html figures = Table(["subset", .. metrics.Select(Findings.Name)], subsets.Select(subset => Html.Of($"""
            <tr><th scope="row">{subset}</th>{metrics.Select(metric => ToCell(Row(subset, metric)))}</tr>
            """)));
        Html table = Fold("The figures as a table", figures, open: agreements.Length == 0);
        if (agreements.Length == 0)
            return table;

        Html legend = Legend(
            ("rm", "reward model"),
            ("bag", metrics.Contains("bag_of_words") ? "bag of words, trained on the same rows" : null),
            ("longer", metrics.Contains("longer_is_better") ? "longer is better" : null),
            ("ceiling", metrics.Contains("labeller_ceiling") ? "labellers’ ceiling" : null));
        return Html.Of($"""
            <p>How often the reward model prefers the answer that the labellers preferred, on held-out pairs. It should beat the rule “the
            longer answer is better” and a bag of words (a Bradley-Terry model on word counts) that learnt from the same rows; the labellers’
            own noise sets the ceiling. The calibration error is the mean distance of σ(margin) from how often it is right; a length correlation
            far from 0 means that the reward pays for length.{(agreements.Any(row => row.Subset == "unseen labellers") ? " The reward model "
                + "learnt from no ranking by an unseen labeller: its accuracy there should fall by a few points at most." : "")}</p>
            <figure class="wide">{legend}{Charts.Accuracy("accuracy-chart", agreements)}</figure>
            {table}
            """);

        static Html ToCell(RewardModelRow? row) => row is null ? NoCell : Cell(row.Value, row.Ci95 > 0 ? row.Ci95 : null, row.N);

        RewardModelRow? Row(string subset, string metric) => rows.FirstOrDefault(row => row.Subset == subset && row.Metric == metric);
    }

    private static Html Wins(RunReport report)
    {
        EvaluationReport? evaluation = report.Evaluation;
        bool trainedOn = report.Spec.Online() is not null;
        (string Metric, string By)[] judges =
        [
            ("win_rate", "held-out reward model"), ("win_rate_gold", "gold judge"),
            ("win_rate_proxy", trainedOn ? "what it was trained on" : "reward model"),
        ];
        EvaluationRow[] rows = [.. Rows(evaluation, [.. judges.Select(judge => judge.Metric)])];
        Html[] lines =
        [
            .. from judge in judges
               from row in rows
               where row.Metric == judge.Metric
               select Html.Of($"""
                <tr><th scope="row" class="{StyleOf(row.Model)}">{LabelOf(row.Model)}</th><td>{judge.By}</td>
                {Cell(row.Value, row.Ci95)}<td>{row.N}</td></tr>
                """),
        ];
        return rows.Length == 0 ? Html.Empty : Html.Of($"""
            <p>How often the policy’s sampled answer beats SFT’s to the same prompt; a tie is half a win, and one half is no difference.{(trainedOn
                ? " Where what it was trained on sees more wins than a judge that it was not trained on, the policy has learnt the errors of its reward too."
                : "")}{(rows.Any(row => row.Metric == "win_rate")
                ? " The held-out reward model learnt from other preferences than the first." : "")}</p>
            {Table(["policy", "judged by", "wins against SFT", "prompts"], lines)}
            """);
    }

    private static Html HeldOutText(EvaluationReport? evaluation)
    {
        EvaluationRow[] rows = [.. Rows(evaluation, "loss")];
        return rows.Length == 0 ? Html.Empty : Html.Of($"""
            <p>How well each model predicts demonstrations that none of them learnt from: mean loss in nats per completion token, and its
            exponential, the perplexity. Lower is better. SFT should lower it; a policy that moves away from demonstrations towards reward
            raises it again.</p>
            {Table(["model", "loss", "perplexity", "tokens"], rows.Select(loss => Html.Of($"""
                <tr><th scope="row" class="{StyleOf(loss.Model)}">{LabelOf(loss.Model)}</th>{Cell(loss.Value, loss.Ci95)}
                {(Findings.Find(evaluation, loss.Model, "perplexity") is { } perplexity ? Cell(perplexity.Value, perplexity.Ci95) : NoCell)}
                <td>{loss.N}</td></tr>
                """)))}
            """);
    }

    private static Html Comparisons(EvaluationReport? evaluation)
    {
        (string Metric, string How)[] ways =
        [
            ("comparison_likelihood", "whole answer"), ("comparison_likelihood_per_token", "per token"), ("comparison_reward", "reward"),
        ];
        EvaluationRow[] rows = [.. Rows(evaluation, [.. ways.Select(way => way.Metric)])];
        string?[] subsets = [.. rows.Select(row => row.Subset).Distinct()];
        Html[] lines =
        [
            .. from way in ways
               from model in rows.Where(row => row.Metric == way.Metric).Select(row => row.Model).Distinct()
               let cells = subsets.Select(subset =>
                   Findings.Find(evaluation, model, way.Metric, subset) is { } row ? Cell(row.Value, row.Ci95 > 0 ? row.Ci95 : null) : NoCell)
               select Html.Of($"""
                <tr><th scope="row" class="{StyleOf(model)}">{LabelOf(model)}</th><td>{(IsBaseline(model) ? "–" : way.How)}</td>{cells}</tr>
                """),
        ];
        string baselines = rows.Any(row => IsBaseline(row.Model))
            ? " Chance is one over the number of answers; “majority” always picks the text, or the place in the list, that is most often the better one."
            : "";
        string reward = rows.Any(row => row.Metric == "comparison_reward") ? ", and how often the reward model scores it highest" : "";
        return rows.Length == 0 ? Html.Empty : Html.Of($"""
            <p>Answers to one prompt of which one is known to be better or right: how often a language model finds that one the likeliest{reward}.
            The likelihood of a whole answer favours short answers; per token it does not.{baselines}</p>
            {Table(["model", "by", .. subsets.Select(subset => $"{subset ?? "all"} (n {Count(subset)})")], lines)}
            """);

        static bool IsBaseline(string model) => model is "chance" or "majority";

        int Count(string? subset) => rows.First(row => row.Subset == subset).N;
    }

    private static Html Refusals(EvaluationReport? evaluation)
    {
        EvaluationRow[] rows = [.. Rows(evaluation, "full_refusal").Where(row => row.Subset is not null)];
        string[] models = [.. rows.Select(row => row.Model).Distinct()];
        string[] subsets = [.. rows.Select(row => row.Subset!).Distinct()];
        return rows.Length == 0 ? Html.Empty : Html.Of($"""
            <p>Full refusals among greedy answers to prompts labelled safe or unsafe. Refusing a safe prompt is over-refusal, answering an
            unsafe one compliance: a good model refuses none of the first and all of the second. An answer counts as a refusal when it opens
            like one (XSTest’s string match, Röttger et al. 2024); everything else counts as compliance, nonsense too.</p>
            {Figures(subsets.Where(IsLabel))}
            {(subsets.All(IsLabel) ? Html.Empty : Fold("By type", Figures(subsets.Where(subset => !IsLabel(subset)))))}
            """);

        Html Figures(IEnumerable<string> chosen) => Table(["prompts", .. models.Select(LabelOf)], chosen.Select(subset => Html.Of($"""
            <tr><th scope="row">{subset}</th>{models.Select(model => Findings.Find(evaluation, model, "full_refusal", subset) is { } row
                ? Html.Of($"""
                    <td>{Charts.Number(row.Value * row.N, "0")} of {row.N} refused
                    <span class="pm">({Charts.Number(row.Value)} ± {Charts.Number(row.Ci95)})</span></td>
                    """)
                : NoCell)}</tr>
            """)));

        static bool IsLabel(string subset) => !subset.Contains(':', StringComparison.Ordinal);
    }

    private static IEnumerable<EvaluationRow> Rows(EvaluationReport? evaluation, params string[] metrics) =>
        (evaluation?.Table ?? []).Where(row => metrics.Contains(row.Metric));

    private static Html Samples(RunReport report) => report.Evaluation is not { Samples.Count: > 0 } evaluation ? Html.Empty : Html.Of($"""
        <p>The same prompt, answered by the base model, after SFT and after {Findings.Name(report.Spec.Method)}. The figure is the judge’s
        score, or where there is no judge the proxy reward; green is above 0, red below.</p>
        {evaluation.Samples.Select(sample => Html.Of($"""
            <article class="sample">
            <p class="prompt">{sample.Prompt}</p>
            <p class="about">{sample.Subset}{(sample.Expected is null ? "" : $" · asks for: {sample.Expected}")}</p>
            <div class="answers">
            {Answer(sample, "base", sample.Base)}{Answer(sample, "sft", sample.Sft)}{Answer(sample, Stages.Of(report.Spec.Method), sample.Aligned(report.Spec.Method))}
            </div>
            </article>
            """))}
        """);

    private static Html Answer(EvaluationSample sample, string model, string text)
    {
        double? score = sample.Scores.TryGetValue(model, out double value) ? value : null;
        (string style, string mark) = score switch
        {
            > 0.05 => ("good", "▲ +"),
            < -0.05 => ("bad", "▼ "),
            _ => ("", ""),
        };
        Html verdict = score is { } given ? Html.Of($"""<span class="score">{mark}{Charts.Number(given)}</span>""") : Html.Empty;
        return Html.Of($"""
            <div class="answer {style}"><p class="who {StyleOf(model)}">{LabelOf(model)}{verdict}</p>
            <p class="text">{(string.IsNullOrWhiteSpace(text) ? Html.Of($"<i>(nothing)</i>") : Html.Of($"{text}"))}</p></div>
            """);
    }

    private static Html Run(RunReport report)
    {
        if (report.Stages.Count == 0)
            return Html.Empty;

        Span[] spans = [.. report.Stages.Where(stage => stage.State != StageStates.Skipped).Select(ToSpan)];
        Html[] failures =
        [
            .. from stage in report.Stages
               from failure in stage.Failures
               let how = $"{Words(failure.Outcome)} after {Duration(failure.Seconds)}{(failure.Reason is null ? "" : $": {failure.Reason}")}"
               select Html.Of($"<li><b>{stage.Name}</b>, attempt {failure.Fence}: {how}</li>"),
        ];
        Html[] metrics = [.. report.Stages.Where(stage => stage.Metrics.Count > 0).Select(StageMetrics)];
        return Html.Of($"""
            <figure class="wide">{Legend(("part", "a trainer works"), ("whole", "orchestration, storage, waiting"))}
            {Charts.Timeline("timeline", spans)}</figure>
            {Shares(report.Time)}
            {Table(["stage", "state", "time", "trainer", "memory", "attempts"], report.Stages.Select(stage => Html.Of($"""
                <tr><th scope="row">{stage.Name}</th><td class="{StateStyle(stage.State)}">{Words(stage.State)}</td>
                <td>{(stage.State == StageStates.Skipped ? "–" : Duration(stage.Seconds))}</td><td>{(stage.GpuSeconds > 0 ? Duration(stage.GpuSeconds) : "–")}</td>
                <td>{(stage.PeakMemoryBytes > 0 ? Charts.Number(stage.PeakMemoryBytes / 1e9, "0.0") + " GB" : "–")}</td>
                <td>{Attempts(stage)}</td></tr>
                """)))}
            {(failures.Length == 0 ? Html.Empty : Html.Of($"""<h3>Attempts that did not end well</h3><ul class="failures">{failures}</ul>"""))}
            {(metrics.Length == 0 ? Html.Empty : Fold("Metrics of each stage", Html.Of($"""<div class="columns">{metrics}</div>""")))}
            """);

        // A stage in slices has an attempt for each, if nothing goes wrong.
        static string Attempts(StageReport stage) => (stage.Attempts, stage.Attempts - stage.Failures.Count) switch
        {
            (0, _) => "–",
            ( > 1, > 1 and var slices) when stage.Failures.Count == 0 => $"{slices}, one a slice",
            ( > 1, > 1 and var slices) => $"{stage.Attempts} for {slices} slices",
            (var attempts, _) => $"{attempts}",
        };

        static Span ToSpan(StageReport stage)
        {
            string attempts = stage.Failures.Count == 0 ? "" : $", {stage.Failures.Count} of {stage.Attempts} attempts failed or were lost";
            string end = stage.State == StageStates.Succeeded ? "" : $", {Words(stage.State)}";
            string style = stage.State is StageStates.Failed or StageStates.Cancelled ? "stage failed" : "stage";
            return new Span(stage.Name, stage.Seconds, stage.GpuSeconds, Duration(stage.Seconds) + attempts + end, style);
        }

        static Html StageMetrics(StageReport stage) => Html.Of($"""
            <table class="pairs"><caption>{stage.Name}</caption><tbody>
            {stage.Metrics.OrderBy(metric => metric.Key, StringComparer.Ordinal).Select(metric => Html.Of($"""
                <tr><th scope="row">{metric.Key}</th><td>{Charts.Number(metric.Value, "0.####")}</td></tr>
                """))}</tbody></table>
            """);
    }

    private static Html Shares(TimeReport time)
    {
        double busy = time.TotalSeconds - time.WaitingSeconds;
        if (busy <= 0)
            return Html.Empty;
        string waiting = time.WaitingSeconds > 0 ? $" Another {Duration(time.WaitingSeconds)} were spent waiting for people." : "";
        return Html.Of($"""
            <p>Of {Duration(busy)}, {Duration(time.ComputeSeconds)} were computing ({Percent(time.ComputeSeconds / busy)}); the overhead of
            orchestration, storage and process starts is {Percent(time.Overhead)}.{waiting}</p>
            """);
    }

    private static Html Data(DataReport? data)
    {
        if (data is null)
            return Html.Empty;

        (string Name, string Split, int Rows)[] sets =
            [.. data.Rows.Select(set => (set.Key.Split('.')[0], set.Key.Split('.', 2)[^1], set.Value))];
        string[] splits = [.. sets.Select(set => set.Split).Distinct()];
        int dropped = data.Files.Sum(file => file.DroppedCount);
        Html files = data.Files.Count == 0
            ? Html.Of($"<p>All rows were generated.</p>")
            : Table(["file", "format", "lines", "usable rows", "dropped"], data.Files.Select(file => Html.Of($"""
                <tr><th scope="row"><span title="{file.File}">{ShortName(file.File)}</span></th><td>{file.Format}</td>
                <td>{file.Lines}</td><td>{file.Rows}</td><td>{file.DroppedCount}</td></tr>
                """)));
        Html why = dropped == 0
            ? Html.Empty
            : Fold($"Dropped rows and why ({dropped})", Html.Of($"{data.Files.Where(file => file.DroppedCount > 0).Select(Dropped)}"));
        Html rows = Table(["rows of", .. splits.Select(Spaced)], sets.GroupBy(set => set.Name).Select(set => Html.Of($"""
            <tr><th scope="row">{Spaced(set.Key)}</th>
            {splits.Select(split => Html.Of($"""
                <td>{set.Where(part => part.Split == split).Select(part => Html.Of($"{part.Rows}"))}</td>
                """))}</tr>
            """)));
        Html[] lengths = [.. data.Lengths.Where(set => set.Value.Count > 0).Select((set, index) => Html.Of($"""
            <figure><figcaption>{Capital(Spaced(set.Key))}</figcaption>
            {Charts.Histogram($"lengths-{index}", $"Lengths of {Spaced(set.Key)} in words", [.. Bins(set.Value)])}</figure>
            """))];
        return Html.Of($"""
            {files}{why}{rows}
            {Counted("Rows that occurred more than once and were kept once", data.Duplicates)}
            {Counted("Rows taken out of training because their prompt is kept for test or evaluation", data.HeldOut)}
            {(lengths.Length == 0 ? Html.Empty : Html.Of($"""<h3>Lengths in words</h3><div class="grid">{lengths}</div>"""))}
            """);

        static Html Counted(string what, IReadOnlyDictionary<string, int> counts) => counts.Values.Sum() == 0 ? Html.Empty : Html.Of($"""
            <p>{what}: {string.Join(", ", counts.Where(set => set.Value > 0).Select(set => $"{Spaced(set.Key)} {set.Value}"))}.</p>
            """);

        static Html Dropped(DataFileReport file)
        {
            string rest = file.DroppedCount > file.Dropped.Count ? $"These are the first {file.Dropped.Count} of {file.DroppedCount}." : "";
            return Html.Of($"""
                <h3>{ShortName(file.File)}</h3><table class="pairs"><tbody>
                {file.Dropped.GroupBy(row => row.Reason).OrderByDescending(group => group.Count()).Select(group => Html.Of($"""
                    <tr><th scope="row">{group.Key}</th><td>{LinesOf([.. group])}</td></tr>
                    """))}</tbody></table><p>{rest}</p>
                """);
        }

        static string LinesOf(DroppedRow[] rows)
        {
            const int shown = 8;
            string lines = string.Join(", ", rows.Take(shown).Select(row => row.Line));
            return $"line{(rows.Length > 1 ? "s" : "")} {lines}{(rows.Length > shown ? $" and {rows.Length - shown} more" : "")}";
        }

        static IEnumerable<(string, int)> Bins(IReadOnlyDictionary<string, int> histogram) =>
            from bin in histogram
            orderby double.TryParse(bin.Key, CultureInfo.InvariantCulture, out double edge) ? edge : double.MaxValue
            select (bin.Key, bin.Value);
    }

    private static Html Lineage(RunReport report)
    {
        if (report.Lineage.Count == 0 && report.Models.Count == 0)
            return Html.Empty;

        var names = new Dictionary<string, string>();
        foreach ((string role, ModelReport model) in report.Models)
            names.TryAdd(model.Sha256, $"{role} model");

        Html models = Table(["model", "SHA-256 of its weights", "where"], report.Models.Select(model => Html.Of($"""
            <tr><th scope="row">{model.Key}</th><td><code>{model.Value.Sha256}</code></td><td><code>{model.Value.Path}</code></td></tr>
            """)));
        return Html.Of($"""
            {(report.Models.Count == 0 ? Html.Empty : models)}
            <ol class="lineage">{report.Lineage.Select(entry => Html.Of($"""
                <li><b>{entry.Stage}</b> made {Thing(entry.Output)}{From(entry.Inputs)}</li>
                """))}</ol>
            """);

        Html From(IReadOnlyList<string> inputs) => inputs.Count == 0
            ? Html.Empty
            : Html.Of($" from {inputs.Select((input, index) => Html.Of($"{(index > 0 ? ", " : "")}{Thing(input)}"))}");

        Html Thing(string content)
        {
            string brief = content.Length > 24 && content.All(char.IsAsciiHexDigit) ? content[..12] : content;
            return Html.Of($"""<span title="{content}">{names.GetValueOrDefault(content)} <code>{brief}</code></span>""");
        }
    }

    private static Html Spec(RunReport report) => Fold(
        "Everything this run was asked for", Html.Of($"<pre>{JsonSerializer.Serialize(report.Spec, RlhfJson.Indented)}</pre>"));

    private static Html NoCell { get; } = Html.Of($"""<td class="none">–</td>""");

    private static Html Cell(double value, double? ci95, int? n = null)
    {
        Html interval = ci95 is { } half ? Html.Of($""" <span class="pm">± {Charts.Number(half)}</span>""") : Html.Empty;
        Html count = n is { } answers ? Html.Of($""" <span class="n">n {answers}</span>""") : Html.Empty;
        return Html.Of($"<td>{Charts.Number(value)}{interval}{count}</td>");
    }

    private static Html Table(IEnumerable<string> head, IEnumerable<Html> rows) => Html.Of($"""
        <div class="scroll"><table class="figures">
        <thead><tr>{head.Select(name => Html.Of($"""<th scope="col">{name}</th>"""))}</tr></thead>
        <tbody>{rows}</tbody></table></div>
        """);

    private static Html Fold(string summary, Html content, bool open = false) => Html.Of($"""
        <details{(open ? Html.Of($""" open="" """) : Html.Empty)}><summary>{summary}</summary>{content}</details>
        """);

    private static Html Legend(params (string Style, string? Text)[] keys) => Html.Of($"""
        <p class="legend">{keys.Where(key => key.Text is not null).Select(key => Html.Of($"""
            <span class="key {key.Style}">{key.Text}</span>
            """))}</p>
        """);

    private static Dot ToDot(EvaluationRow row, double? second) => new(LabelOf(row.Model), StyleOf(row.Model), row.Value, row.Ci95, second);

    private static bool IsGreedy(string model) => model.EndsWith(Greedy, StringComparison.Ordinal);

    private static string Sampled(string model) => IsGreedy(model) ? model[..^Greedy.Length] : model;

    private static string LabelOf(string model) => Sampled(model) switch
    {
        "base" => "base",
        "base_few_shot" => "base, few-shot",
        "sft" or "ppo" or "dpo" or "rloo" or "grpo" => Sampled(model).ToUpperInvariant(),
        "reward" => "reward model",
        var other => other.Replace('_', ' '),
    } + (IsGreedy(model) ? ", greedy" : "");

    private static string StyleOf(string model) => model switch
    {
        "base" or "base_few_shot" or "sft" => $"m-{model.Replace('_', '-')}",
        _ when AlignedModels.Contains(model) => "m-aligned",
        _ when model.StartsWith("best_of_", StringComparison.Ordinal) => "m-best-of",
        _ => "m-other",
    };

    private static int Rank(string[] order, string name) => Array.IndexOf(order, name) is >= 0 and var place ? place : order.Length;

    private static string ShortName(string path) => path[(path.LastIndexOf('/') + 1)..];

    private static string Capital(string text) => text.Length == 0 ? text : char.ToUpperInvariant(text[0]) + text[1..];

    /// <summary>A data set's name as words: <c>unseenLabellers</c> is "unseen labellers".</summary>
    private static string Spaced(string name) =>
        string.Concat(name.Select(letter => char.IsAsciiLetterUpper(letter) ? $" {char.ToLowerInvariant(letter)}" : $"{letter}"));

    private static string StateStyle(string state) => state switch
    {
        StageStates.Succeeded => "good",
        StageStates.Failed => "bad",
        StageStates.StoppedByGuard => "warn",
        _ => "",
    };

    private static string Words(string state) => state switch
    {
        StageStates.StoppedByGuard => "stopped by the guard",
        "startTimeout" => "nobody claimed it",
        _ => state,
    };

    private static string Percent(double share) => Charts.Number(100 * share, "0.0") + "%";

    private static string Duration(double seconds)
    {
        if (seconds < 59.95)
            return $"{Charts.Number(seconds, "0.0")} s";
        var time = TimeSpan.FromSeconds(Math.Round(seconds));
        return time.TotalHours < 1 ? $"{time.Minutes} min {time.Seconds:00} s" : $"{(int)time.TotalHours} h {time.Minutes:00} min";
    }

    private static Html ReadStyle()
    {
        using Stream stream = typeof(ReportPage).Assembly.GetManifestResourceStream("ReportPage.css")!;
        using var reader = new StreamReader(stream);
        return Html.Trusted(reader.ReadToEnd());
    }
}
