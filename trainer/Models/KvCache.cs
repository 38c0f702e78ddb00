using static TorchSharp.torch;

namespace Rlhf.Trainer.Models;

/// <summary>
/// Keys and values of the tokens seen so far, for decoding token by token. The memory is taken once: growing it by concatenation costs
/// ten times as much.
/// </summary>
public sealed class KvCache : IDisposable
{
    private readonly Tensor[] keys;
    private readonly Tensor[] values;

    /// <summary>A cache for <paramref name="batch"/> rows of at most <paramref name="capacity"/> tokens.</summary>
    public KvCache(ModelConfig config, int batch, int capacity, Device device, ScalarType type = ScalarType.Float32)
    {
        Capacity = capacity;
        long[] shape = [batch, config.KeyValueHeadCount, capacity, config.HeadDimension];
        keys = new Tensor[config.LayerCount];
        values = new Tensor[config.LayerCount];
        for (int layer = 0; layer < keys.Length; layer++)
        {
            keys[layer] = empty(shape, type, device).DetachFromDisposeScope();
            values[layer] = empty(shape, type, device).DetachFromDisposeScope();
        }
    }

    /// <summary>Tokens each row can hold.</summary>
    public int Capacity { get; }

    /// <summary>Tokens held, the same for all rows.</summary>
    public int Length { get; private set; }

    /// <summary>Adds keys and values (B, H, T, d) of one layer; returns all of that layer so far (B, H, Length + T, d).</summary>
    internal (Tensor Keys, Tensor Values) Append(int layer, Tensor key, Tensor value)
    {
        long tokens = key.shape[2];
        if (Length + tokens > Capacity)
            throw new InvalidOperationException($"The cache holds {Capacity} tokens; {Length + tokens} were given.");
        keys[layer].narrow(2, Length, tokens).copy_(key);
        values[layer].narrow(2, Length, tokens).copy_(value);
        return (keys[layer].narrow(2, 0, Length + tokens), values[layer].narrow(2, 0, Length + tokens));
    }

    /// <summary>Called once all layers have appended.</summary>
    internal void Advance(long tokens) => Length += (int)tokens;

    /// <summary>Keeps the given rows (a 1-D int64 tensor), in that order: sequences that have ended leave the batch.</summary>
    public void KeepRows(Tensor rows)
    {
        for (int layer = 0; layer < keys.Length; layer++)
        {
            Replace(ref keys[layer], rows);
            Replace(ref values[layer], rows);
        }

        static void Replace(ref Tensor tensor, Tensor rows)
        {
            Tensor kept = tensor.index_select(0, rows).DetachFromDisposeScope();
            tensor.Dispose();
            tensor = kept;
        }
    }

    public void Dispose()
    {
        foreach (Tensor tensor in keys) tensor.Dispose();
        foreach (Tensor tensor in values) tensor.Dispose();
    }
}
