using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.Extensions.Logging;
using Rlhf.Jobs;
using Rlhf.Spec;

namespace Rlhf.Functions.Orchestrators;

/// <summary>The input of <see cref="StageSlices"/>, and its state from slice to slice.</summary>
public sealed record StageSlicesInput
{
    public required JobOrder Order { get; init; }

    /// <summary>Iterations of the whole stage.</summary>
    public required int Iterations { get; init; }

    public required int IterationsPerSlice { get; init; }

    public required GuardSpec Guard { get; init; }

    /// <summary>The watch over the present slice.</summary>
    public JobWatch Watch { get; init; } = new();

    /// <summary>Iterations done by the slices before.</summary>
    public int Iteration { get; init; }

    /// <summary>The slice whose model is kept so far.</summary>
    public StageSlice? Best { get; init; }

    /// <summary>Slices since <see cref="Best"/>.</summary>
    public int SlicesSinceBest { get; init; }
}

/// <summary>A slice's recorded end.</summary>
/// <param name="Iteration">The iteration it ended at.</param>
/// <param name="Metrics">Its figures on validation prompts.</param>
/// <param name="Models">Its model, finished and fit for use.</param>
public sealed record StageSlice(int Iteration, IReadOnlyDictionary<string, double> Metrics, IReadOnlyDictionary<string, ModelRef> Models);

/// <summary>
/// An online method (PPO, RLOO, GRPO) as a chain of jobs of K iterations. Between two of them the decisions are taken here, from recorded
/// results: go on, stop because the policy has drifted too far (KL) or the watched reward no longer rises, and which slice's model to keep.
/// One generation per slice.
/// Instance id: <c>{runId}:{stage}</c>.
/// </summary>
public static class StageSlices
{
    /// <summary>Drives the present slice, decides, and continues as new until the stage is over.</summary>
    [Function(nameof(StageSlices))]
    public static async Task<StageOutcome?> RunAsync([OrchestrationTrigger] TaskOrchestrationContext context, StageSlicesInput input)
    {
        ILogger logger = context.CreateReplaySafeLogger(nameof(StageSlices));
        int until = Math.Min(input.Iteration + input.IterationsPerSlice, input.Iterations);
        JobOrder slice = input.Order with { Job = input.Order.Job with { UntilStep = until } };
        JobWatch watch = await JobDriver.DriveAsync(context, slice, input.Watch);
        if (watch.End is not { } end)
        {
            context.ContinueAsNew(input with { Watch = watch });
            return null;
        }

        StageOutcome outcome = StageOutcome.Of(watch);
        if (end.State is not (JobState.Succeeded or JobState.SliceDone))
            return outcome;

        var done = new StageSlice(until, outcome.Metrics, outcome.Models);
        (StageSlice? best, int since, string? stop) = Decide(input, done);
        logger.LogInformation(
            "{Instance}: iteration {Iteration}, kl {Kl}: {Decision}",
            context.InstanceId, until, Figure(done, DecisionMetrics.Kl), stop ?? "on");
        if (best is null)
        {
            string error = $"Run '{slice.RunId}', stage '{slice.Stage}', attempt {watch.Fence}: {stop}";
            return outcome with { State = StageStates.Failed, Error = error };
        }

        if (stop is null && end.State == JobState.SliceDone && until < input.Iterations)
        {
            context.ContinueAsNew(input with { Watch = watch.NextSlice(), Iteration = until, Best = best, SlicesSinceBest = since });
            return null;
        }

        return outcome with
        {
            State = stop is null ? StageStates.Succeeded : StageStates.StoppedByGuard,
            Error = stop,
            Metrics = new SortedDictionary<string, double>(best.Metrics.ToDictionary(), StringComparer.Ordinal)
            {
                ["iteration"] = best.Iteration,
            },
            Models = best.Models,
        };
    }

    /// <summary>
    /// Keeps the better of two slices and applies the guard. No best at all means that not even the first slice was acceptable.
    /// </summary>
    internal static (StageSlice? Best, int SlicesSinceBest, string? Stop) Decide(StageSlicesInput input, StageSlice done)
    {
        GuardSpec guard = input.Guard;
        string stage = input.Order.Stage;
        if (guard.MaxKl is { } maxKl && !(Figure(done, DecisionMetrics.Kl) <= maxKl))
        {
            string drift = $"the KL from the SFT model is {Figure(done, DecisionMetrics.Kl):0.###} nats per sequence "
                + $"at iteration {done.Iteration}; guard.maxKl is {maxKl:0.###}";
            return input.Best is null
                ? (null, 0, $"{drift}, and no slice before it could be kept. "
                    + $"Lower {stage}.learningRate or {stage}.iterationsPerSlice, or raise {stage}.klCoefficient or guard.maxKl.")
                : (input.Best, input.SlicesSinceBest + 1, $"{drift}. The model of iteration {input.Best.Iteration} is kept.");
        }

        string metric = guard.Metric == GuardMetric.GoldReward ? DecisionMetrics.GoldReward : DecisionMetrics.ProxyReward;
        if (guard.Metric != GuardMetric.None && double.IsNaN(Figure(done, metric)))
        {
            string missing = $"the trainer reported no {metric} at iteration {done.Iteration}, which guard.metric watches.";
            return (input.Best, input.SlicesSinceBest + 1, missing);
        }

        if (guard.Metric == GuardMetric.None || input.Best is null || Figure(done, metric) > Figure(input.Best, metric))
            return (done, 0, null);

        int since = input.SlicesSinceBest + 1;
        return (input.Best, since, since < guard.Patience
            ? null
            : $"{metric} has not risen above {Figure(input.Best, metric):0.###} (iteration {input.Best.Iteration}) in {since} slices. "
                + "That iteration's model is kept.");
    }

    /// <summary>A figure of a slice; not a number where the trainer reported none, which no guard accepts.</summary>
    private static double Figure(StageSlice slice, string metric) => slice.Metrics.GetValueOrDefault(metric, double.NaN);
}
