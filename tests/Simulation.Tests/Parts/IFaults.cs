using Rlhf.Simulation.Core;
using Rlhf.Simulation.Storage;

namespace Rlhf.Simulation.Parts;

/// <summary>What becomes of one commit of the durable engine's database.</summary>
internal enum CommitFate
{
    Committed,

    /// <summary>The host dies before it: the turn is lost.</summary>
    CrashesBefore,

    /// <summary>The host dies after it: the turn is kept, and nobody was told.</summary>
    CrashesAfter,
}

/// <summary>Decides what goes wrong in a run.</summary>
internal interface IFaults
{
    /// <summary>Called once, at the beginning: plans what happens at some time.</summary>
    void Begin(SimulatedRun run);

    /// <summary>What becomes of a storage request.</summary>
    RequestFate OnRequest(SimProcess process, string what);

    /// <summary>What becomes of a commit of the host's database.</summary>
    CommitFate OnCommit(SimProcess host);

    /// <summary>After how long each copy of a message shows; one copy at once, if nothing goes wrong.</summary>
    TimeSpan[] CopiesOf(string queue);
}

/// <summary>Nothing goes wrong.</summary>
internal sealed class NoFaults : IFaults
{
    public void Begin(SimulatedRun run)
    {
    }

    public RequestFate OnRequest(SimProcess process, string what) => RequestFate.Served;

    public CommitFate OnCommit(SimProcess host) => CommitFate.Committed;

    public TimeSpan[] CopiesOf(string queue) => [TimeSpan.Zero];
}
