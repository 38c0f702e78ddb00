using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Generation;

/// <summary>
/// Continues prompts token by token with a key/value cache: small models on the CPU by <see cref="CpuDecoder"/>, others in left-padded
/// batches by libtorch.
/// </summary>
public static class Sampler
{
    /// <summary>
    /// The new tokens of each prompt, in the order of the prompts, the end token included where one was drawn. The same options give the
    /// same tokens; a row's tokens do not depend on the rows it is decoded with.
    /// </summary>
    /// <exception cref="ArgumentException">
    /// A prompt is empty or longer than the model's positions, or the options do not fit the prompts.
    /// </exception>
    public static int[][] Generate(Transformer model, IReadOnlyList<int[]> prompts, SamplingOptions options)
    {
        Check(model.Config, prompts, options);
        var rows = new SamplingRow[prompts.Count];
        for (int i = 0; i < rows.Length; i++)
        {
            int room = Math.Min(options.MaxNewTokens, model.Config.MaxPositions - prompts[i].Length);
            rows[i] = new SamplingRow(prompts[i], options.RowIds?[i] ?? i, room);
        }

        SamplingRow[] open = [.. rows.Where(r => r.Room > 0)];
        if (CpuDecoder.Suits(model)) CpuDecoder.Decode(model, open, options);
        else DecodeWithLibtorch(model, open, options);
        return [.. rows.Select(r => r.New.ToArray())];
    }

    /// <summary>Continues all rows until they have ended.</summary>
    internal static void DecodeWithLibtorch(Transformer model, IEnumerable<SamplingRow> rows, SamplingOptions options)
    {
        using var inference = inference_mode();
        using var held = model.HoldWeights();
        // Prompts of one length need no padding, and short ones do not wait for long ones.
        foreach (SamplingRow[] batch in rows.OrderBy(r => r.Prompt.Length).Chunk(options.BatchSize)) Decode(model, batch, options);
    }

    /// <summary>
    /// The token a uniform number selects from softmax(logits / temperature), row by row: logits (B, V), uniforms (B, 1) float64.
    /// </summary>
    internal static Tensor Choose(Tensor logits, double temperature, Tensor uniforms)
    {
        using var scope = NewDisposeScope();
        // Inverse of the cumulative distribution; torch.multinomial takes eight times as long and its draws depend on the batch.
        Tensor cumulative = logits.to(ScalarType.Float64).DividedBy(temperature).softmax(-1).cumsum(-1);
        Tensor total = cumulative.narrow(1, cumulative.shape[1] - 1, 1);
        return cumulative.le(uniforms * total).sum(-1).AtMost(logits.shape[1] - 1).MoveToOuterDisposeScope();
    }

    private static void Decode(Transformer model, SamplingRow[] batch, SamplingOptions options)
    {
        int longest = batch.Max(r => r.Prompt.Length);
        int steps = batch.Max(r => r.Room);
        bool padded = batch.Any(r => r.Prompt.Length < longest);
        using var scope = NewDisposeScope();
        using var cache = new KvCache(model.Config, batch.Length, longest + steps, model.Device, model.ComputeType);
        Tensor ids = LeftPadded(batch, longest, options.PadId).to(model.Device);
        Tensor? mask = padded ? LeftPaddedMask(batch, longest, longest + steps).to(model.Device) : null;

        for (int step = 0; ; step++)
        {
            using var stepScope = NewDisposeScope();
            Tensor hidden = model.Hidden(ids, mask?.narrow(1, 0, longest + step), cache);
            Tensor logits = model.Logits(hidden.select(1, hidden.shape[1] - 1));
            long[] chosen = Next(logits, batch, step, options);
            for (int i = 0; i < batch.Length; i++) batch[i].Add((int)chosen[i], options);

            int live = batch.Count(r => !r.Ended);
            if (live == 0) return;
            // Rows that have ended leave the batch; copying the cache pays once a quarter of them has.
            if (live <= batch.Length * 3 / 4)
            {
                long[] kept = [.. Enumerable.Range(0, batch.Length).Where(i => !batch[i].Ended).Select(i => (long)i)];
                Tensor keptRows = tensor(kept, device: model.Device);
                cache.KeepRows(keptRows);
                mask = mask?.index_select(0, keptRows).MoveToOuterDisposeScope();
                batch = [.. kept.Select(i => batch[i])];
            }

            ids = tensor(batch.Select(r => (long)r.New[^1]).ToArray(), [batch.Length, 1], device: model.Device).MoveToOuterDisposeScope();
        }
    }

    private static long[] Next(Tensor logits, SamplingRow[] batch, int step, SamplingOptions options)
    {
        if (options.Temperature == 0) return [.. logits.argmax(-1).cpu().data<long>()];
        double[] uniforms = [.. batch.Select(r => CounterRandom.Uniform(options.Seed, r.Id, step))];
        return [.. Choose(logits, options.Temperature, tensor(uniforms, [batch.Length, 1], device: logits.device)).cpu().data<long>()];
    }

    private static Tensor LeftPadded(SamplingRow[] batch, int length, int padId)
    {
        var ids = new long[batch.Length * length];
        Array.Fill(ids, padId);
        for (int i = 0; i < batch.Length; i++)
        {
            int[] prompt = batch[i].Prompt;
            for (int t = 0; t < prompt.Length; t++) ids[(i + 1) * length - prompt.Length + t] = prompt[t];
        }

        return tensor(ids, [batch.Length, length]);
    }

    private static Tensor LeftPaddedMask(SamplingRow[] batch, int promptLength, int capacity)
    {
        var mask = new long[batch.Length * capacity];
        for (int i = 0; i < batch.Length; i++)
        {
            // A row that has ended may stay in the batch for some steps: its mask ends with its room, and so do its positions.
            SamplingRow row = batch[i];
            mask.AsSpan(i * capacity + promptLength - row.Prompt.Length, row.Prompt.Length + row.Room).Fill(1);
        }

        return tensor(mask, [batch.Length, capacity]);
    }

    private static void Check(ModelConfig config, IReadOnlyList<int[]> prompts, SamplingOptions options)
    {
        if (options.MaxNewTokens < 0)
            throw new ArgumentException($"MaxNewTokens is {options.MaxNewTokens}; it cannot be negative.", nameof(options));
        if (options.BatchSize < 1)
            throw new ArgumentException($"BatchSize is {options.BatchSize}; it must be at least 1.", nameof(options));
        if (!(options.Temperature >= 0) || double.IsInfinity(options.Temperature))
            throw new ArgumentException($"Temperature is {options.Temperature}; it must be 0 (greedy) or positive.", nameof(options));
        if (options.RowIds is { } ids && ids.Count != prompts.Count)
            throw new ArgumentException($"{ids.Count} row ids were given for {prompts.Count} prompts.", nameof(options));
        for (int i = 0; i < prompts.Count; i++)
        {
            if (prompts[i].Length == 0) throw new ArgumentException($"Prompt {i} is empty; it needs at least one token.", nameof(prompts));
            if (prompts[i].Length > config.MaxPositions)
                throw new ArgumentException(
                    $"Prompt {i} has {prompts[i].Length} tokens; the model has {config.MaxPositions} positions.", nameof(prompts));
            int stranger = Array.FindIndex(prompts[i], t => t < 0 || t >= config.VocabularySize);
            if (stranger >= 0)
                throw new ArgumentException(
                    $"Prompt {i} holds token {prompts[i][stranger]}; the vocabulary has {config.VocabularySize}.", nameof(prompts));
        }
    }
}
