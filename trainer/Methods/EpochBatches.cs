namespace Rlhf.Trainer.Methods;

/// <summary>
/// Which examples each step sees. Every epoch is a seeded permutation; within windows of it examples of similar length share a batch, which
/// halves the time of padded batches, and the batches of the epoch are shuffled again. A function of (seed, stage, step) alone, so that a
/// resumed run needs no cursor but the step.
/// </summary>
internal sealed class EpochBatches
{
    /// <summary>Batches' worth of examples that are sorted by length together.</summary>
    private const int Window = 16;

    private readonly IReadOnlyList<int> lengths;
    private readonly int batchSize;
    private readonly Func<int, ulong> seedOfEpoch;
    private (int Epoch, int[][] Batches)? current;

    /// <summary>Prepares the order of <paramref name="lengths"/>.Count examples.</summary>
    /// <param name="lengths">Tokens of each example.</param>
    /// <param name="batchSize">Examples a step; the last step of an epoch may have fewer.</param>
    /// <param name="runSeed">The run's seed.</param>
    /// <param name="stage">The stage.</param>
    public EpochBatches(IReadOnlyList<int> lengths, int batchSize, long runSeed, string stage)
    {
        this.lengths = lengths;
        this.batchSize = batchSize;
        seedOfEpoch = epoch => Seeds.For(runSeed, stage, epoch, "order");
    }

    /// <summary>Batches of an epoch.</summary>
    public int PerEpoch => (lengths.Count + batchSize - 1) / batchSize;

    /// <summary>The examples of a step, counted from 0.</summary>
    public int[] this[int step]
    {
        get
        {
            (int epoch, int index) = Math.DivRem(step, PerEpoch);
            if (current?.Epoch != epoch)
                current = (epoch, Of(epoch));
            return current.Value.Batches[index];
        }
    }

    private int[][] Of(int epoch)
    {
        ulong seed = seedOfEpoch(epoch);
        int[][] batches =
        [
            .. Seeds.Permutation(lengths.Count, seed)
                .Chunk(Window * batchSize)
                .SelectMany(window => window.OrderBy(example => lengths[example]).Chunk(batchSize)),
        ];
        return [.. Seeds.Permutation(batches.Length, Seeds.Mix(seed)).Select(batch => batches[batch])];
    }
}
