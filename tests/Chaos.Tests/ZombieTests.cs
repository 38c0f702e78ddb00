using Rlhf.Report;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>
/// Trainers that stand still (SIGSTOP) in the middle of a stage and go on (SIGCONT) as if nothing had been: a paused virtual machine, a
/// laptop's lid, a disk that hung.
/// </summary>
[Collection(nameof(ChaosRuns))]
public sealed class ZombieTests(ChaosRuns chaos)
{
    [Fact]
    public async Task A_trainer_that_comes_back_after_its_job_was_given_away_publishes_nothing_and_serves_on()
    {
        const string run = "ppo-zombies";
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync("ppo");
        await stack.StartRunAsync("ppo", run);

        var zombies = new List<AttemptLine>();
        foreach ((string stage, int step) in new[] { (Stages.Sft, 10), (Stages.Ppo, 7) })
        {
            (TrainerProcess frozen, AttemptLine at) = await FreezeAsync(stack, run, stage, step);
            await TakenOverAsync(stack, at);
            DateTime thawed = DateTime.UtcNow;
            frozen.Thaw();
            await AssertStopsAsync(frozen, at);
            AttemptLine other = await TrainerProcess.WaitForAsync(
                stack.Trainers, line => line.Job == at.Job && line.Fence > at.Fence && line.Step is not null && line.Utc > thawed, ChaosStack.Patience);
            Assert.True(other.Fence > at.Fence);
            zombies.Add(at);
        }

        (TrainerProcess late, AttemptLine lateAt) = await FreezeAsync(stack, run, Stages.Evaluate, 1);
        RunReport report = await stack.ReportAsync(run);
        string[] places = [BlobLayout.Run(run), $"models/{report.Spec.Name}/"];
        SortedDictionary<string, string> before = await stack.SnapshotAsync(places);
        late.Thaw();
        await AssertStopsAsync(late, lateAt);
        SortedDictionary<string, string> after = await stack.SnapshotAsync(places);

        string own = $"{BlobLayout.Attempts(run, Stages.Evaluate)}{lateAt.Fence:D6}-";
        Assert.Equal(before.Where(blob => !blob.Key.StartsWith(own, StringComparison.Ordinal)), after.Where(blob => !blob.Key.StartsWith(own, StringComparison.Ordinal)));
        Assert.Equal(expected["ppo"], RunFingerprint.Of(report));
        await RunChecks.AssertOneResultAsync(stack, report);
        foreach (AttemptLine zombie in zombies.Append(lateAt))
            await RunChecks.AssertNothingPublishedAsync(stack, zombie);
        await AssertServesAsync(stack, late);
    }

    [Fact]
    public async Task A_trainer_that_comes_back_in_time_loses_nothing()
    {
        const string run = "dpo-nap";
        const double limit = 30;
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync("dpo");
        await stack.StartRunAsync("dpo", run, spec => spec["trainer"]!["lostAfterSeconds"] = limit);

        foreach (string stage in (string[])[Stages.Sft, Stages.Dpo])
        {
            (TrainerProcess frozen, _) = await FreezeAsync(stack, run, stage, step: 6);
            await Task.Delay(TimeSpan.FromSeconds(3)); // longer than six heartbeats and than the other runs' limit
            frozen.Thaw();
        }

        RunReport report = await stack.ReportAsync(run);
        Assert.Equal(expected["dpo"], RunFingerprint.Of(report));
        await RunChecks.AssertOneResultAsync(stack, report);
        await RunChecks.AssertUntouchedAsync(stack, report);
    }

    /// <summary>Stops the trainer that works on the stage, in the middle of it.</summary>
    private static async Task<(TrainerProcess Trainer, AttemptLine At)> FreezeAsync(ChaosStack stack, string run, string stage, int step)
    {
        (TrainerProcess trainer, AttemptLine at) = await stack.AtStepAsync(run, stage, step);
        trainer.Freeze();
        Assert.True(trainer.Present is { } present && present.Job == at.Job && present.Fence == at.Fence, $"too late in {stage}\n{trainer.Tail}");
        return (trainer, at);
    }

    /// <summary>Waits until an attempt with a later fence has done a step.</summary>
    private static Task<AttemptLine> TakenOverAsync(ChaosStack stack, AttemptLine at) => TrainerProcess.WaitForAsync(
        stack.Trainers, line => line.Job == at.Job && line.Fence > at.Fence && line.Step is not null, ChaosStack.Patience);

    /// <summary>The attempt ends, and says that another one has its job.</summary>
    private static async Task AssertStopsAsync(TrainerProcess trainer, AttemptLine at)
    {
        AttemptLine end = await trainer.WaitForAsync(
            line => line.Job == at.Job && line.Fence == at.Fence && line.IsEnd, ChaosStack.Patience);
        Assert.True(end.IsSuperseded, end.Text);
    }

    /// <summary>With all others stopped, this trainer takes the next job.</summary>
    private static async Task AssertServesAsync(ChaosStack stack, TrainerProcess trainer)
    {
        const string run = "after-zombies";
        foreach (TrainerProcess other in stack.Trainers.Where(other => other != trainer))
            other.Freeze();
        await stack.StartRunAsync("dpo", run);
        await trainer.WaitForAsync(line => line.IsClaim && line.Job == $"{run}/{Stages.Pretrain}", ChaosStack.Patience);
        await stack.AskAsync(run, "cancel");
        Assert.Equal(RunStates.Cancelled, (await stack.EndAsync(run)).State);
    }
}
