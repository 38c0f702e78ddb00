using System.Globalization;

namespace Rlhf.Report;

/// <summary>One dot of a <see cref="Charts.Dots"/> chart.</summary>
/// <param name="Label">The row's name.</param>
/// <param name="Style">The CSS class that gives its colour.</param>
/// <param name="Value">The mean.</param>
/// <param name="Ci95">Half the width of its 95% interval.</param>
/// <param name="Second">A second figure on the same row, drawn as a hollow diamond.</param>
internal sealed record Dot(string Label, string Style, double Value, double Ci95, double? Second = null);

/// <summary>One bar of a <see cref="Charts.Timeline"/>.</summary>
/// <param name="Label">What took the time.</param>
/// <param name="Seconds">How long.</param>
/// <param name="TrainerSeconds">The part of it in which a trainer worked.</param>
/// <param name="Note">What stands behind the bar.</param>
/// <param name="Style">The CSS class that gives its colour.</param>
internal sealed record Span(string Label, double Seconds, double TrainerSeconds, string Note, string Style);

/// <summary>
/// The report's charts as inline SVG, without script and without a library: a drawing package would bring native code into the
/// function app. Colours come from the page's style sheet, so that a chart follows light and dark. Each has a title and a description
/// for readers who do not see it; the page puts the figures in a table beside it.
/// </summary>
internal static class Charts
{
    /// <summary>Rows of dots with their intervals on a common axis, the value at the row's end.</summary>
    public static Html Dots(string id, string title, IReadOnlyList<Dot> dots)
    {
        const int left = 104, right = 308, width = 360, rowHeight = 24, top = 8;
        int bottom = top + (rowHeight * dots.Count);
        bool rates = dots.All(dot => dot.Value is >= 0 and <= 1) && !title.Contains("reward", StringComparison.OrdinalIgnoreCase) && title != "KL";
        Scale x = rates
            ? new Scale(0, 1, left, right)
            : Scale.Around(dots.SelectMany(dot => new[] { dot.Value - dot.Ci95, dot.Value + dot.Ci95, dot.Second ?? dot.Value }), left, right);
        string description = string.Join("; ", dots.Select(dot => $"{dot.Label} {Number(dot.Value)} ± {Number(dot.Ci95)}"));
        return Svg(id, title, description, width, bottom + 24, Html.Of($"""
            {x.Ticks(4).Select(tick => Html.Of($"""
                <line class="grid{(tick == 0 && !rates ? " zero" : "")}" x1="{x.At(tick)}" y1="{top}" x2="{x.At(tick)}" y2="{bottom}"/>
                <text class="tick" x="{x.At(tick)}" y="{bottom + 16}" text-anchor="middle">{Number(tick, "0.##")}</text>
                """))}
            {dots.Select((dot, row) => Row(dot, top + (rowHeight * (row + 0.5))))}
            """));

        Html Row(Dot dot, double y) => Html.Of($"""
            <g class="{dot.Style}"><title>{dot.Label}: {Number(dot.Value)} ± {Number(dot.Ci95)}</title>
            <text class="label" x="{left - 10}" y="{y + 4}" text-anchor="end">{dot.Label}</text>
            <line class="interval" x1="{x.At(dot.Value - dot.Ci95)}" y1="{y}" x2="{x.At(dot.Value + dot.Ci95)}" y2="{y}"/>
            {(dot.Second is { } second ? Diamond(x.At(second), y, 4, "hollow") : Html.Empty)}
            <circle class="mark" cx="{x.At(dot.Value)}" cy="{y}" r="4.5"/>
            <text class="value" x="{width - 4}" y="{y + 4}" text-anchor="end">{Number(dot.Value)}</text></g>
            """);
    }

    /// <summary>A few dots with intervals under one another, without words: for the key figures.</summary>
    public static Html Spark(string id, string title, IReadOnlyList<Dot> dots)
    {
        const int left = 6, right = 214, rowHeight = 12;
        int height = (rowHeight * dots.Count) + 4;
        Scale x = Scale.Around(dots.SelectMany(dot => new[] { dot.Value - dot.Ci95, dot.Value + dot.Ci95 }), left, right);
        string description = string.Join("; ", dots.Select(dot => $"{dot.Label} {Number(dot.Value)} ± {Number(dot.Ci95)}"));
        return Svg(id, title, description, 220, height, Html.Of($"""
            {dots.Select((dot, row) => Html.Of($"""
                <g class="{dot.Style}"><line class="rail" x1="{left}" y1="{Y(row)}" x2="{right}" y2="{Y(row)}"/>
                <line class="interval" x1="{x.At(dot.Value - dot.Ci95)}" y1="{Y(row)}" x2="{x.At(dot.Value + dot.Ci95)}" y2="{Y(row)}"/>
                <circle class="mark" cx="{x.At(dot.Value)}" cy="{Y(row)}" r="3.5"/></g>
                """))}
            """));

        static double Y(int row) => 2 + (rowHeight * (row + 0.5));
    }

    /// <summary>
    /// Gold reward above, proxy reward below, over the square root of KL: PPO's slices in their order, best-of-n, PPO's model in the
    /// final evaluation, the fitted form, the peak of gold, and the region past it where it is over-optimisation.
    /// </summary>
    public static Html RewardOverKl(
        string id, IReadOnlyList<CurvePoint> ppo, IReadOnlyList<CurvePoint> bestOfN, IReadOnlyList<CurvePoint> final, GaoFit? fit, OverOptimisation? over)
    {
        const int left = 56, right = 940, width = 1000, panel = 220, gap = 48, top = 24;
        CurvePoint[] all = [.. ppo, .. bestOfN, .. final];
        bool gold = all.Any(point => point.GoldReward is not null);
        Scale x = new(0, Math.Max(0.5, all.Where(point => double.IsFinite(point.Kl)).Select(Distance).DefaultIfEmpty().Max()) * 1.06, left, right);
        CurvePoint[] judged = [.. ppo.Where(point => point.GoldReward is not null)];
        CurvePoint? peak = judged.Length < 3 ? null : judged.MaxBy(point => point.GoldReward);
        int proxyTop = gold ? top + panel + gap : top;
        int bottom = proxyTop + panel;
        string description = string.Join("; ", ppo.Select(point =>
            $"{Findings.Name(point)}: KL {Number(point.Kl)}, proxy {Number(point.ProxyReward)}{(point.GoldReward is { } g ? $", gold {Number(g)}" : "")}"));

        return Svg(id, "Rewards over the square root of KL", description, width, bottom + 44, Html.Of($"""
            {(over is null ? Html.Empty : Html.Of($"""
                <rect class="past" x="{x.At(Distance(over.Peak))}" y="{top}" width="{right - x.At(Distance(over.Peak))}" height="{bottom - top}"/>
                <text class="pastlabel" x="{right - 6}" y="{bottom - 10}" text-anchor="end">over-optimised</text>
                """))}
            {(gold ? Panel("gold reward", "gold", top, point => point.GoldReward, point => point.GoldCi95, fit) : Html.Empty)}
            {Panel("proxy reward (the reward model)", "proxy", proxyTop, point => point.ProxyReward, point => point.ProxyCi95, null)}
            {(peak is null ? Html.Empty : Html.Of($"""
                <line class="peak" x1="{x.At(Distance(peak))}" y1="{top}" x2="{x.At(Distance(peak))}" y2="{bottom}"/>
                <text class="peaklabel" x="{x.At(Distance(peak)) + (x.At(Distance(peak)) > right - 200 ? -6 : 6)}" y="{top + panel + 16}" text-anchor="{(x.At(Distance(peak)) > right - 200 ? "end" : "start")}">gold peaks: {Findings.Name(peak)}, KL {Number(peak.Kl)}</text>
                """))}
            {x.Ticks(7).Select(tick => Html.Of($"""
                <text class="tick" x="{x.At(tick)}" y="{bottom + 16}" text-anchor="middle">{Number(tick, "0.##")}</text>
                """))}
            <text class="axis" x="{(left + right) / 2}" y="{bottom + 36}" text-anchor="middle">√KL from SFT (nats per answer, square root)</text>
            """));

        Html Panel(string name, string style, int y0, Func<CurvePoint, double?> value, Func<CurvePoint, double?> interval, GaoFit? form)
        {
            Scale y = Scale.Around(
                all.Where(point => value(point) is not null).SelectMany(point => new[] { value(point)!.Value - (interval(point) ?? 0), value(point)!.Value + (interval(point) ?? 0) }),
                y0 + panel, y0);
            return Html.Of($"""
                <g class="{style}"><text class="panel" x="{left}" y="{y0 - 8}">{name}</text>
                {y.Ticks(5).Select(tick => Html.Of($"""
                    <line class="grid{(tick == 0 ? " zero" : "")}" x1="{left}" y1="{y.At(tick)}" x2="{right}" y2="{y.At(tick)}"/>
                    <text class="tick" x="{left - 8}" y="{y.At(tick) + 4}" text-anchor="end">{Number(tick, "0.##")}</text>
                    """))}
                {(form is null ? Html.Empty : Html.Of($"""
                    <polyline class="fit" points="{Points(Enumerable.Range(0, 61).Select(i => ppo.Max(Distance) * i / 60).Select(d => (x.At(d), y.At(form.At(d)))))}"/>
                    """))}
                {Series(bestOfN, "bestofn")}{Series(ppo, "slices")}{Series(final, "final")}</g>
                """);

            Html Series(IReadOnlyList<CurvePoint> points, string kind)
            {
                CurvePoint[] measured = [.. points.Where(point => value(point) is not null)];
                return measured.Length == 0 ? Html.Empty : Html.Of($"""
                    <g class="{kind}"><polyline class="path" points="{Points(measured.Select(point => (x.At(Distance(point)), y.At(value(point)!.Value))))}"/>
                    {measured.Select((point, index) => Point(point, kind, last: kind == "slices" && index == measured.Length - 1))}</g>
                    """);
            }

            Html Point(CurvePoint point, string kind, bool last)
            {
                (double cx, double mean, double half) = (x.At(Distance(point)), value(point)!.Value, interval(point) ?? 0);
                return Html.Of($"""
                    <g><title>{Findings.Name(point)}: KL {Number(point.Kl)}, {name} {Number(mean)}{(half > 0 ? $" ± {Number(half)}" : "")}</title>
                    <line class="interval" x1="{cx}" y1="{y.At(mean - half)}" x2="{cx}" y2="{y.At(mean + half)}"/>
                    {(kind == "bestofn" ? Diamond(cx, y.At(mean), 5, "hollow") : Html.Of($"""<circle class="{(kind == "final" ? "hollow" : "mark")}" cx="{cx}" cy="{y.At(mean)}" r="{(kind == "final" ? 6 : 4)}"/>"""))}
                    {(kind == "bestofn" ? Html.Of($"""<text class="pointlabel" x="{cx + 2}" y="{y.At(mean + half) - 7}" text-anchor="middle">{Findings.Name(point)}</text>""") : Html.Empty)}
                    {(last ? Html.Of($"""<text class="pointlabel" x="{cx + 10}" y="{y.At(mean) + 4}">{Findings.Name(point)}</text>""") : Html.Empty)}</g>
                    """);
            }
        }

        static double Distance(CurvePoint point) => Math.Sqrt(Math.Clamp(point.Kl, 0, 1e9));
    }

    /// <summary>The reward model's accuracy by subset, against chance, "longer is better" and the labellers' ceiling.</summary>
    public static Html Accuracy(string id, IReadOnlyList<(string Subset, RewardModelRow Accuracy, double? Longer, double? Ceiling)> rows)
    {
        const int left = 180, right = 880, width = 1000, rowHeight = 30, top = 8;
        int bottom = top + (rowHeight * rows.Count);
        double lowest = rows.SelectMany(row => new[] { row.Accuracy.Value - row.Accuracy.Ci95, row.Longer ?? 1, 0.42 }).Where(share => share >= 0).Min();
        Scale x = new(Math.Min(lowest - 0.02, 0.98), 1, left, right);
        string description = string.Join("; ", rows.Select(row =>
            $"{row.Subset}: {Number(row.Accuracy.Value)} ± {Number(row.Accuracy.Ci95)}"
            + (row.Longer is { } l ? $", longer is better {Number(l)}" : "") + (row.Ceiling is { } c ? $", ceiling {Number(c)}" : "")));
        return Svg(id, "Accuracy of the reward model on held-out preferences", description, width, bottom + 26, Html.Of($"""
            {x.Ticks(6).Select(tick => Html.Of($"""
                <line class="grid{(tick == 0.5 ? " zero" : "")}" x1="{x.At(tick)}" y1="{top}" x2="{x.At(tick)}" y2="{bottom}"/>
                <text class="tick" x="{x.At(tick)}" y="{bottom + 17}" text-anchor="middle">{Number(tick, "0.##")}{(tick == 0.5 ? " chance" : "")}</text>
                """))}
            {rows.Select((row, index) => Row(row, top + (rowHeight * (index + 0.5))))}
            """));

        Html Row((string Subset, RewardModelRow Accuracy, double? Longer, double? Ceiling) row, double y) => Html.Of($"""
            <g class="rm"><title>{row.Subset}: {Number(row.Accuracy.Value)} ± {Number(row.Accuracy.Ci95)} of {row.Accuracy.N} pairs</title>
            <text class="label" x="{left - 12}" y="{y + 4}" text-anchor="end">{row.Subset}</text>
            {(row.Ceiling is { } ceiling ? Html.Of($"""<line class="ceiling" x1="{x.At(ceiling)}" y1="{y - 9}" x2="{x.At(ceiling)}" y2="{y + 9}"/>""") : Html.Empty)}
            {(row.Longer is { } longer ? Html.Of($"""<rect class="longer" x="{x.At(longer) - 4}" y="{y - 4}" width="8" height="8"/>""") : Html.Empty)}
            <line class="interval" x1="{x.At(row.Accuracy.Value - row.Accuracy.Ci95)}" y1="{y}" x2="{x.At(row.Accuracy.Value + row.Accuracy.Ci95)}" y2="{y}"/>
            <circle class="mark" cx="{x.At(row.Accuracy.Value)}" cy="{y}" r="5"/>
            <text class="value" x="{width - 4}" y="{y + 4}" text-anchor="end">{Number(row.Accuracy.Value)} ± {Number(row.Accuracy.Ci95)}</text></g>
            """);
    }

    /// <summary>Bars one after the other, from left to right, the trainer's part of each filled.</summary>
    public static Html Timeline(string id, IReadOnlyList<Span> spans)
    {
        const int left = 92, right = 760, width = 1000, rowHeight = 28, top = 8;
        int bottom = top + (rowHeight * spans.Count);
        double total = Math.Max(1e-9, spans.Sum(span => span.Seconds));
        (double unit, string name) = total < 180 ? (1.0, "seconds") : total < 3 * 3600 ? (60.0, "minutes") : (3600.0, "hours");
        Scale x = new(0, total / unit, left, right);
        double[] starts = [.. spans.Select((_, index) => spans.Take(index).Sum(span => span.Seconds) / unit)];
        string description = string.Join("; ", spans.Select(span => $"{span.Label}: {Number(span.Seconds)} s, {span.Note}"));
        return Svg(id, "The stages over time", description, width, bottom + 40, Html.Of($"""
            {x.Ticks(6).Select(tick => Html.Of($"""
                <line class="grid" x1="{x.At(tick)}" y1="{top}" x2="{x.At(tick)}" y2="{bottom}"/>
                <text class="tick" x="{x.At(tick)}" y="{bottom + 16}" text-anchor="middle">{Number(tick, "0.##")}</text>
                """))}
            <text class="axis" x="{(left + right) / 2}" y="{bottom + 34}" text-anchor="middle">{name}</text>
            {spans.Select((span, index) => Html.Of($"""
                <g class="{span.Style}"><title>{span.Label}: {Number(span.Seconds)} s, of them {Number(span.TrainerSeconds)} s on a trainer</title>
                <text class="label" x="{left - 10}" y="{Y(index) + 4}" text-anchor="end">{span.Label}</text>
                <rect class="whole" x="{x.At(starts[index])}" y="{Y(index) - 8}" width="{Math.Max(1.5, Width(span.Seconds))}" height="16" rx="2"/>
                <rect class="part" x="{x.At(starts[index])}" y="{Y(index) - 8}" width="{Width(Math.Min(span.TrainerSeconds, span.Seconds))}" height="16" rx="2"/>
                <text class="note" x="{right + 12}" y="{Y(index) + 4}">{span.Note}</text></g>
                """))}
            """));

        static double Y(int row) => top + (rowHeight * (row + 0.5));
        double Width(double seconds) => x.At(seconds / unit) - x.At(0);
    }

    /// <summary>Counts by bin.</summary>
    public static Html Histogram(string id, string title, IReadOnlyList<(string Bin, int Count)> bins)
    {
        const int left = 8, right = 352, width = 360, height = 96, top = 16;
        double slot = (right - left) / (double)Math.Max(1, bins.Count);
        Scale y = new(0, Math.Max(1, bins.Max(bin => bin.Count)), top + height, top);
        int every = (int)Math.Ceiling(bins.Count / 9.0);
        return Svg(id, title, string.Join("; ", bins.Select(bin => $"up to {bin.Bin} words: {bin.Count}")), width, top + height + 22, Html.Of($"""
            <line class="grid zero" x1="{left}" y1="{top + height}" x2="{right}" y2="{top + height}"/>
            {bins.Select((bin, index) => Html.Of($"""
                <g><title>up to {bin.Bin} words: {bin.Count}</title>
                <rect class="bar" x="{left + (slot * index) + 1}" y="{y.At(bin.Count)}" width="{Math.Max(1, slot - 2)}" height="{y.At(0) - y.At(bin.Count)}"/>
                {(index % every == 0 || index == bins.Count - 1 ? Html.Of($"""<text class="tick" x="{left + (slot * (index + 0.5))}" y="{top + height + 16}" text-anchor="middle">{bin.Bin}</text>""") : Html.Empty)}</g>
                """))}
            """));
    }

    /// <summary>A figure for people: two decimals, with a real minus sign.</summary>
    public static string Number(double value, string format = "0.00")
    {
        string text = double.IsFinite(value) ? value.ToString(format, CultureInfo.InvariantCulture) : "n/a";
        return text.TrimStart('-').Trim('0', '.').Length == 0 ? text.TrimStart('-') : text.Replace('-', '\u2212');
    }

    private static Html Svg(string id, string title, string description, int width, int height, Html content) => Html.Of($"""
        <svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{id}-t" aria-describedby="{id}-d" style="max-width:{width}px">
        <title id="{id}-t">{title}</title><desc id="{id}-d">{description}</desc>
        {content}
        </svg>
        """);

    private static Html Diamond(double x, double y, double r, string style) =>
        Html.Of($"""<path class="{style}" d="M{x} {y - r}L{x + r} {y}L{x} {y + r}L{x - r} {y}Z"/>""");

    private static string Points(IEnumerable<(double X, double Y)> points) =>
        string.Join(' ', points.Select(point => string.Create(CultureInfo.InvariantCulture, $"{point.X:0.##},{point.Y:0.##}")));

    /// <summary>A linear map from values to pixels.</summary>
    private readonly record struct Scale(double Min, double Max, double From, double To)
    {
        /// <summary>The scale that shows all values with some air; at least a hundredth wide.</summary>
        public static Scale Around(IEnumerable<double> values, double from, double to)
        {
            double[] finite = [.. values.Where(double.IsFinite).Select(value => Math.Clamp(value, -1e9, 1e9))];
            (double min, double max) = finite.Length == 0 ? (0, 1) : (finite.Min(), finite.Max());
            double air = Math.Max(0.01, (max - min) * 0.08);
            return new Scale(min >= 0 && min < (max - min) ? 0 : min - air, max + air, from, to);
        }

        public double At(double value) => From + ((Math.Clamp(double.IsFinite(value) ? value : Min, Min, Max) - Min) / (Max - Min) * (To - From));

        /// <summary>Round values in the range, about as many as asked for.</summary>
        public IEnumerable<double> Ticks(int count)
        {
            double rough = (Max - Min) / count;
            double power = Math.Pow(10, Math.Floor(Math.Log10(rough)));
            double step = power * ((rough / power) switch { < 1.5 => 1, < 3.5 => 2, < 7.5 => 5, _ => 10 });
            long first = (long)Math.Ceiling((Min / step) - 1e-9);
            long last = (long)Math.Floor((Max / step) + 1e-9);
            for (long tick = first; tick <= last; tick++)
                yield return Math.Round(tick * step, 10);
        }
    }
}
