using System.Text;
using Rlhf.Simulation.Core;
using Rlhf.Simulation.Storage;

namespace Rlhf.Simulation.Parts;

/// <summary>
/// The damage that only a checksum shows: one digit of the newest checkpoint's state becomes another, everything stays readable, and the
/// trainers die, so that somebody resumes from it.
/// </summary>
internal sealed class FlippedDigit : IFaults
{
    public void Begin(SimulatedRun run)
    {
        run.Ledger.AllowsFallBack = true;
        run.World.After(run.World.Between(15, 60), null, () =>
        {
            // Paths begin with the stage and its fence and end with the step: of one stage, the last is the newest.
            string? newest = run.Storage.Blobs.Paths.LastOrDefault(
                path => path.EndsWith("/state.json", StringComparison.Ordinal) && path.Contains("/sft/", StringComparison.Ordinal));
            if (newest is null)
                return;
            string state = Encoding.UTF8.GetString(run.Storage.Blobs.Read(newest)!.Content);
            int digit = state.LastIndexOf('"') - 1;
            char other = state[digit] == '0' ? '1' : '0';
            run.Storage.Blobs.Damage(newest, Encoding.UTF8.GetBytes($"{state[..digit]}{other}{state[(digit + 1)..]}"));
            run.World.Record("storage", "a digit is flipped");
            foreach (SimTrainer trainer in run.Trainers)
                trainer.Process.Crash("with the damage done");
        });
    }

    public RequestFate OnRequest(SimProcess process, string what) => RequestFate.Served;

    public CommitFate OnCommit(SimProcess host) => CommitFate.Committed;

    public TimeSpan[] CopiesOf(string queue) => [TimeSpan.Zero];
}
