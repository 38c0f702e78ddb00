using Rlhf.Functions.Orchestrators;
using Rlhf.Jobs;
using Rlhf.Spec;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>The guard's rules between two slices of an online method.</summary>
public sealed class SliceDecisionTests
{
    [Fact]
    public void Without_a_guard_the_newest_slice_is_kept()
    {
        (StageSlice? best, _, string? stop) = StageSlices.Decide(Input(new GuardSpec(), Slice(2, kl: 1, gold: 5)), Slice(4, kl: 9, gold: 1));
        Assert.Equal(4, best!.Iteration);
        Assert.Null(stop);
    }

    [Fact]
    public void A_kl_above_the_limit_stops_and_keeps_the_slice_before()
    {
        var guard = new GuardSpec { MaxKl = 3 };
        (StageSlice? best, _, string? stop) = StageSlices.Decide(Input(guard, Slice(2, kl: 1)), Slice(4, kl: 3.5));
        Assert.Equal(2, best!.Iteration);
        Assert.Contains("guard.maxKl is 3", stop, StringComparison.Ordinal);
    }

    [Fact]
    public void A_kl_that_is_not_reported_does_not_pass_the_limit()
    {
        var silent = new StageSlice(4, new Dictionary<string, double>(), Models);
        (_, _, string? stop) = StageSlices.Decide(Input(new GuardSpec { MaxKl = 3 }, Slice(2, kl: 1)), silent);
        Assert.NotNull(stop);
    }

    [Fact]
    public void A_first_slice_above_the_limit_leaves_nothing_to_keep()
    {
        (StageSlice? best, _, string? stop) = StageSlices.Decide(Input(new GuardSpec { MaxKl = 3 }, null), Slice(2, kl: 4));
        Assert.Null(best);
        Assert.Contains("Lower ppo.learningRate", stop, StringComparison.Ordinal);
    }

    [Fact]
    public void The_watched_reward_may_fall_for_less_than_the_patience()
    {
        var guard = new GuardSpec { Metric = GuardMetric.GoldReward, Patience = 2 };
        StageSlicesInput input = Input(guard, null);
        int[] kept = [];
        string? stop = null;
        foreach ((int iteration, double gold) in new[] { (2, .1), (4, .3), (6, .2), (8, .4), (10, .3), (12, .35), (14, .9) })
        {
            (StageSlice? best, int since, stop) = StageSlices.Decide(input, Slice(iteration, kl: 1, gold: gold));
            input = input with { Best = best, SlicesSinceBest = since };
            kept = [.. kept, best!.Iteration];
            if (stop is not null)
                break;
        }

        Assert.Equal([2, 4, 4, 8, 8, 8], kept);
        Assert.Contains("gold_reward has not risen above 0.4 (iteration 8) in 2 slices", stop, StringComparison.Ordinal);
    }

    [Fact]
    public void A_watched_metric_that_is_missing_is_said()
    {
        var guard = new GuardSpec { Metric = GuardMetric.GoldReward };
        (StageSlice? best, _, string? stop) = StageSlices.Decide(Input(guard, null), Slice(2, kl: 1, proxy: 3));
        Assert.Null(best);
        Assert.Contains("reported no gold_reward", stop, StringComparison.Ordinal);
    }

    private static readonly Dictionary<string, ModelRef> Models = new() { [ModelRoles.Ppo] = new ModelRef("cas/ab/ab", "ab") };

    private static StageSlicesInput Input(GuardSpec guard, StageSlice? best) => new()
    {
        Order = new JobOrder
        {
            RunId = "r",
            Stage = "ppo",
            Job = new JobSpec { Kind = JobKind.Ppo, RunDocument = "x" },
            Trainer = new(),
            Budget = new(),
        },
        Iterations = 60,
        IterationsPerSlice = 2,
        Guard = guard,
        Best = best,
    };

    private static StageSlice Slice(int iteration, double kl, double? gold = null, double? proxy = null)
    {
        var metrics = new Dictionary<string, double> { [DecisionMetrics.Kl] = kl };
        if (gold is { } judged)
            metrics[DecisionMetrics.GoldReward] = judged;
        if (proxy is { } scored)
            metrics[DecisionMetrics.ProxyReward] = scored;
        return new StageSlice(iteration, metrics, Models);
    }
}
