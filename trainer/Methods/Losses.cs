using Rlhf.Spec;
using Rlhf.Trainer.Native;
using static TorchSharp.torch;
using static TorchSharp.torch.nn.functional;

namespace Rlhf.Trainer.Methods;

/// <summary>The clipped policy loss of one minibatch. All scalars; only <see cref="Loss"/> carries a gradient.</summary>
/// <param name="Loss">To be minimised.</param>
/// <param name="ClipFraction">Share of the tokens on which the clip decided.</param>
/// <param name="ApproximateKl">Mean of (new - old log-probability)^2 / 2: how far the policy has moved since the rollout.</param>
/// <param name="Ratio">exp(new - old), [batch, time], meaningful where the mask keeps.</param>
public readonly record struct PolicyLoss(Tensor Loss, Tensor ClipFraction, Tensor ApproximateKl, Tensor Ratio);

/// <summary>The clipped value loss of one minibatch, scalars; only <see cref="Loss"/> carries a gradient.</summary>
public readonly record struct ValueLoss(Tensor Loss, Tensor ClipFraction);

/// <summary>A preference loss over pairs: per-pair losses and implicit rewards, each [pairs].</summary>
public readonly record struct PreferenceLoss(Tensor Losses, Tensor ChosenRewards, Tensor RejectedRewards);

/// <summary>
/// The loss functions of the methods: pure, and each as its paper has it. Log-probabilities are those of the tokens actually chosen, in
/// nats, in at least 32-bit precision; masks are floating-point 0/1 tensors of the same shape.
/// </summary>
public static class Losses
{
    /// <summary>
    /// log p(token) at a sampling temperature. Policy, old policy and reference must all use the temperature that sampled the tokens,
    /// or the first ratio is not 1.
    /// </summary>
    /// <param name="logits">[..., vocabulary]; half-precision logits are widened first.</param>
    /// <param name="tokens">[...], int64.</param>
    /// <param name="temperature">Divides the logits; above 0.</param>
    /// <returns>[...], float32 (float64 for float64 logits).</returns>
    public static Tensor LogProbs(Tensor logits, Tensor tokens, double temperature = 1) =>
        log_softmax(Tempered(logits, temperature), -1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1);

    /// <summary><see cref="LogProbs"/> with gradient and <see cref="Entropy"/> without, from one softmax.</summary>
    public static (Tensor LogProbs, Tensor Entropy) LogProbsAndEntropy(Tensor logits, Tensor tokens, double temperature = 1)
    {
        Tensor all = log_softmax(Tempered(logits, temperature), -1);
        Tensor logProbs = all.gather(-1, tokens.unsqueeze(-1)).squeeze(-1);
        using (no_grad())
            return (logProbs, -(all.exp() * all).sum(-1));
    }

    /// <summary>Entropy in nats of each row of logits at a temperature: [..., vocabulary] to [...].</summary>
    public static Tensor Entropy(Tensor logits, double temperature = 1)
    {
        Tensor logProbs = log_softmax(Tempered(logits, temperature), -1);
        return -(logProbs.exp() * logProbs).sum(-1);
    }

    /// <summary>
    /// Token cross-entropy over the kept positions, divided by <paramref name="tokens"/>: the number of kept tokens of the whole
    /// optimizer step, not of this micro-batch, so that accumulated gradients equal those of the large batch.
    /// </summary>
    /// <param name="logits">[..., vocabulary].</param>
    /// <param name="targets">[...], int64: the token each row of logits has to predict.</param>
    /// <param name="mask">[...], 1 where the target counts.</param>
    /// <param name="tokens">The global token normaliser.</param>
    public static Tensor CrossEntropy(Tensor logits, Tensor targets, Tensor mask, double tokens) =>
        Masked.Sum(-LogProbs(logits, targets), mask).DividedBy(tokens);

    /// <summary>
    /// PPO's clipped surrogate (Schulman et al. 2017, eq. 7), negated: mean over tokens of max(-A r, -A clip(r, 1 - low, 1 + high)).
    /// </summary>
    /// <param name="logProbs">[batch, time], the policy being trained.</param>
    /// <param name="oldLogProbs">[batch, time], the policy that sampled; no gradient.</param>
    /// <param name="advantages">[batch, time].</param>
    /// <param name="mask">[batch, time].</param>
    /// <param name="clipLow">ε below 1.</param>
    /// <param name="clipHigh">ε above 1; equal to <paramref name="clipLow"/> in PPO, wider in DAPO's clip-higher.</param>
    /// <param name="tokens">Global token normaliser of the optimizer step; the number of kept tokens where null.</param>
    public static PolicyLoss ClippedPolicy(
        Tensor logProbs, Tensor oldLogProbs, Tensor advantages, Tensor mask, double clipLow, double clipHigh, double? tokens = null)
    {
        Tensor logRatio = logProbs - oldLogProbs;
        (Tensor losses, Tensor clipped, Tensor ratio) = ClippedSurrogate(logRatio, advantages, clipLow, clipHigh);
        Tensor loss = tokens is { } count ? Masked.Sum(losses, mask).DividedBy(count) : Masked.Mean(losses, mask);
        using (no_grad())
            return new PolicyLoss(loss, Masked.Mean(clipped, mask), Masked.Mean(logRatio.Squared().DividedBy(2), mask), ratio.detach());
    }

    /// <summary>
    /// Value loss clipped around the values at rollout time, as in OpenAI's PPO: half the masked mean of the larger of the two squared
    /// errors.
    /// </summary>
    /// <param name="values">[batch, time], the critic being trained.</param>
    /// <param name="oldValues">[batch, time], its estimates when the rollout was made.</param>
    /// <param name="returns">[batch, time], from unwhitened advantages.</param>
    /// <param name="mask">[batch, time].</param>
    /// <param name="clip">Largest move away from the old value that still counts.</param>
    /// <param name="tokens">Global token normaliser of the optimizer step; the number of kept tokens where null.</param>
    public static ValueLoss ClippedValue(Tensor values, Tensor oldValues, Tensor returns, Tensor mask, double clip, double? tokens = null)
    {
        Tensor squared = (values - returns).Squared();
        // Clamped between bounds, not as old + clamp(difference): inside the range the value stays exact, so no rounding counts as clipped.
        Tensor squaredClipped = (values.maximum(oldValues.Minus(clip)).minimum(oldValues.Plus(clip)) - returns).Squared();
        Tensor larger = max(squared, squaredClipped);
        Tensor loss = (tokens is { } count ? Masked.Sum(larger, mask).DividedBy(count) : Masked.Mean(larger, mask)).Times(0.5);
        using (no_grad())
            return new ValueLoss(loss, Masked.Mean((squaredClipped > squared).to(mask.dtype), mask));
    }

    /// <summary>
    /// Pairwise reward-model loss (Stiennon et al. 2020, section 3.4): mean of -log σ(chosen - rejected - margin), plus
    /// <paramref name="centre"/> × mean((chosen + rejected)²), which keeps rewards around 0 (Eisenstein et al. 2023).
    /// </summary>
    /// <param name="chosen">[pairs].</param>
    /// <param name="rejected">[pairs].</param>
    /// <param name="margin">[pairs] (Llama 2, eq. 2), or null.</param>
    /// <param name="centre">Coefficient of the centring term; 0.01 where wanted.</param>
    public static Tensor PairwiseReward(Tensor chosen, Tensor rejected, Tensor? margin = null, double centre = 0)
    {
        Tensor gap = margin is null ? chosen - rejected : chosen - rejected - margin;
        Tensor loss = -logsigmoid(gap).mean();
        return centre == 0 ? loss : loss.Plus(chosen.Plus(rejected).Squared().mean().Times(centre));
    }

    /// <summary>
    /// K-wise reward-model loss (InstructGPT, eq. 1): for each prompt the mean over its pairs of -log σ(better - worse - margin), then
    /// the mean over prompts. Every completion is scored once, however many pairs it is in.
    /// </summary>
    /// <param name="rewards">[completions], all completions of all prompts.</param>
    /// <param name="pairs">The ranked pairs among them, see <see cref="RankedPairs.AllPairs"/>.</param>
    /// <param name="centre">As in <see cref="PairwiseReward"/>.</param>
    public static Tensor KWiseReward(Tensor rewards, RankedPairs pairs, double centre = 0)
    {
        Tensor better = rewards.index_select(0, tensor(pairs.Better, device: rewards.device));
        Tensor worse = rewards.index_select(0, tensor(pairs.Worse, device: rewards.device));
        Tensor weights = tensor(pairs.Weights, dtype: rewards.dtype, device: rewards.device);
        Tensor margins = tensor(pairs.Margins, dtype: rewards.dtype, device: rewards.device);
        Tensor losses = -logsigmoid(better - worse - margins);
        if (centre != 0)
            losses = losses.Plus(better.Plus(worse).Squared().Times(centre));
        return (losses * weights).sum();
    }

    /// <summary>
    /// Direct preference optimisation and its relatives, per pair.
    /// </summary>
    /// <param name="policyChosen">[pairs], summed log-probability of the chosen completion (for IPO: averaged over its tokens).</param>
    /// <param name="policyRejected">[pairs].</param>
    /// <param name="referenceChosen">[pairs], under the frozen reference; zeros for the reference-free variant.</param>
    /// <param name="referenceRejected">[pairs].</param>
    /// <param name="beta">β: for DPO the strength of the KL constraint, for IPO its τ.</param>
    /// <param name="kind">The shape of the loss.</param>
    /// <param name="labelSmoothing">Probability that a label is wrong (conservative DPO); below 0.5, 0 for IPO.</param>
    public static PreferenceLoss Preference(
        Tensor policyChosen, Tensor policyRejected, Tensor referenceChosen, Tensor referenceRejected,
        double beta, PreferenceLossKind kind = PreferenceLossKind.Sigmoid, double labelSmoothing = 0)
    {
        Tensor chosen = policyChosen - referenceChosen;
        Tensor rejected = policyRejected - referenceRejected;
        Tensor gap = chosen - rejected;
        Tensor losses = kind switch
        {
            PreferenceLossKind.Sigmoid when labelSmoothing == 0 => -logsigmoid(gap.Times(beta)),
            PreferenceLossKind.Sigmoid => (-logsigmoid(gap.Times(beta))).Times(1 - labelSmoothing) - logsigmoid(gap.Times(-beta)).Times(labelSmoothing),
            PreferenceLossKind.Ipo => gap.Minus(1 / (2 * beta)).Squared(),
            _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, "unknown preference loss"),
        };
        return new PreferenceLoss(losses, chosen.detach().Times(beta), rejected.detach().Times(beta));
    }

    /// <summary>
    /// The policy loss of GRPO (Shao et al. 2024, eq. 3): clipped surrogate of one advantage per sequence, plus β × k3 against the
    /// reference. Clip fraction and KL are means over tokens.
    /// </summary>
    /// <param name="logProbs">[batch, time].</param>
    /// <param name="oldLogProbs">[batch, time].</param>
    /// <param name="referenceLogProbs">[batch, time]; may be null where β is 0.</param>
    /// <param name="advantages">[batch].</param>
    /// <param name="mask">[batch, time]; every row keeps at least one.</param>
    /// <param name="clipLow">ε below 1.</param>
    /// <param name="clipHigh">ε above 1.</param>
    /// <param name="beta">Coefficient of the KL term inside the loss.</param>
    /// <param name="aggregation">How tokens are averaged.</param>
    /// <param name="maxLength">Maximal response length, for <see cref="TokenAggregation.FixedLength"/>.</param>
    /// <param name="step">Sequences and tokens of the optimizer step, which normalise it; those given here where null.</param>
    public static PolicyLoss GroupPolicy(
        Tensor logProbs, Tensor oldLogProbs, Tensor? referenceLogProbs, Tensor advantages, Tensor mask,
        double clipLow, double clipHigh, double beta, TokenAggregation aggregation, long maxLength = 0,
        (long Sequences, long Tokens)? step = null)
    {
        Tensor logRatio = logProbs - oldLogProbs;
        (Tensor losses, Tensor clipped, Tensor ratio) = ClippedSurrogate(logRatio, advantages.unsqueeze(1), clipLow, clipHigh);
        if (beta != 0)
        {
            ArgumentNullException.ThrowIfNull(referenceLogProbs);
            losses = losses.Plus(Kl.K3(logProbs, referenceLogProbs).Times(beta));
        }

        long sequences = step?.Sequences ?? mask.shape[0];
        Tensor loss = aggregation switch
        {
            TokenAggregation.TokenMean => step is { Tokens: var tokens } ? Masked.Sum(losses, mask).DividedBy(tokens) : Masked.Mean(losses, mask),
            TokenAggregation.SequenceMean => Masked.MeanOfRowMeans(losses, mask).Times((double)mask.shape[0] / sequences),
            TokenAggregation.FixedLength => Masked.Sum(losses, mask).DividedBy(sequences * maxLength),
            _ => throw new ArgumentOutOfRangeException(nameof(aggregation), aggregation, "unknown aggregation"),
        };
        using (no_grad())
            return new PolicyLoss(loss, Masked.Mean(clipped, mask), Masked.Mean(logRatio.Squared().DividedBy(2), mask), ratio.detach());
    }

    /// <summary>Per-token clipped losses, a 0/1 tensor of where the clip decided, and the ratio, each of the log-ratio's shape.</summary>
    private static (Tensor Losses, Tensor Clipped, Tensor Ratio) ClippedSurrogate(
        Tensor logRatio, Tensor advantages, double clipLow, double clipHigh)
    {
        Tensor ratio = logRatio.exp();
        Tensor unclipped = -advantages * ratio;
        Tensor clipped = -advantages * ratio.Within(1 - clipLow, 1 + clipHigh);
        return (max(unclipped, clipped), (clipped > unclipped).to(logRatio.dtype), ratio);
    }

    private static Tensor Tempered(Tensor logits, double temperature)
    {
        Tensor wide = logits.dtype is ScalarType.BFloat16 or ScalarType.Float16 ? logits.to(ScalarType.Float32) : logits;
        return temperature == 1 ? wide : wide.DividedBy(temperature);
    }

    private static Tensor max(Tensor left, Tensor right) => left.maximum(right);
}
