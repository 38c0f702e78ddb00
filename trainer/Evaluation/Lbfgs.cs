namespace Rlhf.Trainer.Evaluation;

/// <summary>
/// Minimises a smooth convex function by L-BFGS (Nocedal and Wright 2006, algorithms 7.4 and 7.5) with backtracking until the decrease
/// is sufficient (Armijo). Deterministic: equal functions and starts give equal bits.
/// </summary>
internal static class Lbfgs
{
    private const int Memory = 10;
    private const int MaxIterations = 300;
    private const int MaxBacktracks = 40;

    /// <summary>The share of the first gradient's norm at which a point counts as the minimum.</summary>
    private const double Tolerance = 1e-4;

    /// <summary>The share of the predicted decrease that a step must bring.</summary>
    private const double Sufficient = 1e-4;

    /// <param name="function">Value and gradient at a point.</param>
    /// <param name="start">Where to begin; not changed.</param>
    public static double[] Minimise(Func<double[], (double Value, double[] Gradient)> function, double[] start)
    {
        double[] point = start;
        (double value, double[] gradient) = function(point);
        double enough = Tolerance * Math.Max(1, Norm(function(new double[start.Length]).Gradient));
        var history = new LinkedList<(double[] Step, double[] Change, double Curvature)>();
        for (int iteration = 0; iteration < MaxIterations && Norm(gradient) > enough; iteration++)
        {
            double[] direction = Direction(gradient, history);
            double slope = Dot(direction, gradient);
            double length = history.Count == 0 ? 1 / Math.Max(1, Norm(gradient)) : 1;
            (double[] Point, double Value, double[] Gradient)? next = null;
            for (int backtrack = 0; backtrack < MaxBacktracks && next is null; backtrack++, length /= 2)
            {
                double[] candidate = Plus(point, length, direction);
                (double candidateValue, double[] candidateGradient) = function(candidate);
                if (candidateValue <= value + Sufficient * length * slope)
                    next = (candidate, candidateValue, candidateGradient);
            }

            if (next is not { } reached)
                break; // as low as the precision of the sums allows
            double[] step = Plus(reached.Point, -1, point), change = Plus(reached.Gradient, -1, gradient);
            double curvature = Dot(step, change);
            if (curvature > 0)
                history.AddFirst((step, change, curvature));
            if (history.Count > Memory)
                history.RemoveLast();
            (point, value, gradient) = reached;
        }

        return point;
    }

    /// <summary>The two-loop recursion: minus the approximate inverse Hessian times the gradient.</summary>
    private static double[] Direction(double[] gradient, LinkedList<(double[] Step, double[] Change, double Curvature)> history)
    {
        double[] direction = [.. gradient.Select(g => -g)];
        var shares = new Stack<double>();
        foreach ((double[] step, double[] change, double curvature) in history)
        {
            double share = Dot(step, direction) / curvature;
            shares.Push(share);
            direction = Plus(direction, -share, change);
        }

        if (history.First is { Value: var newest })
            direction = [.. direction.Select(d => d * newest.Curvature / Dot(newest.Change, newest.Change))];
        for (var entry = history.Last; entry is not null; entry = entry.Previous)
        {
            (double[] step, double[] change, double curvature) = entry.Value;
            direction = Plus(direction, shares.Pop() - Dot(change, direction) / curvature, step);
        }

        return direction;
    }

    private static double[] Plus(double[] a, double scale, double[] b)
    {
        double[] sum = new double[a.Length];
        for (int i = 0; i < a.Length; i++)
            sum[i] = a[i] + scale * b[i];
        return sum;
    }

    private static double Dot(double[] a, double[] b)
    {
        double sum = 0;
        for (int i = 0; i < a.Length; i++)
            sum += a[i] * b[i];
        return sum;
    }

    private static double Norm(double[] a) => Math.Sqrt(Dot(a, a));
}
