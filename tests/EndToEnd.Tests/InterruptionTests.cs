using System.Diagnostics;
using Rlhf.Report;
using Rlhf.Tests;

namespace Rlhf.EndToEnd.Tests;

/// <summary>A run that is repeated, or interrupted anywhere, ends in the same weights and the same numbers.</summary>
[Collection(PipelineRuns.Name)]
public sealed class InterruptionTests(FinishedRun undisturbed)
{
    private static readonly TimeSpan Limit = FinishedRun.Limit;

    [Fact]
    public async Task Second_run_gives_the_same_metrics_and_weights()
    {
        using var workspace = new Workspace();
        await using LocalProcess local = LocalProcess.Start(workspace.Root, null, FinishedRun.Arguments(workspace, "again"));
        Assert.True(await local.ExitAsync(Limit) == 0, local.Output + local.Error);
        AssertSame(workspace, "again");
    }

    [Fact]
    public async Task Trainer_killed_in_pretraining_and_in_ppo_changes_nothing()
    {
        using var workspace = new Workspace();
        await using LocalProcess local = LocalProcess.Start(workspace.Root, null, FinishedRun.Arguments(workspace, "trainer-killed"));
        foreach ((string stage, int step) in new[] { (Stages.Pretrain, 5), (Stages.Ppo, 0) })
        {
            await local.WaitForTrainerAsync(stage, step, Limit);
            using var trainer = Process.GetProcessById(LocalProcess.StackProcess(workspace.State, "trainer"));
            trainer.Kill();
        }

        Assert.True(await local.ExitAsync(Limit) == 0, local.Output + local.Error);
        Assert.Contains("the trainer was killed", local.Output, StringComparison.Ordinal);
        RunReport report = AssertSame(workspace, "trainer-killed");
        Assert.All(report.Stages.Where(stage => stage.Name is Stages.Pretrain or Stages.Ppo), stage => Assert.NotEmpty(stage.Failures));
    }

    [Fact]
    public async Task Host_killed_in_reward_and_started_again_carries_on()
    {
        using var workspace = new Workspace();
        string[] arguments = FinishedRun.Arguments(workspace, "host-killed");
        await using (LocalProcess first = LocalProcess.Start(workspace.Root, null, arguments))
        {
            await first.WaitForAsync("reward: step", Limit);
            first.Kill();
            await first.ExitAsync(Limit);
        }

        await using LocalProcess second = LocalProcess.Start(workspace.Root, null, arguments);
        Assert.True(await second.ExitAsync(Limit) == 0, second.Output + second.Error);
        Assert.Contains("run host-killed: carried on", second.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("sft: started", second.Output, StringComparison.Ordinal);
        AssertSame(workspace, "host-killed");
    }

    private RunReport AssertSame(Workspace workspace, string runId)
    {
        RunReport report = FinishedRun.Read(workspace, runId);
        Assert.Equal(RunFingerprint.Of(undisturbed.Report), RunFingerprint.Of(report));
        return report;
    }
}
