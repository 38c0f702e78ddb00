using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Rlhf.Jobs;

namespace Rlhf.Functions.Orchestrators;

/// <summary>The input of <see cref="StageJob"/>: the order, and the watch carried over from the generation before.</summary>
public sealed record StageJobInput(JobOrder Order, JobWatch Watch);

/// <summary>What a stage came to, by references and figures only.</summary>
public sealed record StageOutcome
{
    /// <summary>One of <see cref="StageStates"/>.</summary>
    public required string State { get; init; }

    /// <summary>Why it failed or was stopped.</summary>
    public string? Error { get; init; }

    /// <summary>Attempts that a trainer claimed, slices included.</summary>
    public int Attempts { get; init; }

    public double TrainerSeconds { get; init; }

    /// <summary>Seconds spent in pauses.</summary>
    public double PausedSeconds { get; init; }

    /// <summary>Summary metrics; of a sliced stage those of the slice whose model is kept.</summary>
    public IReadOnlyDictionary<string, double> Metrics { get; init; } = new Dictionary<string, double>();

    /// <summary>Models made, by role.</summary>
    public IReadOnlyDictionary<string, ModelRef> Models { get; init; } = new Dictionary<string, ModelRef>();

    /// <summary>Other files made, by name.</summary>
    public IReadOnlyDictionary<string, ContentFile> Artifacts { get; init; } = new Dictionary<string, ContentFile>();

    internal static StageOutcome Of(JobWatch watch)
    {
        JobEnd end = watch.End!;
        return new StageOutcome
        {
            State = end.State switch
            {
                JobState.Succeeded or JobState.SliceDone => StageStates.Succeeded,
                JobState.Cancelled => StageStates.Cancelled,
                _ => StageStates.Failed,
            },
            Error = end.Error,
            Attempts = watch.Attempts,
            TrainerSeconds = watch.TrainerSeconds,
            PausedSeconds = watch.PausedSeconds,
            Metrics = end.Result?.Metrics ?? new Dictionary<string, double>(),
            Models = end.Result?.Models ?? new Dictionary<string, ModelRef>(),
            Artifacts = end.Result?.Artifacts ?? new Dictionary<string, ContentFile>(),
        };
    }
}

/// <summary>Sees one job of one stage through: pretrain, sft, reward, dpo, evaluate. Instance id: <c>{runId}:{stage}</c>.</summary>
public static class StageJob
{
    /// <summary>Drives the job; continues as new until it is over.</summary>
    [Function(nameof(StageJob))]
    public static async Task<StageOutcome?> RunAsync([OrchestrationTrigger] TaskOrchestrationContext context, StageJobInput input)
    {
        JobWatch watch = await JobDriver.DriveAsync(context, input.Order, input.Watch);
        if (watch.End is not null)
            return StageOutcome.Of(watch);

        context.ContinueAsNew(input with { Watch = watch });
        return null;
    }
}
