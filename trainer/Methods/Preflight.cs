using Rlhf.Spec;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>A numerical invariant does not hold: training on would burn hours on wrong numbers.</summary>
/// <param name="stage">The stage that it was to start.</param>
/// <param name="check">The invariant, as the metric is named.</param>
/// <param name="value">What was measured.</param>
/// <param name="limit">What it may be at most.</param>
/// <param name="cause">Likely causes.</param>
public sealed class PreflightFailedException(string stage, string check, double value, double limit, string cause)
    : Exception(FormattableString.Invariant(
        $"Preflight before {stage.ToUpperInvariant()}: {check} is {value:g4}; at most {limit:g4} is allowed. {cause}"))
{
    /// <summary>The invariant that failed.</summary>
    public string Check { get; } = check;

    /// <summary>What was measured.</summary>
    public double Value { get; } = value;
}

/// <summary>
/// Checks that cost a second before a policy learns and catch what otherwise shows after hours, as negative KL or a reward that never rises
/// (section 6.1 to 6.3 of the reference; Huang et al. 2024, details 7 and 13).
/// </summary>
public static class Preflight
{
    /// <summary>Largest |ratio - 1| and |log-ratio| that 32-bit arithmetic explains.</summary>
    private const double RatioTolerance = 1e-6;

    /// <summary>Largest change of a log-probability or reward that another summation order explains.</summary>
    private const double PaddingTolerance = 1e-3;

    /// <summary>
    /// The same with bfloat16 products: logits of 16 to 32 are .125 apart, and layers add their share; a missing mask moves nats. The ratio's
    /// tolerance stays, since old log-probabilities come from the same kernels on the same shapes.
    /// </summary>
    private const double HalfPaddingTolerance = 0.5;

    private const int Prompts = 8;

    /// <summary>
    /// Runs every check on responses to the first prompts: pad_is_eos, ratio_error (the policy against its own old log-probabilities),
    /// kl_error (the policy against the reference it starts from), policy_pad_error and reward_pad_error (a row alone against the same row
    /// in a padded batch), decode_error (how far the cached greedy decoder's tokens fall short of the uncached maximum, in nats).
    /// </summary>
    /// <param name="stage">The stage, for the error.</param>
    /// <param name="policy">The policy before its first step.</param>
    /// <param name="reference">The frozen reference.</param>
    /// <param name="reward">What scores the answers.</param>
    /// <param name="prompts">Prompts; the first few are answered.</param>
    /// <param name="maxNewTokens">The longest answer.</param>
    /// <param name="temperature">The stage's temperature.</param>
    /// <param name="tokenizer">For its end and padding tokens.</param>
    /// <param name="seed">Seeds the sampling.</param>
    /// <returns>The measured values by "preflight/{check}".</returns>
    /// <exception cref="PreflightFailedException">One of them is too large.</exception>
    public static IReadOnlyDictionary<string, double> Check(
        string stage, Transformer policy, Transformer reference, Transformer? reward, IReadOnlyList<int[]> prompts, int maxNewTokens,
        double temperature, ITokenizer tokenizer, ulong seed)
    {
        Dictionary<string, double> measured = [];
        int padId = tokenizer.PadId;
        double paddingTolerance = policy.Precision == Precision.Bf16 ? HalfPaddingTolerance : PaddingTolerance;
        Require("pad_is_eos", padId == tokenizer.EosId ? 1 : 0, 0, "Padding and end token must differ, or the model never learns to stop.");

        Episode[] episodes = Episodes.Sample(policy, [.. prompts.Take(Prompts)], maxNewTokens, temperature, seed, tokenizer);
        float[][] old = Episodes.LogProbs(policy, episodes, temperature, padId);
        float[][] again = Episodes.LogProbs(policy, episodes, temperature, padId);
        Require("ratio_error", Largest(old, again, (o, n) => Math.Abs(Math.Exp((double)n - o) - 1)), RatioTolerance,
            "The forward pass is not deterministic; the ratios would not start at 1.");
        Require("kl_error", Largest(old, Episodes.LogProbs(reference, episodes, temperature, padId), Distance), RatioTolerance,
            "The policy does not start from the reference; look for a wrong model or a temperature applied to one of them only.");

        float[][] alone = [.. episodes.Select(episode => Episodes.LogProbs(policy, [episode], temperature, padId)[0])];
        Require("policy_pad_error", Largest(old, alone, Distance), paddingTolerance, "Padding changes the policy's log-probabilities.");
        if (reward is not null)
        {
            Require("reward_pad_error", PadInvariance(reward, [.. episodes.Select(episode => episode.Sequence())], padId), paddingTolerance,
                "Padding changes rewards; is the reward read at the last real token?");
        }

        Require("decode_error", DecodeError(policy, [.. prompts.Take(Prompts)], maxNewTokens, tokenizer), paddingTolerance,
            "The key/value cache of the sampler disagrees with the full forward pass.");
        return measured;

        void Require(string check, double value, double limit, string cause)
        {
            if (!(value <= limit)) // NaN fails too
                throw new PreflightFailedException(stage, check, value, limit, cause);
            measured[$"preflight/{check}"] = value;
        }
    }

    /// <summary>The largest change of a reward when sequences are scored alone, without padding, instead of in one right-padded
    /// batch.</summary>
    public static double PadInvariance(Transformer scoring, IReadOnlyList<int[]> sequences, int padId)
    {
        float[] together = Rewards.Score(scoring, sequences, padId);
        return sequences.Index().Max(row => Distance(Rewards.Score(scoring, [row.Item], padId)[0], together[row.Index]));
    }

    /// <summary>
    /// Decodes greedily with the cache, then looks at the same tokens without it: the largest amount by which a chosen token's
    /// log-probability falls short of the best one. Tokens are not compared, because a tie may go either way.
    /// </summary>
    private static double DecodeError(Transformer policy, IReadOnlyList<int[]> prompts, int maxNewTokens, ITokenizer tokenizer)
    {
        Episode[] greedy = Episodes.Sample(policy, prompts, maxNewTokens, temperature: 0, seed: 0, tokenizer);
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        TokenBatch batch = Episodes.Batch(greedy, [.. Enumerable.Range(0, greedy.Length)], tokenizer.PadId, policy.Device);
        Tensor logits = policy.Logits(batch.Predictors(policy.Hidden(batch.Ids)));
        Tensor best = logits.amax([-1]);
        return (best - logits.gather(-1, batch.Targets.unsqueeze(-1)).squeeze(-1)).max().ToDouble();
    }

    private static double Largest(float[][] left, float[][] right, Func<float, float, double> error) =>
        left.Zip(right, (l, r) => l.Zip(r, error).Max()).Max();

    private static double Distance(float left, float right) => Math.Abs((double)left - right);
}
