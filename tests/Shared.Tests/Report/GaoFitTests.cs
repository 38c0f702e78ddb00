using Rlhf.Report;
using Xunit;

namespace Rlhf.Shared.Tests.Report;

public sealed class GaoFitTests
{
    private static readonly double[] Distances = [0.2, 0.3, 0.9, 1.6, 2.2, 3.1];

    [Fact]
    public void Exact_points_of_reinforcement_learning_give_back_their_coefficients()
    {
        CurvePoint[] curve = Curve(d => 0.1 + (d * (0.5 - (0.3 * Math.Log(d)))));

        GaoFit fit = GaoFit.Fit(Pressure.Rl, "gold", curve, point => point.GoldReward)!;

        AssertClose((0.1, 0.5, 0.3), fit);
        Assert.Equal((6, "gold"), (fit.Points, fit.Reward));
        Assert.Equal(Math.Exp((0.5 / 0.3) - 1), fit.Peak!.Value, 6);
        Assert.Equal((1.0, 0.0), (Math.Round(fit.R2, 9), Math.Round(fit.Residual, 6)));
        Assert.True(fit.At(fit.Peak.Value) > fit.At(fit.Peak.Value * 1.1) && fit.At(fit.Peak.Value) > fit.At(fit.Peak.Value * 0.9));
        Assert.Equal(0.1, fit.At(0), 9);
    }

    [Fact]
    public void Exact_points_of_best_of_n_give_back_theirs()
    {
        GaoFit fit = GaoFit.Fit(Pressure.BestOfN, "gold", Curve(d => -0.2 + (d * (0.8 - (0.25 * d)))), point => point.GoldReward)!;

        AssertClose((-0.2, 0.8, 0.25), fit);
        Assert.Equal(0.8 / 0.5, fit.Peak!.Value, 6);
    }

    [Fact]
    public void Residual_counts_the_points_less_the_coefficients()
    {
        // Four points at d = 0, 1, 2, 3; the component 1, -3, 3, -1 is orthogonal to 1, d and d²: all of it is left, squares sum to 20 e².
        double[] left = [1, -3, 3, -1];
        CurvePoint[] curve = [.. left.Select((e, d) => new CurvePoint("p", d, d * d, 0, 1 + (2 * d) - (0.5 * d * d) + (0.01 * e)))];

        GaoFit fit = GaoFit.Fit(Pressure.BestOfN, "gold", curve, point => point.GoldReward)!;

        AssertClose((1, 2, 0.5), fit);
        Assert.Equal(0.01 * Math.Sqrt(20), fit.Residual, 9);
    }

    [Fact]
    public void There_is_no_fit_where_the_points_do_not_determine_one()
    {
        Assert.Empty(GaoFit.All([.. Curve(d => d).Take(3)], []));
        Assert.Empty(GaoFit.All([.. Enumerable.Range(0, 6).Select(step => new CurvePoint("p", step, 1, step, step))], []));
        Assert.Empty(GaoFit.All([.. Enumerable.Range(0, 6).Select(step => new CurvePoint("p", step, step, 0, 0.5))], []));
        Assert.Empty(GaoFit.All([.. Curve(d => d).Select(point => point with { Kl = double.NaN })], []));
    }

    [Fact]
    public void Points_side_by_side_are_not_fitted()
    {
        // What a short run measured: exact coefficients of points like these are in the hundreds.
        CurvePoint[] curve =
            [new("rloo 10", 10, 0.87, 0.44, 0.39), new("rloo 20", 20, 1.01, 0.48, 0.6), new("rloo 30", 30, 0.82, 0.51, 0.61), new("rloo 40", 40, 0.82, 0.52, 0.61)];

        Assert.Empty(GaoFit.All(curve, []));
        Assert.NotEmpty(GaoFit.All([new("rloo 2", 2, 0.2, 0.3, 0.3), .. curve], []));
    }

    [Fact]
    public void Rewards_that_only_rise_have_no_peak()
    {
        CurvePoint[] curve = [.. Curve(d => d * d).Select(point => point with { GoldReward = null, ProxyReward = point.GoldReward!.Value })];

        GaoFit fit = Assert.Single(GaoFit.All([], curve));

        Assert.Equal((Pressure.BestOfN, "proxy"), (fit.Pressure, fit.Reward));
        Assert.Null(fit.Peak);
    }

    private static CurvePoint[] Curve(Func<double, double> gold) =>
        [.. Distances.Select((d, step) => new CurvePoint("p", step, d * d, 0, gold(d)))];

    private static void AssertClose((double Start, double Alpha, double Beta) expected, GaoFit fit)
    {
        Assert.Equal(expected.Start, fit.Start, 8);
        Assert.Equal(expected.Alpha, fit.Alpha, 8);
        Assert.Equal(expected.Beta, fit.Beta, 8);
    }
}
