using Rlhf.Simulation.Parts;
using Rlhf.Simulation.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Simulation;

/// <summary>
/// A harness that cannot fail proves nothing: without fence, without ETag, without checksum and without de-duplication, the same faults
/// must break a promise. What is taken away is taken away at the storage's border, not in the product.
/// </summary>
public sealed class NegativeControlTests
{
    private const int MostSeeds = 100;

    [Fact]
    public void Without_fences_a_zombie_is_noticed() => Catches(
        "no fence",
        seed => folder => new SimulatedRun(seed, new RandomFaults(seed), folder, protocol: store => new WithoutFence(store)),
        Rules.HeadGoesBack, Rules.FencesRise);

    [Fact]
    public void Without_conditional_writes_a_lost_update_is_noticed() => Catches(
        "no ETag",
        seed => folder => new SimulatedRun(seed, new RandomFaults(seed), folder, blobs: new BlobServer { IgnoresConditions = true }),
        Rules.OneClaim, Rules.OneResult, Rules.CreatedOnce, Rules.FencesRise, Rules.HeadGoesBack);

    [Fact]
    public void Without_checksums_a_flipped_digit_is_noticed() => Catches(
        "no checksum",
        seed => folder => new SimulatedRun(seed, new FlippedDigit(), folder, protocol: store => new WithoutChecksum(store)),
        Rules.SameResult);

    [Fact]
    public void Without_deduplication_a_second_claim_is_noticed() => Catches(
        "no de-duplication",
        seed => folder => new SimulatedRun(seed, new RandomFaults(seed), folder, protocol: store => new WithoutDeduplication(store)),
        Rules.OneClaim);

    [Fact]
    public void With_checksums_a_flipped_digit_changes_nothing()
    {
        int[] some = [.. Enumerable.Range(1, 20)]; // among them those that the control above is caught by
        Assert.All(
            Seeds.RunMany(some, seed => Seeds.Run(folder => new SimulatedRun(seed, new FlippedDigit(), folder), Seeds.Expected)),
            entry => Assert.Empty(entry.Outcome.Violations));
    }

    private static void Catches(string control, Func<int, Func<string, SimulatedRun>> create, params string[] rules)
    {
        for (int seed = 1; seed <= MostSeeds; seed++)
        {
            Outcome outcome = Seeds.Run(create(seed), Seeds.Expected);
            if (outcome.Violations.Count == 0)
                continue;
            Assert.Contains(rules, rule => outcome.Violations[0].StartsWith(rule, StringComparison.Ordinal));
            Figures.Report($"negative control '{control}': caught by seed {seed}: {outcome.Violations[0].Split('\n')[0]}");
            return;
        }

        Assert.Fail($"{MostSeeds} seeds have not noticed that there is {control}.");
    }
}
