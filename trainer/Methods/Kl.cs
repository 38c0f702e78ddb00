using Rlhf.Trainer.Native;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Estimators of KL(policy || reference) from the log-probabilities of tokens that the policy sampled, elementwise
/// (Schulman, "Approximating KL divergence", 2020). The log-ratio is always policy minus reference.
/// </summary>
public static class Kl
{
    /// <summary>k1 = log p - log q: unbiased, may be negative on a sample. A batch mean below 0 points to a sampling or log-probability
    /// mismatch.</summary>
    public static Tensor K1(Tensor logProbs, Tensor referenceLogProbs) => logProbs - referenceLogProbs;

    /// <summary>k2 = (log p - log q)^2 / 2: biased, never negative; its gradient is that of the true KL.</summary>
    public static Tensor K2(Tensor logProbs, Tensor referenceLogProbs) => (logProbs - referenceLogProbs).Squared().DividedBy(2);

    /// <summary>k3 = q/p - 1 - log(q/p): unbiased, never negative.</summary>
    public static Tensor K3(Tensor logProbs, Tensor referenceLogProbs)
    {
        Tensor logRatio = referenceLogProbs - logProbs;
        return logRatio.expm1() - logRatio;
    }
}
