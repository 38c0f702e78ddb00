using System.Diagnostics;
using System.Globalization;
using Rlhf.Tests;
using Xunit;

// A minute a parser, several at a time: they cost no more of a build's time than they do one after the other on two cores.
[assembly: Xunit.v3.Parallelization(MaxThreads = 4)]

namespace Rlhf.Fuzz.Tests;

/// <summary>
/// Feeds a parser with bad input for a while: <c>RLHF_FUZZ_SECONDS</c> (default 2; CI gives 60). A parser passes when every input ends in
/// a value or in the one kind of exception that its docstring promises, soon, and in memory that is in proportion.
/// A finding names the input: <c>RLHF_FUZZ_INPUT=number</c> repeats exactly that one.
/// </summary>
internal static class Campaign
{
    private static readonly TimeSpan LongestParse = TimeSpan.FromSeconds(10); // a loaded machine may be slow; a hang is longer
    private const long FewestInputs = 1_000;
    private const long LargestAllocation = 256L * 1024 * 1024; // bytes; the corpora are of a few hundred kilobytes
    private const long AllocationPerByte = 32; // a repeated piece of input may grow by doubling: then it is the proportion that counts

    private static readonly TimeSpan Duration = TimeSpan.FromSeconds(
        double.Parse(Environment.GetEnvironmentVariable("RLHF_FUZZ_SECONDS") ?? "2", CultureInfo.InvariantCulture));

    /// <summary>Runs the campaign.</summary>
    /// <param name="name">Names the parser and, with the input's number, seeds the input.</param>
    /// <param name="corpus">Good inputs.</param>
    /// <param name="parse">True when the input was accepted, false when it was refused as promised; throws anything else.</param>
    /// <param name="make">Makes an input; by default a mutated member of the corpus.</param>
    /// <param name="share">The share of the time that this parser gets: one that few reach from outside needs less.</param>
    public static void Run(
        string name, IReadOnlyList<byte[]> corpus, Func<byte[], bool> parse, Func<Mutator, byte[]>? make = null, double share = 1)
    {
        Assert.All(corpus, good => Assert.True(parse(good), $"{name}: a good input was refused"));
        make ??= mutator => mutator.Mutate(corpus);
        if (Environment.GetEnvironmentVariable("RLHF_FUZZ_INPUT") is { Length: > 0 } only)
        {
            Try(long.Parse(only, CultureInfo.InvariantCulture));
            return;
        }

        var clock = Stopwatch.StartNew();
        long tried = 0, accepted = 0;
        // A machine with much else to do must not end a short campaign before it has seen both kinds of input.
        while (clock.Elapsed < Duration * share || (tried < FewestInputs && (accepted == 0 || accepted == tried)))
        {
            if (Try(tried++))
                accepted++;
        }

        Figures.Report($"fuzz {name}: {tried} inputs tried, {accepted} of them accepted, 0 violations");
        Assert.InRange(accepted, 1, tried - 1); // else the mutations are too mild or too wild to say anything

        bool Try(long number)
        {
            byte[] input = make(new Mutator(new Random(HashCode(name, number))));
            long before = GC.GetAllocatedBytesForCurrentThread();
            var watch = Stopwatch.StartNew();
            try
            {
                bool result = parse(input);
                Assert.True(watch.Elapsed < LongestParse, $"took {watch.Elapsed}");
                long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
                Assert.True(allocated < LargestAllocation + AllocationPerByte * input.Length, $"allocated {allocated} bytes for {input.Length}");
                return result;
            }
            catch (Exception e)
            {
                string file = Path.Combine(Path.GetTempPath(), $"rlhf-fuzz-{name}-{number}");
                File.WriteAllBytes(file, input);
                throw new InvalidOperationException(
                    $"{name}: input {number} ({input.Length} bytes, kept as {file}); repeat with RLHF_FUZZ_INPUT={number}: "
                    + $"{e.GetType().Name}: {e.Message}", e);
            }
        }
    }

    /// <summary>The same on every machine, unlike <see cref="string.GetHashCode()"/>.</summary>
    private static int HashCode(string name, long number) => unchecked((int)Seeds.For(0, "fuzz", number, name));
}
