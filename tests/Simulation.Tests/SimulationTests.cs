using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using Rlhf.Simulation.Parts;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Simulation;

/// <summary>
/// The whole system under seeded faults. RLHF_SIM_SEEDS is the number of seeds; RLHF_SIM_SEED runs one alone and shows what happened.
/// </summary>
public sealed class SimulationTests
{
    private const string Class = "Rlhf.Simulation.SimulationTests";

    [Fact]
    public void Undisturbed_run_succeeds_and_every_order_of_events_gives_the_same_result()
    {
        Assert.StartsWith("sft Succeeded 7\n", Seeds.Expected, StringComparison.Ordinal);
        foreach (int seed in Enumerable.Range(1, 5))
            Assert.Empty(Seeds.Run(folder => new SimulatedRun(seed, new NoFaults(), folder), Seeds.Expected).Violations);
    }

    [Fact]
    public void Same_seed_gives_the_same_trace()
    {
        foreach (int seed in Enumerable.Range(1, 8))
        {
            Outcome first = Run(seed, isTraced: true).Outcome, second = Run(seed, isTraced: true).Outcome;
            int same = first.Trace.Zip(second.Trace).TakeWhile(pair => pair.First == pair.Second).Count();
            Assert.True(
                first.TraceHash == second.TraceHash,
                $"seed {seed} went two ways:\n{string.Join('\n', first.Trace.Skip(same - 20).Take(24))}\nand\n"
                + string.Join('\n', second.Trace.Skip(same).Take(4)));
            Assert.Equal(first.Steps, second.Steps);
        }
    }

    [Fact]
    public void Every_promise_holds_under_faults()
    {
        if (Environment.GetEnvironmentVariable("RLHF_SIM_SEED") is { Length: > 0 } one)
        {
            Outcome outcome = Run(int.Parse(one, CultureInfo.InvariantCulture), isTraced: true).Outcome;
            foreach (string line in outcome.Trace)
                Console.WriteLine(line);
            Assert.Empty(outcome.Violations);
            return;
        }

        int seeds = int.Parse(Environment.GetEnvironmentVariable("RLHF_SIM_SEEDS") ?? "200", CultureInfo.InvariantCulture);
        var counts = new ConcurrentBag<FaultCounts>();
        var watch = Stopwatch.StartNew();
        IReadOnlyList<(int Seed, Outcome Outcome)> outcomes = Seeds.RunMany(Enumerable.Range(1, seeds), seed =>
        {
            (Outcome outcome, FaultCounts faults) = Run(seed, isTraced: false);
            counts.Add(faults);
            return outcome;
        });

        (int Seed, Outcome Outcome)[] broken = [.. outcomes.Where(entry => entry.Outcome.Violations.Count > 0)];
        Figures.Report(string.Create(CultureInfo.InvariantCulture,
            $"simulation: {seeds} seeds, {counts.Sum(c => c.Crashes)} crashes, {counts.Sum(c => c.FailedRequests)} failed requests, ")
            + $"{counts.Sum(c => c.LostReplies)} lost replies, {counts.Sum(c => c.Duplicates)} duplicated and "
            + $"{counts.Sum(c => c.Delays)} delayed messages, {counts.Sum(c => c.Zombies)} zombies, {counts.Sum(c => c.Outages)} outages, "
            + $"{counts.Sum(c => c.ClockJumps)} clock jumps, {counts.Sum(c => c.Preemptions)} preemptions, "
            + $"{counts.Sum(c => c.Corruptions)} corruptions, {outcomes.Sum(entry => entry.Outcome.Duration.TotalHours):0} virtual hours "
            + $"in {watch.Elapsed.TotalSeconds:0} s, {broken.Length} violations, trace {Digest(outcomes):x16}");
        string[] all = [.. broken.Take(50).Select(entry => $"seed {entry.Seed}: {entry.Outcome.Violations[0].Split('\n')[0]}")];
        Assert.True(broken.Length == 0, string.Join('\n', broken.Take(2).Select(entry => Describe(entry.Seed)).Concat(all)));
    }

    /// <summary>Two machines that print the same have seen the same.</summary>
    private static ulong Digest(IEnumerable<(int, Outcome Outcome)> outcomes) =>
        outcomes.Aggregate(0UL, (sum, entry) => unchecked(sum * 31 + entry.Outcome.TraceHash));

    private static (Outcome Outcome, FaultCounts Counts) Run(int seed, bool isTraced)
    {
        var faults = new RandomFaults(seed);
        return (Seeds.Run(folder => new SimulatedRun(seed, faults, folder, isTraced), Seeds.Expected), faults.Counts);
    }

    private static string Describe(int seed)
    {
        Outcome outcome = Run(seed, isTraced: true).Outcome;
        return $"{string.Join('\n', outcome.Trace.TakeLast(60))}\n\n{string.Join('\n', outcome.Violations)}\n"
            + $"RLHF_SIM_SEED={seed} dotnet run --project tests/Simulation.Tests -- -class {Class}";
    }
}
