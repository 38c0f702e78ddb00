using Rlhf.Jobs;
using Rlhf.Simulation.Core;

namespace Rlhf.Simulation.Parts;

/// <summary>Every step that was computed, by whomever: shows how much of it was for nothing.</summary>
internal sealed class Ledger(SimWorld world)
{
    private readonly Dictionary<JobKind, int> furthest = [];

    /// <summary>Called after each step.</summary>
    public event Action? Stepping;

    /// <summary>Checkpoints were damaged: then an attempt may have to go back further than one interval.</summary>
    public bool AllowsFallBack { get; set; }

    /// <summary>Steps computed, repeated ones included.</summary>
    public int Steps { get; private set; }

    /// <summary>The most steps that one attempt had to repeat.</summary>
    public int MostRepeated { get; private set; }

    public void Stepped(JobKind kind, int step)
    {
        Steps++;
        furthest[kind] = Math.Max(furthest.GetValueOrDefault(kind), step);
        world.Record("ledger", $"{kind} {step}");
        Stepping?.Invoke();
    }

    /// <summary>An attempt begins after the given step.</summary>
    public void Resumed(JobKind kind, int step)
    {
        int repeated = furthest.GetValueOrDefault(kind) - step;
        MostRepeated = Math.Max(MostRepeated, repeated);
        world.Record("ledger", $"{kind} resumes after {step}");
        if (repeated > RunUnderTest.CheckpointEvery + 1 && !AllowsFallBack)
        {
            world.Violate(
                Rules.RepeatedWork,
                $"{kind} had reached step {furthest[kind]} and resumes after {step}; checkpoints are {RunUnderTest.CheckpointEvery} apart");
        }
    }
}
