using Rlhf.Simulation.Core;
using Rlhf.Simulation.Storage;

namespace Rlhf.Simulation.Parts;

/// <summary>
/// One damage at one point: at the k-th storage request of the run the newest blob of a kind is damaged, and the trainers die, so that
/// somebody has to read it.
/// </summary>
internal sealed class OneDamage : IFaults
{
    private SimulatedRun run = null!;
    private int requests;

    public required DamageTarget Target { get; init; }

    public required DamageKind Kind { get; init; }

    /// <summary>The number of the request, from 1.</summary>
    public required int Request { get; init; }

    /// <summary>The blob that was damaged; null where there was none of the kind yet.</summary>
    public string? Path { get; private set; }

    public void Begin(SimulatedRun run)
    {
        this.run = run;
        run.Ledger.AllowsFallBack = true;
    }

    public RequestFate OnRequest(SimProcess process, string what)
    {
        if (!run.HasEnded && ++requests == Request)
            run.World.After(TimeSpan.Zero, null, Strike);
        return RequestFate.Served;
    }

    public CommitFate OnCommit(SimProcess host) => CommitFate.Committed;

    public TimeSpan[] CopiesOf(string queue) => [TimeSpan.Zero];

    private void Strike()
    {
        BlobServer blobs = run.Storage.Blobs;
        Path = blobs.Newest(path => Damage.IsTarget(blobs, Target, path));
        if (Path is null)
            return;
        Damage.Do(blobs, Path, Kind, new Random(Request));
        run.World.Record("storage", $"{Target} is {Kind}: {Path}");
        foreach (SimTrainer trainer in run.Trainers)
        {
            if (!trainer.Process.IsDead)
                trainer.Process.Crash("with the damage done");
        }
    }
}
