using Rlhf.Trainer.Data;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>A prompt and the policy's response to it.</summary>
/// <param name="Prompt">Tokens.</param>
/// <param name="Response">Tokens, the end token included where there is one; at least one.</param>
/// <param name="Ended">The response ends with the end token; else it ran into the limit.</param>
public sealed record Episode(int[] Prompt, int[] Response, bool Ended)
{
    /// <summary>The right answer as text, where the prompt's row has one. No model sees it.</summary>
    public string? Reference { get; init; }

    /// <summary>Prompt and response.</summary>
    public int[] Sequence() => [.. Prompt, .. Response];
}

/// <summary>Sampling responses and reading their probabilities under a model.</summary>
public static class Episodes
{
    /// <summary>Tokens a forward pass takes at most, to bound its memory.</summary>
    private const int TokensPerPass = 16_384;

    /// <summary>One response to each prompt, from the full softmax at a temperature (0 takes the likeliest tokens).</summary>
    public static Episode[] Sample(
        Transformer policy, IReadOnlyList<int[]> prompts, int maxNewTokens, double temperature, ulong seed, ITokenizer tokenizer)
    {
        int[][] responses = Sampler.Generate(policy, prompts, new SamplingOptions
        {
            MaxNewTokens = maxNewTokens,
            Temperature = temperature,
            Seed = seed,
            EosId = tokenizer.EosId,
            PadId = tokenizer.PadId,
        });
        return [.. responses.Select((response, i) => new Episode(prompts[i], response, response[^1] == tokenizer.EosId))];
    }

    /// <summary>One response to each prompt, as above; the episodes carry the prompts' reference answers.</summary>
    public static Episode[] Sample(
        Transformer policy, IReadOnlyList<TokenizedPrompt> prompts, int maxNewTokens, double temperature, ulong seed, ITokenizer tokenizer)
    {
        Episode[] sampled = Sample(policy, [.. prompts.Select(prompt => prompt.Prompt)], maxNewTokens, temperature, seed, tokenizer);
        return [.. sampled.Zip(prompts, (episode, prompt) => episode with { Reference = prompt.Reference })];
    }

    /// <summary>The log-probability of every response token, without gradient: one array per episode.</summary>
    public static float[][] LogProbs(Transformer model, IReadOnlyList<Episode> episodes, double temperature, int padId)
    {
        float[][] logProbs = new float[episodes.Count][];
        int[] lengths = [.. episodes.Select(episode => episode.Response.Length)];
        using IDisposable noGradient = no_grad();
        foreach (int[] pass in LengthSorted.Passes([.. episodes.Select(e => e.Prompt.Length + e.Response.Length)], TokensPerPass))
        {
            using DisposeScope scope = NewDisposeScope();
            (Tensor flat, _) = Policy(model, Batch(episodes, pass, padId, model.Device), temperature);
            JaggedRows.Unflatten(flat, pass, lengths, logProbs);
        }

        return logProbs;
    }

    /// <summary>KL(model || reference) of each episode in nats: the sum of k1 over its response tokens.</summary>
    public static double[] Kl(Transformer model, Transformer reference, IReadOnlyList<Episode> episodes, double temperature, int padId)
    {
        float[][] own = LogProbs(model, episodes, temperature, padId), other = LogProbs(reference, episodes, temperature, padId);
        return [.. own.Zip(other, (p, q) => p.Zip(q, (x, y) => (double)x - y).Sum())];
    }

    /// <summary>The chosen episodes as one batch.</summary>
    internal static TokenBatch Batch(IReadOnlyList<Episode> episodes, int[] chosen, int padId, Device device) =>
        TokenBatch.Of([.. chosen.Select(i => (episodes[i].Prompt, episodes[i].Response))], padId, device);

    /// <summary>Log-probability (with gradient) and entropy (without) of every response token of a batch, [tokens] each.</summary>
    internal static (Tensor LogProbs, Tensor Entropy) Policy(Transformer model, TokenBatch batch, double temperature) =>
        Losses.LogProbsAndEntropy(model.Logits(batch.Predictors(model.Hidden(batch.Ids))), batch.Targets, temperature);

    /// <summary>The critic's value of the state before every response token of a batch, [tokens], on the scale of rewards.</summary>
    internal static Tensor Values(Transformer critic, TokenBatch batch) =>
        critic.Scores(batch.Predictors(critic.Hidden(batch.Ids))).Minus(critic.Config.RewardBias);
}
