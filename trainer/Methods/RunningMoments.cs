namespace Rlhf.Trainer.Methods;

/// <summary>
/// Mean and population variance of all values seen, merged batch by batch (Chan, Golub and LeVeque 1979). A value: the checkpoint stores it
/// whole.
/// </summary>
public sealed record RunningMoments(double Mean = 0, double Variance = 0, long Count = 0)
{
    /// <summary>Standard deviation with Bessel's correction; 1 before two values have come, so that it is safe to divide by.</summary>
    public double StandardDeviation => Count < 2 ? 1 : Math.Sqrt(Variance * Count / (Count - 1));

    /// <summary>The moments with one more batch of values in them.</summary>
    public RunningMoments Updated(ReadOnlySpan<double> batch)
    {
        if (batch.IsEmpty)
            return this;
        double sum = 0;
        foreach (double value in batch)
            sum += value;
        double mean = sum / batch.Length;
        double squares = 0;
        foreach (double value in batch)
            squares += (value - mean) * (value - mean);

        long count = Count + batch.Length;
        double delta = mean - Mean;
        double total = Variance * Count + squares + delta * delta * Count * batch.Length / count;
        return new RunningMoments(Mean + delta * batch.Length / count, total / count, count);
    }
}
