using Rlhf.Jobs;
using Rlhf.Simulation.Parts;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Simulation;

/// <summary>
/// Parts, manifests, heads and job documents are damaged (missing, cut off, a bit flipped) all along a run, and the trainers die with it.
/// Every run comes to the result of the undisturbed one, and a damage to a job document is on its record.
/// </summary>
public sealed class CorruptionSweepTests
{
    private const int Seed = 1;

    [Theory]
    [InlineData("Part")]
    [InlineData("Manifest")]
    [InlineData("Head")]
    [InlineData("Job")]
    public void Every_damage_is_noticed_and_costs_no_more_than_the_way_back_to_an_older_checkpoint(string target)
    {
        var undisturbed = new OneFault();
        Assert.Empty(Run(undisturbed).Outcome.Violations);
        // Twelve a target in a plain run of the tests; in CI three times as many.
        int stride = Math.Max(1, undisturbed.Requests / (CrashPointSweepTests.Stride == 1 ? 36 : 12));
        int[] points = [.. Enumerable.Range(1, undisturbed.Requests).Where(point => point % stride == 0)];
        var tried = 0;
        var broken = new List<string>();
        foreach (DamageKind kind in Enum.GetValues<DamageKind>())
        {
            IReadOnlyList<(int Number, Outcome Outcome)> outcomes = Seeds.RunMany(points, point =>
            {
                var damage = new OneDamage { Target = Enum.Parse<DamageTarget>(target), Kind = kind, Request = point };
                (Outcome outcome, string? unrecorded) = Run(damage);
                if (damage.Path is not null)
                    Interlocked.Increment(ref tried);
                return unrecorded is null ? outcome : outcome with { Violations = [.. outcome.Violations, unrecorded] };
            });
            broken.AddRange(outcomes.Where(entry => entry.Outcome.Violations.Count > 0)
                .Select(entry => $"{target} {kind} at {entry.Number}: {entry.Outcome.Violations[0]}"));
        }

        Assert.True(broken.Count == 0, string.Join('\n', broken));
        Assert.True(tried > points.Length, $"only {tried} damages found something to damage");
        Figures.Report($"corruption sweep: {tried} damages to a {target.ToLowerInvariant()}, all noticed, 0 violations");
    }

    /// <summary>Carries out a run; says what is missing in the record of a job whose document was damaged.</summary>
    private static (Outcome Outcome, string? Unrecorded) Run(IFaults faults)
    {
        string? unrecorded = null;
        Outcome outcome = Seeds.Run(
            folder => new SimulatedRun(Seed, faults, folder, trainers: 1),
            Seeds.Expected,
            run =>
            {
                if (faults is OneDamage { Target: DamageTarget.Job, Path: { } path }
                    && !CasDocument.Parse<JobDocument>(path, BinaryData.FromBytes(run.Storage.Blobs.Read(path)!.Content))
                        .History.Any(record => record.Outcome == AttemptOutcomes.DocumentLost))
                {
                    unrecorded = $"{path} was damaged, and its history does not say so";
                }
            });
        return (outcome, unrecorded);
    }
}
