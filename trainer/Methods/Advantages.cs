using Rlhf.Trainer.Native;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>From rewards to advantages. Nothing here carries a gradient: call it under <c>no_grad</c>.</summary>
public static class Advantages
{
    /// <summary>
    /// Per-token rewards of a rollout: -β × KL at every response token, plus the sequence's score at its last one (Ziegler et al. 2019,
    /// eq. 2).
    /// </summary>
    /// <param name="scores">[batch], one score a sequence.</param>
    /// <param name="kl">[batch, time], k1 of each token.</param>
    /// <param name="mask">[batch, time], 1 on response tokens; every row keeps at least one.</param>
    /// <param name="klCoefficient">β.</param>
    /// <returns>[batch, time], 0 where masked.</returns>
    public static Tensor TokenRewards(Tensor scores, Tensor kl, Tensor mask, double klCoefficient)
    {
        Tensor positions = TensorArithmetic.Range(0, mask.shape[1], mask.dtype, mask.device);
        Tensor last = (mask * positions.Plus(1)).argmax(dim: 1, keepdim: true);
        return (kl.Times(-klCoefficient) * mask).scatter_add(1, last, scores.unsqueeze(1));
    }

    /// <summary>Rewards of whole sequences: the score less β × the KL of all tokens (Ahmadian et al. 2024, eq. 3).</summary>
    /// <param name="scores">[batch].</param>
    /// <param name="kl">[batch, time], k1 of each token.</param>
    /// <param name="mask">[batch, time].</param>
    /// <param name="klCoefficient">β.</param>
    /// <returns>[batch].</returns>
    public static Tensor Penalised(Tensor scores, Tensor kl, Tensor mask, double klCoefficient) =>
        scores - (kl * mask).sum(-1).Times(klCoefficient);

    /// <summary>
    /// Generalised advantage estimation (Schulman et al. 2016, eq. 16) over the kept positions; the value after the last one is 0.
    /// Positions that the mask drops inside a row are skipped: the recursion is carried across them.
    /// </summary>
    /// <param name="rewards">[batch, time].</param>
    /// <param name="values">[batch, time], the critic's estimates when the rollout was made.</param>
    /// <param name="mask">[batch, time].</param>
    /// <param name="gamma">Discount; 1 in RLHF.</param>
    /// <param name="lambda">λ, .95 by default in the literature.</param>
    /// <returns>Advantages (not whitened) and returns = advantages + values, both [batch, time] and 0 where masked.</returns>
    public static (Tensor Advantages, Tensor Returns) Gae(
        Tensor rewards, Tensor values, Tensor mask, double gamma = 1, double lambda = 0.95)
    {
        long time = rewards.shape[1];
        Tensor[] columns = new Tensor[time];
        Tensor nextValue = zeros_like(rewards.select(1, 0));
        Tensor nextAdvantage = zeros_like(nextValue);
        for (long t = time - 1; t >= 0; t--)
        {
            Tensor kept = mask.select(1, t).IsPositive();
            Tensor value = values.select(1, t);
            Tensor delta = rewards.select(1, t).Plus(nextValue.Times(gamma)) - value;
            nextAdvantage = where(kept, delta.Plus(nextAdvantage.Times(gamma * lambda)), nextAdvantage);
            nextValue = where(kept, value, nextValue);
            columns[t] = nextAdvantage;
        }

        Tensor advantages = stack(columns, dim: 1) * mask;
        return (advantages, advantages.Plus(values * mask));
    }

    /// <summary>
    /// REINFORCE leave-one-out (Ahmadian et al. 2024, eq. 8): each reward minus the mean of the other samples of its prompt.
    /// </summary>
    /// <param name="rewards">[prompts, samples], at least 2 samples.</param>
    public static Tensor LeaveOneOut(Tensor rewards)
    {
        long samples = rewards.shape[1];
        if (samples < 2)
            throw new ArgumentException($"leave-one-out needs at least 2 samples a prompt, got {samples}", nameof(rewards));
        return (rewards - rewards.mean([1], keepdim: true)).Times((double)samples / (samples - 1));
    }

    /// <summary>
    /// Group advantages of GRPO (Shao et al. 2024, section 4.1.2): each reward minus its group's mean, over the group's standard deviation
    /// (unbiased). Without <paramref name="scale"/> only the mean is taken off (Dr. GRPO, Liu et al. 2025).
    /// </summary>
    /// <param name="rewards">[prompts, samples], at least 2 samples.</param>
    /// <param name="scale">Divide by the standard deviation.</param>
    /// <param name="epsilon">Added to the standard deviation: 1e-4 in TRL, 1e-6 in verl.</param>
    public static Tensor Group(Tensor rewards, bool scale = true, double epsilon = 1e-4)
    {
        if (rewards.shape[1] < 2)
            throw new ArgumentException($"group advantages need at least 2 samples a prompt, got {rewards.shape[1]}", nameof(rewards));
        Tensor centred = rewards - rewards.mean([1], keepdim: true);
        return scale ? centred / rewards.std(1, unbiased: true, keepdim: true).Plus(epsilon) : centred;
    }
}
