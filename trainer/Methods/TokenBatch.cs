using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Prompts with completions as one right-padded batch for next-token prediction of the completions. Padding behind a row needs no mask:
/// causal attention never looks at it. The language-model head only has to see <see cref="Positions"/>.
/// </summary>
/// <param name="Ids">Input tokens [batch, time], int64; without the last token of each row, which predicts nothing.</param>
/// <param name="Positions">[tokens], int64: where in the flattened [batch × time] the predictors of the completion tokens are, row by
/// row.</param>
/// <param name="Targets">[tokens], int64: the completion tokens themselves.</param>
internal readonly record struct TokenBatch(Tensor Ids, Tensor Positions, Tensor Targets)
{
    /// <summary>Number of tokens to predict.</summary>
    public long Tokens => Targets.shape[0];

    /// <summary>Number of tokens to predict in rows, however they are batched.</summary>
    public static long CountTokens(IEnumerable<(int[] Prompt, int[] Completion)> rows) =>
        rows.Sum(row => (long)Math.Max(0, row.Prompt.Length == 0 ? row.Completion.Length - 1 : row.Completion.Length));

    /// <summary>Lays out rows. The first token of a row without prompt has no predictor and is not a target.</summary>
    public static TokenBatch Of(IReadOnlyList<(int[] Prompt, int[] Completion)> rows, int padId, Device device)
    {
        int time = Math.Max(1, rows.Max(row => row.Prompt.Length + row.Completion.Length) - 1);
        long[] ids = new long[rows.Count * time];
        Array.Fill(ids, padId);
        List<long> positions = [];
        List<long> targets = [];
        for (int r = 0; r < rows.Count; r++)
        {
            (int[] prompt, int[] completion) = rows[r];
            int length = prompt.Length + completion.Length;
            for (int t = 0; t < length; t++)
            {
                int token = t < prompt.Length ? prompt[t] : completion[t - prompt.Length];
                if (t < length - 1)
                    ids[r * time + t] = token;
                if (t >= prompt.Length && t > 0)
                {
                    positions.Add(r * time + t - 1);
                    targets.Add(token);
                }
            }
        }

        return new TokenBatch(
            tensor(ids, [rows.Count, time], device: device),
            tensor(positions.ToArray(), device: device),
            tensor(targets.ToArray(), device: device));
    }

    /// <summary>The hidden states [tokens, hidden] that predict the targets, out of those of all positions [batch, time, hidden].</summary>
    public Tensor Predictors(Tensor hidden) => hidden.flatten(0, 1).index_select(0, Positions);
}
