using System.Collections.Concurrent;
using Microsoft.Extensions.DependencyInjection;
using Rlhf.Functions.Http;
using Rlhf.Jobs;
using Rlhf.Simulation.Core;
using Rlhf.Simulation.Parts;
using Rlhf.Simulation.Storage;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Simulation;

/// <summary>A cancel asked for over the API at any time of a run: no trainer goes on for longer than one heartbeat and one step.</summary>
public sealed class CancelTests
{
    private const int MostSeeds = 60;

    /// <summary>What a step takes at most (<see cref="HashChainBackend"/>), and what the requests between do.</summary>
    private const double LongestStep = 5, Requests = 1;

    [Fact]
    public void A_cancel_reaches_the_trainer_within_one_heartbeat_and_one_step()
    {
        var waits = new ConcurrentBag<double>();
        IReadOnlyList<(int Seed, Outcome Outcome)> outcomes = Seeds.RunMany(Enumerable.Range(1, MostSeeds), seed =>
        {
            var cancel = new Cancel(seed);
            Outcome outcome = Seeds.Run(folder => new SimulatedRun(seed, cancel, folder));
            if (cancel.Wait is { } wait)
                waits.Add(wait);
            return outcome;
        });

        string[] broken = [.. outcomes.Where(entry => entry.Outcome.Violations.Count > 0).Select(entry => $"seed {entry.Seed}: {entry.Outcome.Violations[0]}")];
        Assert.True(broken.Length == 0, string.Join('\n', broken));
        Assert.True(waits.Count > MostSeeds / 2, $"only {waits.Count} cancels found a trainer at work");
        double limit = RunUnderTest.Spec.Trainer.HeartbeatSeconds + LongestStep + Requests;
        Assert.All(waits, wait => Assert.InRange(wait, 0, limit));
        Figures.Report(FormattableString.Invariant(
            $"cancel: {waits.Count} of running jobs, the last step ends at most {waits.Max():0.0} s after it (heartbeat 8 s, step at most 5 s)"));
    }

    /// <summary>Cancels the run once, and measures how long a trainer goes on with the job that is told to stop.</summary>
    private sealed class Cancel(int seed) : IFaults
    {
        private TimeSpan? toldAt;

        /// <summary>Seconds from the job document's word to the end of the last step; null where no job was running.</summary>
        public double? Wait { get; private set; }

        public void Begin(SimulatedRun run)
        {
            run.Storage.Blobs.Changing += (path, before, after) =>
            {
                if (toldAt is null && path.EndsWith("/job.json", StringComparison.Ordinal) && after is not null
                    && CasDocument.Parse<JobDocument>(path, BinaryData.FromBytes(after.Content)) is
                    { Desired: DesiredState.Cancel, State: JobState.Running })
                {
                    toldAt = run.World.Now;
                    Wait = 0;
                }
            };
            run.Ledger.Stepping += () =>
            {
                if (toldAt is { } told)
                    Wait = (run.World.Now - told).TotalSeconds;
            };
            run.World.After(TimeSpan.FromSeconds(5 + 100 * new Random(seed).NextDouble()), null, () =>
            {
                run.IsCancelled = true;
                run.Host.Request((services, client) =>
                {
                    var blobs = services.GetRequiredService<IBlobStore>();
                    JobControl jobs = services.GetRequiredService<JobControl>();
                    var api = new Runs(blobs, jobs, services.GetRequiredService<RunStart>(), new RunReader(blobs, jobs));
                    return api.CancelRun(null!, RunUnderTest.Id, client, CancellationToken.None);
                });
            });
        }

        public RequestFate OnRequest(SimProcess process, string what) => RequestFate.Served;

        public CommitFate OnCommit(SimProcess host) => CommitFate.Committed;

        public TimeSpan[] CopiesOf(string queue) => [TimeSpan.Zero];
    }
}
