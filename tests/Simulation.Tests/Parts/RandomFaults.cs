using Rlhf.Simulation.Core;
using Rlhf.Simulation.Storage;

namespace Rlhf.Simulation.Parts;

/// <summary>What went wrong in a run, counted.</summary>
internal sealed record FaultCounts
{
    public int Crashes { get; set; }

    public int FailedRequests { get; set; }

    public int LostReplies { get; set; }

    public int Duplicates { get; set; }

    public int Delays { get; set; }

    public int Zombies { get; set; }

    public int Outages { get; set; }

    public int ClockJumps { get; set; }

    public int Preemptions { get; set; }

    public int Corruptions { get; set; }
}

/// <summary>
/// A seed's faults. Which kinds there are, how many and when is drawn once for the whole run, so that some seeds have a little of
/// everything and others much of one kind; after <see cref="Quiet"/> nothing goes wrong any more, and the run must come to its end.
/// </summary>
internal sealed class RandomFaults(int seed) : IFaults
{
    /// <summary>From then on nothing new goes wrong.</summary>
    private static readonly TimeSpan Quiet = TimeSpan.FromMinutes(20);

    /// <summary>About as many pieces of work as an undisturbed run consists of.</summary>
    private const int StepsOfARun = 5000;

    private readonly Random random = new(unchecked(seed * 486_187_739 + 1));
    private SimulatedRun run = null!;
    private double failures;
    private double lostReplies;
    private double repeats;
    private double crashes;
    private double duplicates;
    private double delays;

    public FaultCounts Counts { get; } = new();

    private SimWorld World => run.World;

    private bool IsQuiet => World.Now >= Quiet;

    public void Begin(SimulatedRun run)
    {
        this.run = run;
        failures = Rate(0.03);
        lostReplies = Rate(0.03);
        repeats = Rate(0.03);
        crashes = Rate(0.003);
        duplicates = Rate(0.5);
        delays = Rate(0.3);
        PlanCrashes(3, () => run.Host.Process);
        PlanCrashes(4, () => Trainer().Process);
        Plan(3, 200, StandStill);
        Plan(2, 200, CutOff);
        Plan(2, 200, GoDown);
        Plan(1, 200, Flap);
        Plan(2, 200, JumpClock);
        Plan(2, 200, Preempt);
        Plan(1, 150, Corrupt);
        if (random.Next(4) == 0)
            run.SendPoison();
    }

    public RequestFate OnRequest(SimProcess process, string what)
    {
        if (IsQuiet)
            return RequestFate.Served;
        double dice = random.NextDouble();
        if ((dice -= crashes) < 0)
        {
            Counts.Crashes++;
            return random.Next(2) == 0 ? RequestFate.CrashesBefore : RequestFate.CrashesAfter;
        }

        if ((dice -= failures) < 0)
        {
            Counts.FailedRequests++;
            return RequestFate.FailsBefore;
        }

        if ((dice -= lostReplies) < 0)
        {
            Counts.LostReplies++;
            return RequestFate.ReplyLost;
        }

        if (dice - repeats < 0)
        {
            Counts.LostReplies++;
            return RequestFate.Repeated;
        }

        return RequestFate.Served;
    }

    public CommitFate OnCommit(SimProcess host)
    {
        if (IsQuiet || random.NextDouble() >= crashes)
            return CommitFate.Committed;
        Counts.Crashes++;
        return random.Next(2) == 0 ? CommitFate.CrashesBefore : CommitFate.CrashesAfter;
    }

    public TimeSpan[] CopiesOf(string queue)
    {
        int copies = !IsQuiet && random.NextDouble() < duplicates ? random.Next(2, 6) : 1;
        Counts.Duplicates += copies - 1;
        return [.. Enumerable.Range(0, copies).Select(_ => Delay())];
    }

    private TimeSpan Delay()
    {
        if (IsQuiet || random.NextDouble() >= delays)
            return TimeSpan.Zero;
        Counts.Delays++;
        return TimeSpan.FromSeconds(random.Next(20) == 0 ? 3600 : 60 * random.NextDouble());
    }

    /// <summary>Half of all seeds have faults of a kind, the others none.</summary>
    private double Rate(double most) => random.Next(2) == 0 ? 0 : most * random.NextDouble();

    /// <summary>Plans up to so many faults of a kind, within the seconds that a run takes.</summary>
    private void Plan(int most, double seconds, Action fault)
    {
        for (int left = random.Next(2) == 0 ? 0 : random.Next(1, most + 1); left > 0; left--)
            World.After(TimeSpan.FromSeconds(seconds * random.NextDouble()), null, fault);
    }

    /// <summary>Plans crashes between any two pieces of work: whatever the process awaits then never comes.</summary>
    private void PlanCrashes(int most, Func<SimProcess> choose)
    {
        for (int left = random.Next(2) == 0 ? 0 : random.Next(1, most + 1); left > 0; left--)
        {
            World.AtStep(random.Next(StepsOfARun), () =>
            {
                if (choose() is not { IsDead: false } process)
                    return;
                Counts.Crashes++;
                process.Crash("at some await");
            });
        }
    }

    private void StandStill()
    {
        SimProcess process = random.Next(3) == 0 ? run.Host.Process : Trainer().Process;
        if (process.IsDead)
            return;
        if (process != run.Host.Process)
            Counts.Zombies++;
        process.StandStill(TimeSpan.FromSeconds(random.Next(2) == 0 ? 10 * random.NextDouble() : 60 + 200 * random.NextDouble()));
    }

    private void CutOff()
    {
        SimTrainer trainer = Trainer();
        trainer.CutOff(TimeSpan.FromSeconds(150 * random.NextDouble()));
    }

    private void GoDown()
    {
        Counts.Outages++;
        run.Storage.GoDown(TimeSpan.FromSeconds(random.Next(2) == 0 ? 30 * random.NextDouble() : 600 * random.NextDouble()));
    }

    private void Flap()
    {
        Counts.Outages++;
        run.Storage.FailureRate = 0.2 + 0.5 * random.NextDouble();
        World.Record("storage", $"fails {run.Storage.FailureRate:0.00} of all requests");
        World.After(TimeSpan.FromSeconds(300 * random.NextDouble()), null, () => run.Storage.FailureRate = 0);
    }

    private void JumpClock()
    {
        Counts.ClockJumps++;
        Machine machine = random.Next(2) == 0 ? run.Host.Process.Machine : Trainer().Process.Machine;
        machine.ClockError += TimeSpan.FromSeconds(random.Next(3) switch
        {
            0 => 86_400,
            1 => 600 * (random.NextDouble() - 0.5),
            _ => -3600 * random.NextDouble(),
        });
        World.Record(machine.Name, $"clock jumps to {machine.ClockError.TotalSeconds:0.0} s off");
    }

    private void Preempt()
    {
        Counts.Preemptions++;
        Trainer().Preempt();
    }

    /// <summary>Damages a checkpoint's part or manifest, a head or the document of a job that goes on: by a bit, by its end, or as a whole.</summary>
    private void Corrupt()
    {
        DamageTarget target = Enum.GetValues<DamageTarget>()[random.Next(4)];
        string[] parts = [.. run.Storage.Blobs.Paths.Where(path => Damage.IsTarget(run.Storage.Blobs, target, path))];
        if (parts.Length == 0)
            return;
        Counts.Corruptions++;
        run.Ledger.AllowsFallBack = true;
        string path = parts[random.Next(parts.Length)];
        Damage.Do(run.Storage.Blobs, path, Enum.GetValues<DamageKind>()[random.Next(3)], random);
        World.Note("storage", $"damages {path}");
    }

    private SimTrainer Trainer() => run.Trainers[random.Next(run.Trainers.Count)];
}
