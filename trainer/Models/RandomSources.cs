namespace Rlhf.Trainer.Models;

/// <summary>
/// Uniform numbers by SplitMix64 (Steele et al. 2014): the same seed gives the same weights on every machine and with every version of
/// libtorch.
/// </summary>
internal sealed class UniformSource(ulong seed)
{
    private ulong state = seed;

    /// <summary>In [0, 1), with 53 random bits.</summary>
    public double Next()
    {
        state += 0x9E3779B97F4A7C15;
        return (SplitMix64.Mix(state) >> 11) * (1.0 / (1UL << 53));
    }
}

/// <summary>Standard normal numbers by Box and Muller over <see cref="UniformSource"/>.</summary>
internal sealed class NormalSource(ulong seed)
{
    private readonly UniformSource uniform = new(seed);
    private double? spare;

    public double Next()
    {
        if (spare is { } second)
        {
            spare = null;
            return second;
        }

        double radius = Math.Sqrt(-2 * Math.Log(1 - uniform.Next()));
        (double sine, double cosine) = Math.SinCos(2 * Math.PI * uniform.Next());
        spare = radius * sine;
        return radius * cosine;
    }
}
