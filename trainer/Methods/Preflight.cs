using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Methods;

/// <summary>A numerical invariant does not hold: training on would burn hours on wrong numbers.</summary>
/// <param name="check">The invariant.</param>
/// <param name="value">What was measured.</param>
/// <param name="limit">What it may be at most.</param>
/// <param name="remedy">Likely causes.</param>
public sealed class PreflightFailedException(string check, double value, double limit, string remedy)
    : Exception(FormattableString.Invariant($"Preflight: {check} is {value:g4}, at most {limit:g4} is allowed. {remedy}"))
{
    public string Check { get; } = check;

    public double Value { get; } = value;
}

/// <summary>Numerical checks that cost a second and catch what otherwise shows after hours (section 6 of the reference).</summary>
public static class Preflight
{
    /// <summary>The largest change of a reward when sequences are scored alone, without padding, instead of in one right-padded
    /// batch.</summary>
    public static double PadInvariance(Transformer scoring, IReadOnlyList<int[]> sequences, int padId)
    {
        float[] together = Rewards.Score(scoring, sequences, padId);
        return sequences.Index().Max(row => Math.Abs((double)Rewards.Score(scoring, [row.Item], padId)[0] - together[row.Index]));
    }
}
