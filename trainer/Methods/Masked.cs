using Rlhf.Trainer.Native;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Statistics over the positions of a tensor that a 0/1 mask keeps. Padding must never dilute a mean (TRL #2281, #6121), so every reduction
/// of the methods goes through here.
/// </summary>
/// <remarks>
/// <c>values</c> and <c>mask</c> have one shape, usually [batch, time]; the mask is a floating-point tensor. Masked-out values may be
/// anything finite. Results are scalars (shape []) unless said otherwise.
/// </remarks>
public static class Masked
{
    /// <summary>Added to a variance before the reciprocal square root, as in OpenAI's and TRL's whitening.</summary>
    public const double VarianceEpsilon = 1e-8;

    /// <summary>Sum of the kept values.</summary>
    public static Tensor Sum(Tensor values, Tensor mask) => (values * mask).sum();

    /// <summary>Mean of the kept values.</summary>
    public static Tensor Mean(Tensor values, Tensor mask) => Sum(values, mask) / mask.sum();

    /// <summary>Mean over the rows of each row's own masked mean (the sequence-level aggregation of GRPO). Rows without a kept position
    /// are left out.</summary>
    public static Tensor MeanOfRowMeans(Tensor values, Tensor mask)
    {
        Tensor counts = mask.sum(-1);
        Tensor rowMeans = (values * mask).sum(-1) / counts.AtLeast(1);
        return rowMeans.sum() / counts.AtMost(1).sum();
    }

    /// <summary>Variance of the kept values: unbiased (Bessel's n - 1) by default, else the population's.</summary>
    public static Tensor Variance(Tensor values, Tensor mask, bool unbiased = true)
    {
        Tensor count = mask.sum();
        Tensor variance = Mean((values - Mean(values, mask)).Squared(), mask);
        return unbiased ? variance * (count / count.Minus(1).AtLeast(1)) : variance;
    }

    /// <summary>
    /// Scales the values to unit variance; with <paramref name="shiftMean"/> also to mean 0 (advantages), without it the mean stays
    /// (rewards). Masked-out positions of the result are 0.
    /// </summary>
    public static Tensor Whiten(Tensor values, Tensor mask, bool shiftMean = true)
    {
        Tensor mean = Mean(values, mask);
        Tensor whitened = (values - mean) * Variance(values, mask).Plus(VarianceEpsilon).rsqrt();
        return (shiftMean ? whitened : whitened.Plus(mean)) * mask;
    }

    /// <summary>
    /// Share of the variance of <paramref name="returns"/> that <paramref name="values"/> explain: 1 - Var(returns - values) /
    /// Var(returns). 1 is a perfect critic, 0 one that knows the mean only, below 0 worse than that. 0 where the returns do not vary.
    /// </summary>
    public static double ExplainedVariance(Tensor values, Tensor returns, Tensor mask)
    {
        double total = Variance(returns, mask).ToDouble();
        return total <= 0 ? 0 : 1 - Variance(returns - values, mask).ToDouble() / total;
    }
}
