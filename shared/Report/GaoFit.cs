namespace Rlhf.Report;

/// <summary>How a policy was pushed away from its start: by reinforcement learning, or by picking the best of n samples.</summary>
public enum Pressure
{
    Rl,
    BestOfN,
}

/// <summary>
/// A fit of the reward over d = √KL in the forms of Gao, Schulman and Hilton 2022 (section 3.2): R(d) = r₀ + d (α - β log d) for
/// reinforcement learning, r₀ + d (α - β d) for best-of-n. They shift the start r₀ to 0; here it is fitted too.
/// </summary>
/// <param name="Pressure">Which of the two forms.</param>
/// <param name="Reward"><c>gold</c> or <c>proxy</c>.</param>
/// <param name="Points">Points that the three coefficients were fitted to.</param>
/// <param name="Start">r₀: the reward without any optimisation.</param>
/// <param name="Alpha">What the first steps gain per unit of d.</param>
/// <param name="Beta">How fast that fades.</param>
/// <param name="Peak">The d at which the fitted reward peaks, exp(α/β - 1) or α/(2β); null where it never does.</param>
/// <param name="Residual">Root mean square of what the fit leaves, per degree of freedom (points less three).</param>
/// <param name="R2">The share of the variance that the fit explains.</param>
public sealed record GaoFit(
    Pressure Pressure, string Reward, int Points, double Start, double Alpha, double Beta, double? Peak, double Residual, double R2)
{
    /// <summary>Fewer points are not fitted: three of them every curve of this form goes through.</summary>
    public const int LeastPoints = 4;

    /// <summary>The share of the variance below which a fit is reported but not drawn.</summary>
    public const double DrawnFrom = 0.7;

    /// <summary>
    /// The farthest point must be so many times as far from the start as the nearest: points side by side tell nothing of the start or the
    /// bend, and the coefficients that go through them are absurd.
    /// </summary>
    public const double LeastReach = 2;

    /// <summary>The fitted reward at d = √KL.</summary>
    public double At(double distance) => Start + (Alpha * distance) - (Beta * Bend(Pressure, distance));

    /// <summary>
    /// Gold and proxy reward of an online method's slices and of best-of-n, as far as there are points enough. The start is a point of
    /// best-of-n (n = 1, KL 0); the slices begin after the first.
    /// </summary>
    public static IReadOnlyList<GaoFit> All(IReadOnlyList<CurvePoint> slices, IReadOnlyList<CurvePoint> bestOfN) =>
    [
        .. new[]
        {
            Fit(Pressure.Rl, "gold", slices, point => point.GoldReward), Fit(Pressure.Rl, "proxy", slices, point => point.ProxyReward),
            Fit(Pressure.BestOfN, "gold", bestOfN, point => point.GoldReward),
            Fit(Pressure.BestOfN, "proxy", bestOfN, point => point.ProxyReward),
        }.OfType<GaoFit>(),
    ];

    /// <summary>
    /// Least squares; null below <see cref="LeastPoints"/> points, within <see cref="LeastReach"/>, or where they do not determine the
    /// coefficients.
    /// </summary>
    public static GaoFit? Fit(Pressure pressure, string reward, IReadOnlyList<CurvePoint> curve, Func<CurvePoint, double?> value)
    {
        (double D, double Reward)[] points =
        [
            .. from point in curve
               where point.Kl >= 0 && double.IsFinite(point.Kl) && double.IsFinite(value(point) ?? double.NaN)
               select (Math.Sqrt(point.Kl), value(point)!.Value),
        ];
        if (points.Length < LeastPoints || points.Max(point => point.D) < LeastReach * points.Min(point => point.D))
            return null;

        // Normal equations of [1, d, -bend(d)] . [r0, alpha, beta] = reward.
        var system = new double[3, 4];
        foreach ((double d, double measured) in points)
        {
            double[] features = [1, d, -Bend(pressure, d)];
            for (int row = 0; row < 3; row++)
            {
                for (int column = 0; column < 3; column++)
                    system[row, column] += features[row] * features[column];
                system[row, 3] += features[row] * measured;
            }
        }

        if (Solve(system) is not [double start, double alpha, double beta] || !double.IsFinite(start + alpha + beta))
            return null;
        double mean = points.Average(point => point.Reward);
        double total = points.Sum(point => Math.Pow(point.Reward - mean, 2));
        if (!(total > 0))
            return null;
        double? peak = pressure == Pressure.Rl ? Math.Exp((alpha / beta) - 1) : alpha / (2 * beta);
        if (beta <= 0 || alpha <= 0 || !double.IsFinite(peak.Value))
            peak = null;
        var fit = new GaoFit(pressure, reward, points.Length, start, alpha, beta, peak, 0, 0);
        double rest = points.Sum(point => Math.Pow(point.Reward - fit.At(point.D), 2));
        return fit with { Residual = Math.Sqrt(rest / (points.Length - 3)), R2 = 1 - (rest / total) };
    }

    private static double Bend(Pressure pressure, double d) => pressure == Pressure.BestOfN ? d * d : d > 0 ? d * Math.Log(d) : 0;

    /// <summary>Gaussian elimination with pivoting of an augmented 3 x 4 system; null where it is singular.</summary>
    private static double[]? Solve(double[,] system)
    {
        const int n = 3;
        for (int pivot = 0; pivot < n; pivot++)
        {
            int best = Enumerable.Range(pivot, n - pivot).MaxBy(row => Math.Abs(system[row, pivot]));
            if (Math.Abs(system[best, pivot]) < 1e-9)
                return null;
            for (int column = 0; column <= n; column++)
                (system[pivot, column], system[best, column]) = (system[best, column], system[pivot, column]);
            for (int row = 0; row < n; row++)
            {
                if (row == pivot)
                    continue;
                double factor = system[row, pivot] / system[pivot, pivot];
                for (int column = pivot; column <= n; column++)
                    system[row, column] -= factor * system[pivot, column];
            }
        }

        return [.. Enumerable.Range(0, n).Select(row => system[row, n] / system[row, row])];
    }
}
