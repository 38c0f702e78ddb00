using System.Collections.Concurrent;
using Rlhf.Simulation.Parts;
using Xunit.Sdk;
using Xunit.v3;

// Each test takes all processors as it is.
[assembly: Parallelization(Mode = ParallelMode.None)]

namespace Rlhf.Simulation;

/// <summary>Carries out simulated runs, each in a world and on a disk of its own.</summary>
internal static class Seeds
{
    /// <summary>What an undisturbed run publishes.</summary>
    public static string Expected { get; } = Run(folder => new SimulatedRun(0, new NoFaults(), folder)).Result;

    /// <summary>One run. Its folder is in memory where the system has such: what a commit costs on a disk is nothing to the simulation.</summary>
    /// <param name="create">Makes the run, in a folder.</param>
    /// <param name="expected">The result that it must come to; null when that is what is asked.</param>
    /// <param name="inspect">Looks at what is there in the end.</param>
    public static Outcome Run(Func<string, SimulatedRun> create, string? expected = null, Action<SimulatedRun>? inspect = null)
    {
        string root = Directory.Exists("/dev/shm") ? "/dev/shm" : Path.GetTempPath();
        string folder = Path.Combine(root, $"rlhf-sim-{Guid.NewGuid():N}");
        Outcome? outcome = null;
        // A thread of its own, without the test framework's synchronisation context.
        var world = new Thread(() =>
        {
            try
            {
                using SimulatedRun run = create(folder);
                outcome = run.Run(expected);
                inspect?.Invoke(run);
            }
            catch (Exception e)
            {
                outcome = new Outcome(0, "", [$"the simulation itself failed: {e}"], [], TimeSpan.Zero, 0);
            }
        });
        try
        {
            world.Start();
            world.Join();
            return outcome!;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>Runs many, one on each processor at a time; gives them in the order of their numbers.</summary>
    /// <param name="numbers">What tells the runs apart, such as seeds.</param>
    /// <param name="run">Carries out one.</param>
    public static IReadOnlyList<(int Number, Outcome Outcome)> RunMany(IEnumerable<int> numbers, Func<int, Outcome> run)
    {
        var waiting = new ConcurrentQueue<int>(numbers);
        var done = new ConcurrentBag<(int, Outcome)>();
        Thread[] workers = [.. Enumerable.Range(0, Environment.ProcessorCount).Select(_ => new Thread(() =>
        {
            while (waiting.TryDequeue(out int number))
                done.Add((number, run(number)));
        }))];
        foreach (Thread worker in workers)
            worker.Start();
        foreach (Thread worker in workers)
            worker.Join();
        return [.. done.OrderBy(entry => entry.Item1)];
    }
}
