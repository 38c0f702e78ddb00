using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Generation;

/// <summary>
/// Uniform numbers that depend on a counter instead of a state: a row draws the same numbers whatever batch it is in and wherever a job was
/// interrupted (the idea of Salmon et al. 2011, here over SplitMix64).
/// </summary>
public static class CounterRandom
{
    private const ulong Golden = 0x9E3779B97F4A7C15;

    /// <summary>A number in [0, 1) for the given position of the given row.</summary>
    public static double Uniform(ulong seed, long row, long position)
    {
        ulong z = SplitMix64.Mix(seed + Golden);
        z = SplitMix64.Mix(z + (ulong)row * Golden + Golden);
        z = SplitMix64.Mix(z + (ulong)position * Golden + Golden);
        return (z >> 11) * (1.0 / (1UL << 53));
    }
}
