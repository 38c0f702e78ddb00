namespace Rlhf.Trainer.Methods;

/// <summary>What one micro-batch adds to the figures of its optimizer step. Means are weighted by its share of the step.</summary>
/// <param name="Loss">Its share of the policy loss.</param>
/// <param name="ClipFraction">Share of the ratios on which the clip decided.</param>
/// <param name="ApproximateKl">How far the policy has moved since the rollout, see <see cref="PolicyLoss"/>.</param>
/// <param name="Entropy">Of the policy, per token in nats.</param>
/// <param name="Ratios">exp(new - old log-probability) of each token (RLOO: of each response).</param>
internal sealed record PolicyShare(double Loss, double ClipFraction, double ApproximateKl, double Entropy, float[] Ratios);

/// <summary>The figures of one optimizer step of the policy.</summary>
internal sealed record PolicyFigures(
    double Loss, double GradientNorm, double ClipFraction, double ApproximateKl, double Entropy,
    double RatioMean, double RatioMax, double RatioVariance, double FurthestRatio)
{
    /// <summary>Adds up the micro-batches of a step.</summary>
    public static PolicyFigures Of(IReadOnlyList<PolicyShare> shares, double gradientNorm)
    {
        float[] ratios = [.. shares.SelectMany(share => share.Ratios)];
        double mean = ratios.Average();
        return new PolicyFigures(
            shares.Sum(share => share.Loss), gradientNorm, shares.Sum(share => share.ClipFraction),
            shares.Sum(share => share.ApproximateKl), shares.Sum(share => share.Entropy), mean, ratios.Max(), ratios.Average(ratio => (ratio - mean) * (ratio - mean)),
            ratios.MaxBy(ratio => Math.Abs(ratio - 1)));
    }

    /// <summary>The means over an iteration's steps, as policy/... and loss/policy.</summary>
    public static void Report(IReadOnlyList<PolicyFigures> steps, double learningRate, Dictionary<string, double> metrics)
    {
        metrics["policy/ratio_first_minibatch"] = steps[0].FurthestRatio;
        metrics["policy/approxkl"] = steps.Average(step => step.ApproximateKl);
        metrics["policy/clipfrac"] = steps.Average(step => step.ClipFraction);
        metrics["policy/ratio_mean"] = steps.Average(step => step.RatioMean);
        metrics["policy/ratio_max"] = steps.Max(step => step.RatioMax);
        metrics["policy/ratio_var"] = steps.Average(step => step.RatioVariance);
        metrics["policy/entropy"] = steps.Average(step => step.Entropy);
        metrics["policy/grad_norm"] = steps.Average(step => step.GradientNorm);
        metrics["policy/lr"] = learningRate;
        metrics["loss/policy"] = steps.Average(step => step.Loss);
    }
}
