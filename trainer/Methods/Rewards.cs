using Rlhf.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>Reading a reward model: its score at the last real token of a sequence, never at padding.</summary>
public static class Rewards
{
    /// <summary>Tokens a forward pass takes at most, to bound its memory.</summary>
    private const int TokensPerPass = 16_384;

    /// <summary>The rewards of whole sequences (prompt and completion), bias taken off, without gradient.</summary>
    /// <param name="model">A model with a score head.</param>
    /// <param name="sequences">Token sequences, each with at least one token.</param>
    /// <param name="padId">The padding token.</param>
    public static float[] Score(Transformer model, IReadOnlyList<int[]> sequences, int padId)
    {
        float[] rewards = new float[sequences.Count];
        using IDisposable noGradient = no_grad();
        foreach (int[] pass in LengthSorted.Passes([.. sequences.Select(sequence => sequence.Length)], TokensPerPass))
        {
            using DisposeScope scope = NewDisposeScope();
            float[] scores = OfLastTokens(model, [.. pass.Select(i => sequences[i])], padId).ToSingles();
            for (int i = 0; i < pass.Length; i++)
                rewards[pass[i]] = (float)(scores[i] - model.Config.RewardBias);
        }

        return rewards;
    }

    /// <summary>Raw scores at the last tokens of one right-padded batch, [sequences], with gradient. The head sees these positions
    /// only.</summary>
    internal static Tensor OfLastTokens(Transformer model, IReadOnlyList<int[]> sequences, int padId)
    {
        int time = sequences.Max(sequence => sequence.Length);
        long[] ids = new long[sequences.Count * time];
        Array.Fill(ids, padId);
        long[] last = new long[sequences.Count];
        for (int r = 0; r < sequences.Count; r++)
        {
            if (sequences[r].Length == 0)
                throw new ArgumentException($"sequence {r} is empty; a reward is read at its last token", nameof(sequences));
            for (int t = 0; t < sequences[r].Length; t++)
                ids[r * time + t] = sequences[r][t];
            last[r] = r * time + sequences[r].Length - 1;
        }

        Tensor hidden = model.Hidden(tensor(ids, [sequences.Count, time], device: model.Device));
        return model.Scores(hidden.flatten(0, 1).index_select(0, tensor(last, device: model.Device)));
    }
}
