using System.Text.Json;
using Rlhf.Jobs;

namespace Rlhf.Report;

/// <summary>
/// A run's report as one HTML page for people who want to know what alignment changed: no script, no network, light and dark, printable.
/// Parts that a run did not come to are left out.
/// </summary>
public static class ReportPage
{
    private static readonly string[] ModelOrder = ["base", "base_few_shot", "sft", "best_of_4", "best_of_16", "ppo"];
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
                ("samples", "Answers side by side", Samples(report.Evaluation)),
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
            {KeyFigures(report.Evaluation)}
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

    private static Html Header(RunReport report) => Html.Of($"""
        <header>
        <p class="eyebrow">Alignment report <span>{report.Spec.Name}</span> <span>run {report.RunId}</span> <span>seed {report.Spec.Seed.ToString(System.Globalization.CultureInfo.InvariantCulture)}</span></p>
        <h1>{Findings.Headline(report)}</h1>
        <p class="lead">{report.Summary}</p>
        {Verdict(report)}
        <dl class="facts">
        {Fact("Total time", Duration(report.Time.TotalSeconds))}
        {Fact("Trainer time", Duration(report.Time.TrainerSeconds))}
        {Fact("Overhead", Percent(report.Time.Overhead))}
        {Fact("Attempts", Charts.Number(report.Stages.Sum(stage => stage.Attempts), "0"))}
        {(report.Time.Cost > 0 ? Fact("Cost", Charts.Number(report.Time.Cost)) : Html.Empty)}
        {(report.Time.WaitingSeconds > 0 ? Fact("Waited for people", Duration(report.Time.WaitingSeconds)) : Html.Empty)}
        </dl>
        </header>
        """);

    private static Html Fact(string name, string value) => Html.Of($"<div><dt>{name}</dt><dd>{value}</dd></div>");

    private static Html Verdict(RunReport report) => report switch
    {
        { State: RunStates.Failed } => Html.Of($"""<p class="verdict bad"><b>Failed</b></p>"""),
        { State: RunStates.Cancelled } => Html.Of($"""<p class="verdict warn"><b>Cancelled</b></p>"""),
        { Promotion: null } => Html.Of($"""<p class="verdict"><b>No promotion decision</b></p>"""),
        { Promotion: { } promotion } => Html.Of($"""
            <p class="verdict {(promotion.Promoted ? "good" : "warn")}"><b>{(promotion.Promoted ? "Promoted" : "Not promoted")}</b> {promotion.Reason}
            {(promotion.By is null ? Html.Empty : Html.Of($"""<span class="by">Decided by {promotion.By}{(string.IsNullOrEmpty(promotion.Note) ? "" : $": “{promotion.Note}”")}</span>"""))}</p>
            """),
    };

    private static Html KeyFigures(EvaluationReport? evaluation)
    {
        string[] metrics = [.. KeyMetrics.Where(metric => Findings.Find(evaluation, "ppo", metric) is not null).Take(4)];
        return metrics.Length == 0 ? Html.Empty : Html.Of($"""
            <section class="tiles" aria-label="Key figures">{metrics.Select(Tile)}</section>
            """);

        Html Tile(string metric)
        {
            EvaluationRow ppo = Findings.Find(evaluation, "ppo", metric)!;
            EvaluationRow? sft = Findings.Find(evaluation, "sft", metric);
            EvaluationRow? basis = Findings.Find(evaluation, "base", metric);
            EvaluationRow[] rows = [.. new[] { basis, sft, ppo }.OfType<EvaluationRow>()];
            Change? change = sft is null ? null : Findings.Compare(sft, ppo);
            string delta = sft is null ? "" : $"{(ppo.Value >= sft.Value ? "+" : "")}{Charts.Number(ppo.Value - sft.Value)} against SFT";
            return Html.Of($"""
                <div class="tile">
                <h3>{Capital(Findings.Name(metric))}</h3>
                <p class="big">{Charts.Number(ppo.Value)}<span class="pm"> ± {Charts.Number(ppo.Ci95)}</span></p>
                <p class="delta {(change switch { Change.Higher => "good", Change.Lower => "bad", _ => "" })}">{delta}{(change == Change.Unclear ? ", within the intervals" : "")}</p>
                {Charts.Spark($"spark-{metric}", $"{Findings.Name(metric)} of base, SFT and PPO", [.. rows.Select(row => ToDot(row, null))])}
                <p class="path">{rows.Select((row, index) => Html.Of($"""<span class="{StyleOf(row.Model)}">{(index > 0 ? "→ " : "")}{LabelOf(row.Model)} {Charts.Number(row.Value)} ± {Charts.Number(row.Ci95)}</span> """))}</p>
                </div>
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

        string[] models = [.. evaluation.Table.Select(row => row.Model).Where(model => !IsGreedy(model)).Distinct().OrderBy(model => Rank(ModelOrder, model))];
        string[] metrics = [.. evaluation.Table.Select(row => row.Metric).Distinct().OrderBy(metric => Rank(MetricOrder, metric))];
        bool greedy = evaluation.Table.Any(row => IsGreedy(row.Model));
        string[] main = [.. metrics.Where(MetricOrder.Contains)];
        return Html.Of($"""
            <p>Means over the evaluation prompts, which no stage had seen, with 95% intervals.{(greedy ? " Dots: sampled answers; hollow diamonds: greedy ones." : "")}
            Rewards and scores are better the higher they are; KL is the distance from the SFT model in nats per answer.</p>
            <div class="grid">{main.Select((metric, index) => Panel(metric, index))}</div>
            {(main.Length == metrics.Length ? Html.Empty : Html.Of($"""
                <details><summary>More metrics ({metrics.Length - main.Length})</summary>
                <div class="grid">{metrics.Skip(main.Length).Select((metric, index) => Panel(metric, main.Length + index))}</div></details>
                """))}
            <details><summary>The figures as a table</summary>
            <div class="scroll"><table class="figures"><thead><tr><th scope="col">model</th>{metrics.Select(metric => Html.Of($"""<th scope="col">{Findings.Name(metric)}</th>"""))}</tr></thead>
            <tbody>{evaluation.Table.Select(row => row.Model).Distinct().OrderBy(model => Rank(ModelOrder, Sampled(model))).Select(model => Html.Of($"""
                <tr><th scope="row" class="{StyleOf(Sampled(model))}">{LabelOf(model)}</th>{metrics.Select(metric => Cell(Findings.Find(evaluation, model, metric)))}</tr>
                """))}</tbody></table></div></details>
            """);

        Html Panel(string metric, int index) => Html.Of($"""
            <figure><figcaption>{Capital(Findings.Name(metric))}</figcaption>
            {Charts.Dots($"dots-{index}", Findings.Name(metric), [.. Rows(metric)])}</figure>
            """);

        IEnumerable<Dot> Rows(string metric) =>
            from model in models
            let row = Findings.Find(evaluation, model, metric)
            where row is not null
            select ToDot(row, Findings.Find(evaluation, model + "_greedy", metric)?.Value);

        static Html Cell(EvaluationRow? row) => row is null
            ? Html.Of($"""<td class="none">–</td>""")
            : Html.Of($"""<td>{Charts.Number(row.Value)} <span class="pm">± {Charts.Number(row.Ci95)}</span> <span class="n">n {row.N}</span></td>""");
    }

    private static Html Curve(RunReport report)
    {
        ILookup<bool, CurvePoint> evaluated = (report.Evaluation?.BestOfN ?? []).ToLookup(point => point.Label == "ppo");
        CurvePoint[] bestOfN = [.. evaluated[false]], final = [.. evaluated[true]];
        CurvePoint[] ppo = [.. report.Curve.OrderBy(point => point.Step)];
        if (ppo.Length == 0)
            return Html.Empty;

        OverOptimisation? over = Findings.FindOverOptimisation(ppo);
        GaoFit? fit = Findings.Fit(ppo) is { R2: >= 0.7 } good ? good : null;
        return Html.Of($"""
            <p>PPO buys reward with distance from the SFT model. The proxy is what PPO is trained on; gold is what it stands for. Where gold
            falls while the proxy goes on rising, the policy exploits the reward model's errors (Gao, Schulman and Hilton 2022).</p>
            <figure class="wide">
            <p class="legend"><span class="key slices">PPO after each slice</span>{(bestOfN.Length > 0 ? Html.Of($"""<span class="key bestofn">best of n</span>""") : Html.Empty)}
            {(final.Length > 0 ? Html.Of($"""<span class="key final">PPO in the final evaluation (other prompts and temperature)</span>""") : Html.Empty)}
            {(fit is null ? Html.Empty : Html.Of($"""<span class="key fit">r₀ + d (α − β log d): α {Charts.Number(fit.Alpha)}, β {Charts.Number(fit.Beta)}, R² {Charts.Number(fit.R2)}</span>"""))}</p>
            {Charts.RewardOverKl("curve-chart", ppo, bestOfN, final, fit, over)}
            </figure>
            <details><summary>The points as a table</summary>
            <div class="scroll"><table class="figures"><thead><tr><th scope="col">point</th><th scope="col">KL</th><th scope="col">√KL</th><th scope="col">proxy reward</th><th scope="col">gold reward</th></tr></thead>
            <tbody>{ppo.Concat(bestOfN).Concat(final).Select(point => Html.Of($"""
                <tr><th scope="row">{Findings.Name(point)}</th><td>{Charts.Number(point.Kl)}</td><td>{Charts.Number(Math.Sqrt(Math.Max(0, point.Kl)))}</td>
                <td>{Charts.Number(point.ProxyReward)}{Half(point.ProxyCi95)}</td><td>{(point.GoldReward is { } gold ? Charts.Number(gold) : "–")}{Half(point.GoldCi95)}</td></tr>
                """))}</tbody></table></div></details>
            """);

        static Html Half(double? ci) => ci is { } half ? Html.Of($""" <span class="pm">± {Charts.Number(half)}</span>""") : Html.Empty;
    }

    private static Html RewardModel(EvaluationReport? evaluation)
    {
        if (evaluation is not { RewardModel.Count: > 0 })
            return Html.Empty;

        IReadOnlyList<RewardModelRow> rows = evaluation.RewardModel;
        string[] subsets = [.. rows.Select(row => row.Subset).Distinct().OrderBy(subset => subset == "all" ? 0 : 1).ThenBy(subset => subset, StringComparer.Ordinal)];
        string[] metrics = [.. rows.Select(row => row.Metric).Distinct()];
        (string, RewardModelRow, double?, double?)[] accuracies =
        [
            .. from subset in subsets
               let accuracy = Row(subset, "accuracy")
               where accuracy is not null
               select (subset, accuracy, Row(subset, "longer_is_better")?.Value, Row(subset, "labeller_ceiling")?.Value),
        ];
        return Html.Of($"""
            {(accuracies.Length == 0 ? Html.Empty : Html.Of($"""
                <p>How often the reward model prefers the answer that the labellers preferred, on held-out pairs. It should beat the rule
                “the longer answer is better”; the labellers’ own noise sets the ceiling.</p>
                <figure class="wide">
                <p class="legend"><span class="key rm">reward model</span>{(metrics.Contains("longer_is_better") ? Html.Of($"""<span class="key longer">longer is better</span>""") : Html.Empty)}
                {(metrics.Contains("labeller_ceiling") ? Html.Of($"""<span class="key ceiling">labellers’ ceiling</span>""") : Html.Empty)}</p>
                {Charts.Accuracy("accuracy-chart", accuracies)}
                </figure>
                """))}
            <details{(accuracies.Length == 0 ? Html.Of($""" open="" """) : Html.Empty)}><summary>The figures as a table</summary>
            <div class="scroll"><table class="figures"><thead><tr><th scope="col">subset</th>{metrics.Select(metric => Html.Of($"""<th scope="col">{Findings.Name(metric)}</th>"""))}</tr></thead>
            <tbody>{subsets.Select(subset => Html.Of($"""
                <tr><th scope="row">{subset}</th>{metrics.Select(metric => Row(subset, metric) is { } row
                    ? Html.Of($"""<td>{Charts.Number(row.Value)}{(row.Ci95 > 0 ? Html.Of($""" <span class="pm">± {Charts.Number(row.Ci95)}</span>""") : Html.Empty)} <span class="n">n {row.N}</span></td>""")
                    : Html.Of($"""<td class="none">–</td>"""))}</tr>
                """))}</tbody></table></div></details>
            """);

        RewardModelRow? Row(string subset, string metric) => rows.FirstOrDefault(row => row.Subset == subset && row.Metric == metric);
    }

    private static Html Samples(EvaluationReport? evaluation) => evaluation is not { Samples.Count: > 0 } ? Html.Empty : Html.Of($"""
        <p>The same prompt, answered by the base model, after SFT and after PPO. The figure is the judge’s score, or where there is no
        judge the reward model’s; green is above 0, red below.</p>
        <div class="samples">{evaluation.Samples.Select(sample => Html.Of($"""
            <article class="sample">
            <p class="prompt">{sample.Prompt}</p>
            <p class="about">{sample.Subset}{(sample.Expected is null ? "" : $" · asks for: {sample.Expected}")}</p>
            <div class="answers">{Answer(sample, "base", sample.Base)}{Answer(sample, "sft", sample.Sft)}{Answer(sample, "ppo", sample.Ppo)}</div>
            </article>
            """))}</div>
        """);

    private static Html Answer(EvaluationSample sample, string model, string text)
    {
        double? score = sample.Scores.TryGetValue(model, out double value) ? value : null;
        string verdict = score switch { null => "", > 0.05 => "good", < -0.05 => "bad", _ => "" };
        return Html.Of($"""
            <div class="answer {verdict}"><p class="who {StyleOf(model)}">{LabelOf(model)}{(score is { } s ? Html.Of($"""<span class="score">{(s > 0.05 ? "▲ +" : s < -0.05 ? "▼ " : "")}{Charts.Number(s)}</span>""") : Html.Empty)}</p>
            <p class="text">{(string.IsNullOrWhiteSpace(text) ? Html.Of($"<i>(nothing)</i>") : Html.Of($"{text}"))}</p></div>
            """);
    }

    private static Html Run(RunReport report)
    {
        if (report.Stages.Count == 0)
            return Html.Empty;

        Span[] spans =
        [
            .. report.Stages.Where(stage => stage.State != "skipped").Select(stage => new Span(
                stage.Name, stage.Seconds, stage.GpuSeconds,
                $"{Duration(stage.Seconds)}{(stage.Attempts > 1 ? $", {stage.Attempts} attempts" : "")}{(stage.State == "succeeded" ? "" : $", {Words(stage.State)}")}",
                stage.State is "failed" or "cancelled" ? "stage failed" : "stage")),
        ];
        AttemptRecord[] failures = [.. report.Stages.SelectMany(stage => stage.Failures)];
        return Html.Of($"""
            <figure class="wide"><p class="legend"><span class="key part">a trainer works</span><span class="key whole">orchestration, storage, waiting</span></p>
            {Charts.Timeline("timeline", spans)}</figure>
            {Shares(report.Time)}
            <div class="scroll"><table class="figures"><thead><tr><th scope="col">stage</th><th scope="col">state</th><th scope="col">time</th><th scope="col">trainer</th><th scope="col">attempts</th></tr></thead>
            <tbody>{report.Stages.Select(stage => Html.Of($"""
                <tr><th scope="row">{stage.Name}</th><td class="{(stage.State switch { "succeeded" => "good", "failed" => "bad", "stoppedByGuard" => "warn", _ => "" })}">{Words(stage.State)}</td>
                <td>{Duration(stage.Seconds)}</td><td>{(stage.GpuSeconds > 0 ? Duration(stage.GpuSeconds) : "–")}</td><td>{stage.Attempts}</td></tr>
                """))}</tbody></table></div>
            {(failures.Length == 0 ? Html.Empty : Html.Of($"""
                <h3>Attempts that did not end well</h3>
                <ul class="failures">{report.Stages.SelectMany(stage => stage.Failures.Select(failure => Html.Of($"""
                    <li><b>{stage.Name}</b>, attempt {failure.Fence}: {Words(failure.Outcome)} after {Duration(failure.Seconds)}{(failure.Reason is null ? "" : $": {failure.Reason}")}</li>
                    """)))}</ul>
                """))}
            {(report.Stages.All(stage => stage.Metrics.Count == 0) ? Html.Empty : Html.Of($"""
                <details><summary>Metrics of each stage</summary><div class="columns">{report.Stages.Where(stage => stage.Metrics.Count > 0).Select(stage => Html.Of($"""
                    <table class="pairs"><caption>{stage.Name}</caption><tbody>{stage.Metrics.OrderBy(metric => metric.Key, StringComparer.Ordinal).Select(metric => Html.Of($"""
                        <tr><th scope="row">{metric.Key}</th><td>{Charts.Number(metric.Value, "0.####")}</td></tr>
                        """))}</tbody></table>
                    """))}</div></details>
                """))}
            """);
    }

    private static Html Shares(TimeReport time)
    {
        double busy = time.TotalSeconds - time.WaitingSeconds;
        if (busy <= 0)
            return Html.Empty;
        return Html.Of($"""
            <p>Of {Duration(busy)}, {Duration(time.ComputeSeconds)} were computing ({Percent(time.ComputeSeconds / busy)}); the overhead of orchestration, storage
            and process starts is {Percent(time.Overhead)}.{(time.WaitingSeconds > 0 ? $" Another {Duration(time.WaitingSeconds)} were spent waiting for people." : "")}</p>
            """);
    }

    private static Html Data(DataReport? data)
    {
        if (data is null)
            return Html.Empty;

        (string Name, string Split, int Rows)[] sets = [.. data.Rows.Select(set => (set.Key.Split('.')[0], set.Key.Split('.', 2)[^1], set.Value))];
        string[] splits = [.. sets.Select(set => set.Split).Distinct()];
        int dropped = data.Files.Sum(file => file.DroppedCount);
        return Html.Of($"""
            {(data.Files.Count == 0 ? Html.Of($"<p>All rows were generated.</p>") : Html.Of($"""
                <div class="scroll"><table class="figures"><thead><tr><th scope="col">file</th><th scope="col">format</th><th scope="col">lines</th><th scope="col">usable rows</th><th scope="col">dropped</th></tr></thead>
                <tbody>{data.Files.Select(file => Html.Of($"""<tr><th scope="row"><span title="{file.File}">{ShortName(file.File)}</span></th><td>{file.Format}</td><td>{file.Lines}</td><td>{file.Rows}</td><td>{file.DroppedCount}</td></tr>"""))}</tbody></table></div>
                """))}
            {(dropped == 0 ? Html.Empty : Html.Of($"""
                <details><summary>Dropped rows and why ({dropped})</summary>{data.Files.Where(file => file.DroppedCount > 0).Select(Dropped)}</details>
                """))}
            <div class="scroll"><table class="figures"><thead><tr><th scope="col">rows of</th>{splits.Select(split => Html.Of($"""<th scope="col">{split}</th>"""))}</tr></thead>
            <tbody>{sets.GroupBy(set => set.Name).Select(set => Html.Of($"""
                <tr><th scope="row">{set.Key}</th>{splits.Select(split => Html.Of($"<td>{set.Where(part => part.Split == split).Select(part => Html.Of($"{part.Rows}"))}</td>"))}</tr>
                """))}</tbody></table></div>
            {Counted("Rows that occurred more than once and were kept once", data.Duplicates)}
            {Counted("Rows taken out of training because their prompt is kept for test or evaluation", data.HeldOut)}
            {(data.Lengths.Count == 0 ? Html.Empty : Html.Of($"""
                <h3>Lengths in words</h3>
                <div class="grid">{data.Lengths.Where(set => set.Value.Count > 0).Select((set, index) => Html.Of($"""
                    <figure><figcaption>{Capital(set.Key)}</figcaption>{Charts.Histogram($"lengths-{index}", $"Lengths of {set.Key} in words", [.. Bins(set.Value)])}</figure>
                    """))}</div>
                """))}
            """);

        static Html Counted(string what, IReadOnlyDictionary<string, int> counts) => counts.Values.Sum() == 0 ? Html.Empty : Html.Of($"""
            <p>{what}: {string.Join(", ", counts.Where(set => set.Value > 0).Select(set => $"{set.Key} {set.Value}"))}.</p>
            """);

        static Html Dropped(DataFileReport file) => Html.Of($"""
            <h3>{ShortName(file.File)}</h3><table class="pairs"><tbody>{file.Dropped.GroupBy(row => row.Reason).OrderByDescending(group => group.Count()).Select(group => Html.Of($"""
                <tr><th scope="row">{group.Key}</th><td>line{(group.Count() > 1 ? "s" : "")} {string.Join(", ", group.Take(8).Select(row => row.Line))}{(group.Count() > 8 ? $" and {group.Count() - 8} more" : "")}</td></tr>
                """))}</tbody></table>{(file.DroppedCount > file.Dropped.Count ? Html.Of($"<p>These are the first {file.Dropped.Count} of {file.DroppedCount}.</p>") : Html.Empty)}
            """);

        static IEnumerable<(string, int)> Bins(IReadOnlyDictionary<string, int> histogram) => histogram
            .OrderBy(bin => double.TryParse(bin.Key, System.Globalization.CultureInfo.InvariantCulture, out double edge) ? edge : double.MaxValue)
            .Select(bin => (bin.Key, bin.Value));
    }

    private static Html Lineage(RunReport report)
    {
        var names = new Dictionary<string, string>();
        foreach ((string role, ModelReport model) in report.Models)
        {
            names.TryAdd(model.Sha256, $"{role} model");
            names.TryAdd(model.Path, $"{role} model");
        }

        return report.Lineage.Count == 0 && report.Models.Count == 0 ? Html.Empty : Html.Of($"""
            {(report.Models.Count == 0 ? Html.Empty : Html.Of($"""
                <div class="scroll"><table class="figures"><thead><tr><th scope="col">model</th><th scope="col">SHA-256 of its weights</th><th scope="col">folder manifest</th></tr></thead>
                <tbody>{report.Models.Select(model => Html.Of($"""<tr><th scope="row">{model.Key}</th><td><code>{model.Value.Sha256}</code></td><td><code>{model.Value.Path}</code></td></tr>"""))}</tbody></table></div>
                """))}
            {(report.Lineage.Count == 0 ? Html.Empty : Html.Of($"""
                <ol class="lineage">{report.Lineage.Select(entry => Html.Of($"""
                    <li><b>{entry.Stage}</b> made {Thing(entry.Output)}{(entry.Inputs.Count == 0 ? Html.Empty : Html.Of($" from {entry.Inputs.Select((input, index) => Html.Of($"{(index > 0 ? ", " : "")}{Thing(input)}"))}"))}</li>
                    """))}</ol>
                """))}
            """);

        Html Thing(string content)
        {
            string brief = content.Length > 24 && content.All(char.IsAsciiHexDigit) ? content[..12] : content;
            return names.TryGetValue(content, out string? name)
                ? Html.Of($"""<span title="{content}">{name} <code>{brief}</code></span>""")
                : Html.Of($"""<code title="{content}">{brief}</code>""");
        }
    }

    private static Html Spec(RunReport report) => Html.Of($"""
        <details><summary>Everything this run was asked for</summary><pre>{JsonSerializer.Serialize(report.Spec, RlhfJson.Indented)}</pre></details>
        """);

    private static Dot ToDot(EvaluationRow row, double? second) => new(LabelOf(row.Model), StyleOf(row.Model), row.Value, row.Ci95, second);

    private static bool IsGreedy(string model) => model.EndsWith("_greedy", StringComparison.Ordinal);

    private static string Sampled(string model) => IsGreedy(model) ? model[..^"_greedy".Length] : model;

    private static string LabelOf(string model) => Sampled(model) switch
    {
        "base" => "base",
        "base_few_shot" => "base, few-shot",
        "sft" => "SFT",
        "ppo" => "PPO",
        var other => other.Replace('_', ' '),
    } + (IsGreedy(model) ? ", greedy" : "");

    private static string StyleOf(string model) => model switch
    {
        "base" or "base_few_shot" or "sft" or "ppo" => $"m-{model.Replace('_', '-')}",
        _ when model.StartsWith("best_of_", StringComparison.Ordinal) => "m-best-of",
        _ => "m-other",
    };

    private static int Rank(string[] order, string name) => Array.IndexOf(order, name) is >= 0 and var place ? place : order.Length;

    private static string ShortName(string path) => path[(path.LastIndexOf('/') + 1)..];

    private static string Capital(string text) => text.Length == 0 ? text : char.ToUpperInvariant(text[0]) + text[1..];

    private static string Words(string state) => state switch
    {
        "stoppedByGuard" => "stopped by the guard",
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
