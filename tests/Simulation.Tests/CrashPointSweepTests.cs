using System.Globalization;
using Rlhf.Simulation.Parts;
using Rlhf.Simulation.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Simulation;

/// <summary>
/// Every storage request of an undisturbed run fails once before and once after its effect, is repeated once, and is once the last of its
/// process; the host dies before and after every commit of its database. All of these runs come to the same result. RLHF_SWEEP_STRIDE
/// takes every n-th point; repetition and death, which the seeds of <see cref="SimulationTests"/> bring about all the time, take every
/// fourth of those.
/// </summary>
public sealed class CrashPointSweepTests
{
    private const int Seed = 1;

    internal static readonly int Stride = int.Parse(
        Environment.GetEnvironmentVariable("RLHF_SWEEP_STRIDE") ?? "20", CultureInfo.InvariantCulture);

    [Fact]
    public void Every_storage_request_may_fail_before_or_after_its_effect_and_may_be_the_process_last()
    {
        var undisturbed = new OneFault();
        Assert.Empty(Run(undisturbed).Violations);
        int requests = undisturbed.Requests;
        (RequestFate Fate, int Stride)[] fates =
        [
            (RequestFate.FailsBefore, Stride), (RequestFate.ReplyLost, Stride),
            (RequestFate.Repeated, 4 * Stride), (RequestFate.CrashesAfter, 4 * Stride),
        ];
        int tried = fates.Sum(fate => Sweep(
            requests, fate.Stride, $"{fate.Fate}", point => new OneFault { Request = point, RequestFate = fate.Fate }));
        Figures.Report($"crash-point sweep: {requests} storage requests in the run, {fates.Length} faults, {tried} runs, 0 violations");
    }

    [Fact]
    public void Host_may_die_before_and_after_every_commit()
    {
        var undisturbed = new OneFault();
        Assert.Empty(Run(undisturbed).Violations);
        int commits = undisturbed.Commits;
        CommitFate[] fates = [CommitFate.CrashesBefore, CommitFate.CrashesAfter];
        int tried = fates.Sum(fate => Sweep(commits, Stride, $"{fate}", point => new OneFault { Commit = point, CommitFate = fate }));
        Figures.Report($"crash-point sweep: {commits} commits of the engine in the run, {fates.Length} crashes, {tried} runs, 0 violations");
    }

    /// <returns>The number of runs.</returns>
    private static int Sweep(int points, int stride, string what, Func<int, OneFault> fault)
    {
        int[] some = [.. Enumerable.Range(0, points).Where(point => point % stride == 0).Select(point => point + 1)];
        string[] broken =
        [
            .. Seeds.RunMany(some, point => Run(fault(point)))
                .Where(entry => entry.Outcome.Violations.Count > 0)
                .Select(entry => $"{what} at {entry.Number}: {entry.Outcome.Violations[0]}"),
        ];
        Assert.True(broken.Length == 0, string.Join('\n', broken));
        return some.Length;
    }

    private static Outcome Run(OneFault fault) => Seeds.Run(folder => new SimulatedRun(Seed, fault, folder, trainers: 1), Seeds.Expected);
}
