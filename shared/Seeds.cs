using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace Rlhf;

/// <summary>
/// Counter-based seeds: every random choice of a run is a function of (run seed, stage, step, purpose), so an attempt that is
/// resumed or replayed draws the same numbers and no generator state has to travel with a checkpoint.
/// </summary>
public static class Seeds
{
    /// <summary>A 64-bit seed for one purpose at one step, by SHA-256 over the four parts.</summary>
    /// <param name="runSeed">The run's seed.</param>
    /// <param name="stage">The stage, such as <c>ppo</c>.</param>
    /// <param name="step">The step or iteration; 0 where there is none.</param>
    /// <param name="purpose">What the numbers are for, such as <c>rollout</c> or <c>order</c>.</param>
    public static ulong For(long runSeed, string stage, long step, string purpose)
    {
        byte[] text = Encoding.UTF8.GetBytes($"{runSeed}\n{stage}\n{step}\n{purpose}");
        return BinaryPrimitives.ReadUInt64LittleEndian(SHA256.HashData(text));
    }

    /// <summary>SplitMix64's output function: a bijective mix of 64 bits (Steele, Lea and Flood 2014).</summary>
    public static ulong Mix(ulong value)
    {
        value += 0x9E3779B97F4A7C15UL;
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9UL;
        value = (value ^ (value >> 27)) * 0x94D049BB133111EBUL;
        return value ^ (value >> 31);
    }

    /// <summary>A uniform number in [0, 1) that depends on nothing but the seed and two counters (row and position).</summary>
    public static double Uniform(ulong seed, long row, long position) =>
        (Mix(Mix(seed ^ Mix((ulong)row)) ^ (ulong)position) >> 11) * (1.0 / (1UL << 53));

    /// <summary>A seeded permutation of 0 .. <paramref name="count"/> - 1 (Fisher-Yates on <see cref="Uniform"/>).</summary>
    public static int[] Permutation(int count, ulong seed)
    {
        int[] order = [.. Enumerable.Range(0, count)];
        for (int i = count - 1; i > 0; i--)
        {
            int j = (int)(Uniform(seed, i, 0) * (i + 1));
            (order[i], order[j]) = (order[j], order[i]);
        }

        return order;
    }
}
