using System.Globalization;

namespace Rlhf.Report;

/// <summary>One dot of a <see cref="Charts.Dots"/> chart.</summary>
/// <param name="Label">The row's name.</param>
/// <param name="Style">The CSS class that gives its colour.</param>
/// <param name="Value">The mean.</param>
/// <param name="Ci95">Half the width of its 95% interval.</param>
/// <param name="Second">A second figure on the same row, drawn as a hollow diamond.</param>
internal sealed record Dot(string Label, string Style, double Value, double Ci95, double? Second = null)
{
    public double Low => Value - Ci95;

    public double High => Value + Ci95;

    public string InWords => $"{Label} {Charts.Number(Value)} ± {Charts.Number(Ci95)}";
}

/// <summary>One bar of a <see cref="Charts.Timeline"/>.</summary>
/// <param name="Label">What took the time.</param>
/// <param name="Seconds">How long.</param>
/// <param name="TrainerSeconds">The part of it in which a trainer worked.</param>
/// <param name="Note">What stands behind the bar.</param>
/// <param name="Style">The CSS class that gives its colour.</param>
internal sealed record Span(string Label, double Seconds, double TrainerSeconds, string Note, string Style);

/// <summary>The reward model's accuracy on one subset, with its yardsticks.</summary>
internal sealed record Agreement(string Subset, RewardModelRow Accuracy, double? Longer, double? Ceiling, RewardModelRow? Bag);

/// <summary>
/// The report's charts as inline SVG, without script and without a library: a drawing package would bring native code into the
/// function app. Colours come from the page's style sheet, so that a chart follows light and dark. Each has a title and a description
/// for readers who do not see it; the page puts the figures in a table beside it.
/// </summary>
internal static class Charts
{
    private const int WideWidth = 1000;

    /// <summary>Rows of dots with their intervals on a common axis, the value at the row's end.</summary>
    public static Html Dots(string id, string title, IReadOnlyList<Dot> dots)
    {
        const int left = 104, right = 308, width = 360, rowHeight = 24, top = 8;
        int bottom = top + (rowHeight * dots.Count);
        bool rates = dots.All(dot => dot.Value is >= 0 and <= 1) && title != "KL" && !title.Contains("reward", StringComparison.Ordinal);
        Scale x = rates
            ? new Scale(0, 1, left, right)
            : Scale.Around(dots.SelectMany(dot => new[] { dot.Low, dot.High, dot.Second ?? dot.Value }), left, right);
        return Svg(id, title, string.Join("; ", dots.Select(dot => dot.InWords)), width, bottom + 24, Html.Of($"""
            {VerticalGrid(x, 4, top, bottom, zero: !rates)}
            {dots.Select((dot, row) => Row(dot, top + (rowHeight * (row + 0.5))))}
            """));

        Html Row(Dot dot, double y) => Html.Of($"""
            <g class="{dot.Style}"><title>{dot.InWords}</title>
            {Text("label", left - 10, y + 4, dot.Label, "end")}
            {Line("interval", x.At(dot.Low), y, x.At(dot.High), y)}
            {(dot.Second is { } second ? Diamond("hollow", x.At(second), y, 4) : Html.Empty)}
            {Circle("mark", x.At(dot.Value), y, 4.5)}
            {Text("value", width - 4, y + 4, Number(dot.Value), "end")}</g>
            """);
    }

    /// <summary>A few dots with intervals under one another, without words: for the key figures.</summary>
    public static Html Spark(string id, string title, IReadOnlyList<Dot> dots)
    {
        const int left = 6, right = 214, width = 220, rowHeight = 12;
        Scale x = Scale.Around(dots.SelectMany(dot => new[] { dot.Low, dot.High }), left, right);
        return Svg(id, title, string.Join("; ", dots.Select(dot => dot.InWords)), width, (rowHeight * dots.Count) + 4, Html.Of($"""
            {dots.Select((dot, row) => Row(dot, 2 + (rowHeight * (row + 0.5))))}
            """));

        Html Row(Dot dot, double y) => Html.Of($"""
            <g class="{dot.Style}">{Line("rail", left, y, right, y)}
            {Line("interval", x.At(dot.Low), y, x.At(dot.High), y)}{Circle("mark", x.At(dot.Value), y, 3.5)}</g>
            """);
    }

    /// <summary>
    /// Gold reward above, proxy reward below, over the square root of KL: the slices in their order, best-of-n, the aligned model in the
    /// final evaluation, the fitted form, the peak of gold, and the region past it where it is over-optimisation.
    /// </summary>
    /// <param name="id">The chart's id on the page.</param>
    /// <param name="proxy">What the proxy reward is, in a few words.</param>
    /// <param name="slices">The method after each slice.</param>
    /// <param name="bestOfN">Best of n samples from SFT, beginning with one.</param>
    /// <param name="final">The aligned model in the final evaluation.</param>
    /// <param name="fits">Fits of the two.</param>
    /// <param name="over">Over-optimisation, where there is any.</param>
    public static Html RewardOverKl(
        string id, string proxy, IReadOnlyList<CurvePoint> slices, IReadOnlyList<CurvePoint> bestOfN, IReadOnlyList<CurvePoint> final,
        IReadOnlyList<GaoFit> fits, OverOptimisation? over)
    {
        const int left = 56, right = 940, panel = 220, gap = 48, top = 24;
        CurvePoint[] all = [.. slices, .. bestOfN, .. final];
        CurvePoint[] judged = [.. slices.Where(point => point.GoldReward is not null)];
        CurvePoint? peak = judged.Length < 3 ? null : judged.MaxBy(point => point.GoldReward);
        bool hasGold = all.Any(point => point.GoldReward is not null);
        int proxyTop = hasGold ? top + panel + gap : top;
        int bottom = proxyTop + panel;
        double farthest = all.Where(point => double.IsFinite(point.Kl)).Select(Distance).DefaultIfEmpty().Max();
        Scale x = new(0, Math.Max(0.5, farthest) * 1.06, left, right);
        return Svg(id, "Rewards over the square root of KL", string.Join("; ", slices.Select(InWords)), WideWidth, bottom + 44, Html.Of($"""
            {(over is null ? Html.Empty : Past(over))}
            {(hasGold ? Panel("gold reward", "gold", top, point => point.GoldReward, point => point.GoldCi95) : Html.Empty)}
            {Panel($"proxy reward ({proxy})", "proxy", proxyTop, point => point.ProxyReward, point => point.ProxyCi95)}
            {(peak is null ? Html.Empty : Peak(peak))}
            {x.Ticks(7).Select(tick => Text("tick", x.At(tick), bottom + 16, Number(tick, "0.##"), "middle"))}
            {Text("axis", (left + right) / 2.0, bottom + 36, "√KL from SFT (nats per answer, square root)", "middle")}
            """));

        Html Past(OverOptimisation found)
        {
            double from = x.At(Distance(found.Peak));
            return Html.Of($"""
                {Rect("past", from, top, right - from, bottom - top)}{Text("pastlabel", right - 6, bottom - 10, "over-optimised", "end")}
                """);
        }

        Html Peak(CurvePoint point)
        {
            double at = x.At(Distance(point));
            bool atRight = at > right - 200;
            string words = $"gold peaks: {Findings.Name(point)}, KL {Number(point.Kl)}";
            return Html.Of($"""
                {Line("peak", at, top, at, bottom)}
                {Text("peaklabel", at + (atRight ? -6 : 6), top + panel + 16, words, atRight ? "end" : "start")}
                """);
        }

        Html Panel(string name, string style, int y0, Func<CurvePoint, double?> value, Func<CurvePoint, double?> interval)
        {
            double Half(CurvePoint point) => interval(point) ?? 0;
            CurvePoint[] measured = [.. all.Where(point => value(point) is not null)];
            Scale y = Scale.Around(
                [.. measured.Select(point => value(point)!.Value - Half(point)), .. measured.Select(point => value(point)!.Value + Half(point))],
                y0 + panel, y0);
            return Html.Of($"""
                <g class="{style}">{Text("panel", left, y0 - 8, name)}
                {y.Ticks(5).Select(tick => Html.Of($"""
                    {Line(tick == 0 ? "grid zero" : "grid", left, y.At(tick), right, y.At(tick))}
                    {Text("tick", left - 8, y.At(tick) + 4, Number(tick, "0.##"), "end")}
                    """))}
                {fits.Where(fit => fit.Reward == style && fit.R2 >= GaoFit.DrawnFrom).Select(Fit)}
                {Series(bestOfN, "bestofn")}{Series(slices, "slices")}{Series(final, "final")}</g>
                """);

            Html Fit(GaoFit fit)
            {
                double reach = (fit.Pressure == Pressure.Rl ? slices : bestOfN).Max(Distance);
                return Polyline("fit", Enumerable.Range(0, 61).Select(i => reach * i / 60).Select(d => (x.At(d), y.At(fit.At(d)))));
            }

            Html Series(IReadOnlyList<CurvePoint> points, string kind)
            {
                CurvePoint[] drawn = [.. points.Where(point => value(point) is not null)];
                return drawn.Length == 0 ? Html.Empty : Html.Of($"""
                    <g class="{kind}">{Polyline("path", drawn.Select(point => (x.At(Distance(point)), y.At(value(point)!.Value))))}
                    {drawn.Select((point, index) => Point(point, kind, isLast: index == drawn.Length - 1))}</g>
                    """);
            }

            Html Point(CurvePoint point, string kind, bool isLast)
            {
                (double at, double mean, double half) = (x.At(Distance(point)), value(point)!.Value, Half(point));
                string label = Findings.Name(point);
                (Html mark, Html caption) = kind switch
                {
                    // At the left edge a centred label would run into the axis.
                    "bestofn" => (Diamond("hollow", at, y.At(mean), 5), at < left + 30
                        ? Text("pointlabel", at + 6, y.At(mean + half) - 7, label)
                        : Text("pointlabel", at + 2, y.At(mean + half) - 7, label, "middle")),
                    "final" => (Circle("hollow", at, y.At(mean), 6), Html.Empty),
                    _ => (Circle("mark", at, y.At(mean), 4), isLast ? Text("pointlabel", at + 10, y.At(mean) + 4, label) : Html.Empty),
                };
                return Html.Of($"""
                    <g><title>{label}: KL {Number(point.Kl)}, {name} {Number(mean)}{(half > 0 ? $" ± {Number(half)}" : "")}</title>
                    {Line("interval", at, y.At(mean - half), at, y.At(mean + half))}{mark}{caption}</g>
                    """);
            }
        }

        static double Distance(CurvePoint point) => Math.Sqrt(Math.Clamp(point.Kl, 0, 1e9));

        static string InWords(CurvePoint point) =>
            $"{Findings.Name(point)}: KL {Number(point.Kl)}, proxy {Number(point.ProxyReward)}"
            + (point.GoldReward is { } gold ? $", gold {Number(gold)}" : string.Empty);
    }

    /// <summary>The reward model's accuracy by subset, against chance, "longer is better" and the labellers' ceiling.</summary>
    public static Html Accuracy(string id, IReadOnlyList<Agreement> rows)
    {
        const int left = 180, right = 880, rowHeight = 30, top = 8;
        int bottom = top + (rowHeight * rows.Count);
        IEnumerable<double> shares = rows.SelectMany(row => new[] { row.Accuracy.Value - row.Accuracy.Ci95, row.Longer ?? 1, row.Bag?.Value ?? 1, 0.42 });
        Scale x = new(Math.Min(shares.Where(share => share >= 0).Min() - 0.02, 0.98), 1, left, right);
        string description = string.Join("; ", rows.Select(InWords));
        return Svg(id, "Accuracy of the reward model on held-out preferences", description, WideWidth, bottom + 26, Html.Of($"""
            {x.Ticks(6).Select(tick => Html.Of($"""
                {Line(tick == 0.5 ? "grid zero" : "grid", x.At(tick), top, x.At(tick), bottom)}
                {Text("tick", x.At(tick), bottom + 17, Number(tick, "0.##") + (tick == 0.5 ? " chance" : ""), "middle")}
                """))}
            {rows.Select((row, index) => Row(row, row.Accuracy, top + (rowHeight * (index + 0.5))))}
            """));

        Html Row(Agreement row, RewardModelRow accuracy, double y) => Html.Of($"""
            <g class="rm"><title>{row.Subset}: {Number(accuracy.Value)} ± {Number(accuracy.Ci95)} of {accuracy.N} pairs</title>
            {Text("label", left - 12, y + 4, row.Subset, "end")}
            {(row.Ceiling is { } ceiling ? Line("ceiling", x.At(ceiling), y - 9, x.At(ceiling), y + 9) : Html.Empty)}
            {(row.Longer is { } longer ? Rect("longer", x.At(longer) - 4, y - 4, 8, 8) : Html.Empty)}
            {(row.Bag is { } bag ? Diamond("bag", x.At(bag.Value), y, 5) : Html.Empty)}
            {Line("interval", x.At(accuracy.Value - accuracy.Ci95), y, x.At(accuracy.Value + accuracy.Ci95), y)}
            {Circle("mark", x.At(accuracy.Value), y, 5)}
            {Text("value", WideWidth - 4, y + 4, $"{Number(accuracy.Value)} ± {Number(accuracy.Ci95)}", "end")}</g>
            """);

        static string InWords(Agreement row) =>
            $"{row.Subset}: {Number(row.Accuracy.Value)} ± {Number(row.Accuracy.Ci95)}"
            + (row.Bag is { } bag ? $", bag of words {Number(bag.Value)}" : string.Empty)
            + (row.Longer is { } longer ? $", longer is better {Number(longer)}" : string.Empty)
            + (row.Ceiling is { } ceiling ? $", ceiling {Number(ceiling)}" : string.Empty);
    }

    /// <summary>Bars one after the other, from left to right, the trainer's part of each filled.</summary>
    public static Html Timeline(string id, IReadOnlyList<Span> spans)
    {
        const int left = 92, right = 760, rowHeight = 28, top = 8;
        int bottom = top + (rowHeight * spans.Count);
        double total = Math.Max(1e-9, spans.Sum(span => span.Seconds));
        (double unit, string name) = total < 180 ? (1.0, "seconds") : total < 3 * 3600 ? (60.0, "minutes") : (3600.0, "hours");
        Scale x = new(0, total / unit, left, right);
        double[] starts = [.. spans.Select((_, index) => x.At(spans.Take(index).Sum(span => span.Seconds) / unit))];
        string description = string.Join("; ", spans.Select(span => $"{span.Label}: {Number(span.Seconds)} s, {span.Note}"));
        return Svg(id, "The stages over time", description, WideWidth, bottom + 40, Html.Of($"""
            {VerticalGrid(x, 6, top, bottom, zero: false)}
            {Text("axis", (left + right) / 2.0, bottom + 34, name, "middle")}
            {spans.Select((span, index) => Row(span, starts[index], top + (rowHeight * (index + 0.5))))}
            """));

        Html Row(Span span, double start, double y) => Html.Of($"""
            <g class="{span.Style}">
            <title>{span.Label}: {Number(span.Seconds)} s, of them {Number(span.TrainerSeconds)} s on a trainer</title>
            {Text("label", left - 10, y + 4, span.Label, "end")}
            {Rect("whole", start, y - 8, Math.Max(1.5, Width(span.Seconds)), 16)}
            {Rect("part", start, y - 8, Width(Math.Min(span.TrainerSeconds, span.Seconds)), 16)}
            {Text("note", right + 12, y + 4, span.Note)}</g>
            """);

        double Width(double seconds) => x.At(seconds / unit) - x.At(0);
    }

    /// <summary>Counts by bin.</summary>
    public static Html Histogram(string id, string title, IReadOnlyList<(string Bin, int Count)> bins)
    {
        const int left = 8, right = 352, width = 360, height = 96, top = 16;
        double slot = (right - left) / (double)Math.Max(1, bins.Count);
        Scale y = new(0, Math.Max(1, bins.Max(bin => bin.Count)), top + height, top);
        int every = (int)Math.Ceiling(bins.Count / 9.0);
        string description = string.Join("; ", bins.Select(bin => $"up to {bin.Bin} words: {bin.Count}"));
        return Svg(id, title, description, width, top + height + 22, Html.Of($"""
            {Line("grid zero", left, top + height, right, top + height)}
            {bins.Select((bin, index) => Html.Of($"""
                <g><title>up to {bin.Bin} words: {bin.Count}</title>
                {Rect("bar", left + (slot * index) + 1, y.At(bin.Count), Math.Max(1, slot - 2), y.At(0) - y.At(bin.Count))}
                {(index % every == 0 ? Text("tick", left + (slot * (index + 0.5)), top + height + 16, bin.Bin, "middle") : Html.Empty)}</g>
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

    private static Html VerticalGrid(Scale x, int ticks, int top, int bottom, bool zero) => Html.Of($"""
        {x.Ticks(ticks).Select(tick => Html.Of($"""
            {Line(tick == 0 && zero ? "grid zero" : "grid", x.At(tick), top, x.At(tick), bottom)}
            {Text("tick", x.At(tick), bottom + 16, Number(tick, "0.##"), "middle")}
            """))}
        """);

    private static Html Line(string style, double x1, double y1, double x2, double y2) =>
        Html.Of($"""<line class="{style}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>""");

    private static Html Text(string style, double x, double y, string text, string anchor = "start") =>
        Html.Of($"""<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>""");

    private static Html Circle(string style, double x, double y, double r) =>
        Html.Of($"""<circle class="{style}" cx="{x}" cy="{y}" r="{r}"/>""");

    private static Html Rect(string style, double x, double y, double width, double height) =>
        Html.Of($"""<rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}"/>""");

    private static Html Diamond(string style, double x, double y, double r) =>
        Html.Of($"""<path class="{style}" d="M{x} {y - r}L{x + r} {y}L{x} {y + r}L{x - r} {y}Z"/>""");

    private static Html Polyline(string style, IEnumerable<(double X, double Y)> points) =>
        Html.Of($"""<polyline class="{style}" points="{points.Select(point => Html.Of($"{point.X},{point.Y} "))}"/>""");

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

        public double At(double value) =>
            From + ((Math.Clamp(double.IsFinite(value) ? value : Min, Min, Max) - Min) / (Max - Min) * (To - From));

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
