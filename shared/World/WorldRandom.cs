namespace Rlhf.World;

/// <summary>
/// SplitMix64 on <see cref="Seeds.Mix"/>: the same numbers on every platform and .NET version, which <see cref="Random"/> does not promise.
/// </summary>
internal sealed class WorldRandom(ulong seed)
{
    private ulong state = seed;

    /// <summary>An independent stream for one row of one data set: a pure function of its arguments.</summary>
    public static WorldRandom For(ulong seed, string stream, int index) =>
        new(Seeds.Mix(Seeds.Mix(seed ^ Hash(stream)) ^ (ulong)index));

    /// <summary>FNV-1a, 64 bits, over the characters. Also decides which prompts are kept for evaluation.</summary>
    public static ulong Hash(string text)
    {
        ulong hash = 0xCBF29CE484222325UL;
        foreach (char c in text)
            hash = (hash ^ c) * 0x100000001B3UL;
        return Seeds.Mix(hash);
    }

    public double NextDouble() => (Next() >> 11) * (1.0 / (1UL << 53));

    public bool Chance(double probability) => NextDouble() < probability;

    /// <summary>Uniform in [0, <paramref name="bound"/>).</summary>
    public int Below(int bound) => (int)Math.BigMul(Next(), (ulong)bound, out _);

    public T Pick<T>(IReadOnlyList<T> items) => items[Below(items.Count)];

    /// <summary><paramref name="count"/> different items in random order.</summary>
    public T[] PickSome<T>(IReadOnlyList<T> items, int count)
    {
        T[] all = [.. items];
        for (int i = 0; i < count; i++)
        {
            int j = i + Below(all.Length - i);
            (all[i], all[j]) = (all[j], all[i]);
        }
        return all[..count];
    }

    /// <summary>A standard Gumbel variate: adding one to each utility and sorting draws a Plackett-Luce ranking.</summary>
    public double Gumbel() => -Math.Log(-Math.Log(NextDouble() + 1e-18));

    private ulong Next()
    {
        ulong value = Seeds.Mix(state);
        state += 0x9E3779B97F4A7C15UL;
        return value;
    }
}
