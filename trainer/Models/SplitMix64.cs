namespace Rlhf.Trainer.Models;

/// <summary>The output function of SplitMix64 (Steele, Lea and Flood 2014): a bijection of 64 bits that spreads every input bit.</summary>
internal static class SplitMix64
{
    public static ulong Mix(ulong z)
    {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
}
