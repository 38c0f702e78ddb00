using System.Globalization;
using Rlhf.Report;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>
/// SIGKILL to host and trainers at random times while several runs go on. <c>RLHF_KILLS</c> says how often, <c>RLHF_KILL_SEED</c> when.
/// </summary>
[Collection(nameof(ChaosRuns))]
public sealed class KillTests(ChaosRuns chaos)
{
    private const int RunsAtOnce = 3, CheckpointInterval = 4;
    // The promise is 5 seconds on cores of its own; here three trainers and other tests compute meanwhile.
    private static readonly TimeSpan HostRestart = TimeSpan.FromSeconds(15);
    private static readonly string[] Specs = ["ppo", "dpo"];

    [Fact]
    public async Task Whatever_is_killed_weights_numbers_and_results_are_those_of_the_undisturbed_run()
    {
        int kills = Setting("RLHF_KILLS", 6), seed = Setting("RLHF_KILL_SEED", 1);
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync(Specs);
        var random = new Random(seed);
        var runs = new List<(string RunId, string Spec)>();
        var hostRestarts = new List<TimeSpan>();
        var losses = new List<(DateTime Utc, AttemptLine At)>();
        while (hostRestarts.Count + losses.Count < kills)
        {
            await KeepBusyAsync(stack, runs);
            await Task.Delay(random.Next(100, 1500));
            if (random.Next(4) == 0)
            {
                hostRestarts.Add(await stack.RestartHostAsync());
                continue;
            }

            int[] order = [.. Enumerable.Range(0, ChaosRuns.Trainers)];
            random.Shuffle(order);
            if (order.Cast<int?>().FirstOrDefault(index => stack.Trainers[index!.Value].Present is not null) is not { } victim)
                continue;
            TrainerProcess trainer = stack.Trainers[victim];
            DateTime utc = DateTime.UtcNow;
            await stack.ReplaceTrainerAsync(victim);
            if (trainer.Present is { } at)
                losses.Add((utc, at));
        }

        foreach ((string runId, string spec) in runs)
        {
            RunReport report = await stack.ReportAsync(runId);
            Assert.Equal(expected[spec], RunFingerprint.Of(report));
            await RunChecks.AssertOneResultAsync(stack, report);
        }

        // The stack's trainers have done jobs of other tests too, which damage checkpoints and let the storage forget them.
        HashSet<string> own = [.. runs.Select(run => run.RunId)];
        AttemptLine[] ledger = [.. stack.Ledger.Where(line => own.Contains(line.Job.Split('/')[0]))];
        (string Job, int Steps)[] repeats =
            [.. ledger.GroupBy(line => line.Job).SelectMany(job => Repeated(job).Select(steps => (job.Key, steps)))];
        Assert.NotEmpty(repeats);
        Assert.DoesNotContain(repeats, repeat => repeat.Steps is < 0 or > CheckpointInterval + 1);
        int[] repeated = [.. repeats.Select(repeat => repeat.Steps)];
        double[] recovery = [.. losses.Select(loss => Recovery(loss.Utc, loss.At, ledger)).OfType<double>()];
        Figures.Report(string.Create(
            CultureInfo.InvariantCulture,
            $"{kills} kills (seed {seed}): {losses.Count} of trainers at work, {hostRestarts.Count} of the host; {runs.Count} runs, all equal"));
        Figures.Report($"steps repeated after a kill: {Spread([.. repeated.Select(steps => (double)steps)], "0")}, interval {CheckpointInterval}");
        Figures.Report($"seconds from the kill of a trainer to the next step of its job: {Spread(recovery, "0.0")}");
        double[] restarts = [.. hostRestarts.Select(time => time.TotalSeconds)];
        Figures.Report($"seconds from the kill of the host to an orchestration's next move: {Spread(restarts, "0.0")}");
        Assert.True(restarts.Length == 0 || Median(restarts) <= HostRestart.TotalSeconds, "a host takes too long to carry on");
    }

    private static int Setting(string name, int otherwise) =>
        Environment.GetEnvironmentVariable(name) is { Length: > 0 } text ? int.Parse(text, CultureInfo.InvariantCulture) : otherwise;

    /// <summary>Starts runs until there is enough to be hit.</summary>
    private static async Task KeepBusyAsync(ChaosStack stack, List<(string RunId, string Spec)> runs)
    {
        int going = 0;
        foreach ((string runId, _) in runs)
            going += RunStates.IsFinal((await stack.ViewAsync(runId)).State) ? 0 : 1;
        for (; going < RunsAtOnce; going++)
        {
            string spec = Specs[runs.Count % Specs.Length];
            runs.Add(($"{spec}-{runs.Count}", spec));
            await stack.StartRunAsync(spec, runs[^1].RunId);
        }
    }

    /// <summary>For each two attempts in a row of a job: how many steps the second did again.</summary>
    private static IEnumerable<int> Repeated(IGrouping<string, AttemptLine> job)
    {
        int reached = 0;
        foreach (IGrouping<int, AttemptLine> attempt in job.GroupBy(line => line.Fence).OrderBy(attempt => attempt.Key))
        {
            if (attempt.All(line => line.Step is null && line.TakenUpAt is null))
                continue; // it ended before its first step
            int from = attempt.Select(line => line.TakenUpAt).FirstOrDefault(step => step is not null) ?? 0;
            if (reached > 0)
                yield return reached - from;
            reached = attempt.Max(line => line.Step ?? line.TakenUpAt ?? 0);
        }
    }

    /// <summary>Seconds until another attempt of the killed one's job did a step, or the run went on to another stage.</summary>
    private static double? Recovery(DateTime utc, AttemptLine killed, IReadOnlyList<AttemptLine> ledger)
    {
        string run = killed.Job.Split('/')[0];
        DateTime? next = ledger
            .Where(line => line.Utc > utc && line.Step is not null && line.Job.Split('/')[0] == run
                && (line.Job != killed.Job || line.Fence > killed.Fence))
            .Select(line => (DateTime?)line.Utc).Min();
        return (next - utc)?.TotalSeconds;
    }

    private static string Spread(double[] values, string format) => values.Length == 0
        ? "none"
        : string.Create(CultureInfo.InvariantCulture, $"median {Median(values).ToString(format, CultureInfo.InvariantCulture)}, ")
            + $"maximum {values.Max().ToString(format, CultureInfo.InvariantCulture)}";

    private static double Median(double[] values) => values.Order().ElementAt(values.Length / 2);
}
