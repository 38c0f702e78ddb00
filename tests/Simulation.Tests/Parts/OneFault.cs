using Rlhf.Simulation.Core;
using Rlhf.Simulation.Storage;

namespace Rlhf.Simulation.Parts;

/// <summary>One fault at one point: the k-th storage request of the run, or the k-th commit of the host's database. Counts them too.</summary>
internal sealed class OneFault : IFaults
{
    private SimulatedRun run = null!;

    /// <summary>The number of the request that goes wrong, from 1; 0 for none.</summary>
    public int Request { get; init; }

    public RequestFate RequestFate { get; init; }

    /// <summary>The number of the commit that goes wrong, from 1; 0 for none.</summary>
    public int Commit { get; init; }

    public CommitFate CommitFate { get; init; }

    /// <summary>Storage requests until the end of the run.</summary>
    public int Requests { get; private set; }

    /// <summary>Commits until the end of the run.</summary>
    public int Commits { get; private set; }

    public void Begin(SimulatedRun run) => this.run = run;

    public RequestFate OnRequest(SimProcess process, string what) =>
        !run.HasEnded && ++Requests == Request ? RequestFate : RequestFate.Served;

    public CommitFate OnCommit(SimProcess host) =>
        !run.HasEnded && ++Commits == Commit ? CommitFate : CommitFate.Committed;

    public TimeSpan[] CopiesOf(string queue) => [TimeSpan.Zero];
}
