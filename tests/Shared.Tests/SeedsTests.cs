using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace Rlhf.Shared.Tests;

/// <summary>Seeds are part of every result: these values must never change.</summary>
public sealed class SeedsTests
{
    [Fact]
    public void A_seed_is_the_first_eight_bytes_of_the_hash_of_its_parts()
    {
        byte[] hash = SHA256.HashData(Encoding.UTF8.GetBytes("1\nppo\n7\nrollout"));

        Assert.Equal(BinaryPrimitives.ReadUInt64LittleEndian(hash), Seeds.For(1, "ppo", 7, "rollout"));
        // printf '1\nppo\n7\nrollout' | sha256sum | cut -c1-16, its bytes reversed.
        Assert.Equal(0xAAF3F46DEF488B54UL, Seeds.For(1, "ppo", 7, "rollout"));
    }

    [Fact]
    public void Every_part_counts() => Assert.Equal(
        6,
        new[] { Seeds.For(1, "a", 1, "x"), Seeds.For(2, "a", 1, "x"), Seeds.For(1, "b", 1, "x"), Seeds.For(1, "a", 2, "x"), Seeds.For(1, "a", 1, "y"), Seeds.For(11, "a", 1, "x") }
            .Distinct().Count());

    [Theory]
    [InlineData(0UL, 0xE220A8397B1DCDAFUL)] // the first output of SplitMix64 from seed 0
    [InlineData(0x9E3779B97F4A7C15UL, 0x6E789E6AA1B965F4UL)] // and the second
    public void Mix_is_SplitMix64(ulong value, ulong mixed) => Assert.Equal(mixed, Seeds.Mix(value));

    [Fact]
    public void Uniform_numbers_are_in_range_spread_evenly_and_depend_on_row_and_position()
    {
        double[] numbers = [.. from row in Enumerable.Range(0, 200) from position in Enumerable.Range(0, 200) select Seeds.Uniform(42, row, position)];

        Assert.All(numbers, number => Assert.InRange(number, 0, 0.9999999999999999));
        Assert.Equal(numbers.Length, numbers.Distinct().Count());
        // Ten bins of 4000 expected; five standard deviations are 300.
        Assert.All(numbers.GroupBy(number => (int)(number * 10)), bin => Assert.InRange(bin.Count(), 3700, 4300));
        Assert.Equal(0.29200405803768326, Seeds.Uniform(42, 3, 5));
    }

    [Fact]
    public void A_permutation_holds_each_index_once_and_is_fixed_by_its_seed()
    {
        Prop.ForAll<ushort, ulong>((count, seed) =>
            Seeds.Permutation(count % 500, seed).Order().SequenceEqual(Enumerable.Range(0, count % 500))).QuickCheckThrowOnFailure();
        Assert.Equal([6, 4, 5, 1, 0, 7, 2, 3], Seeds.Permutation(8, 1));
        Assert.NotEqual(Seeds.Permutation(50, 1), Seeds.Permutation(50, 2));
    }
}
