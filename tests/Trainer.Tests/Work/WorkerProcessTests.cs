using Rlhf.Jobs;
using Rlhf.Spec;
using Rlhf.Tests;
using Rlhf.Trainer.Work;
using Xunit;

namespace Rlhf.Trainer.Tests.Work;

/// <summary>Real worker processes, ended in every way there is: out come the weights of an undisturbed run, byte for byte.</summary>
[Collection(nameof(StorageTests))]
public sealed class WorkerProcessTests(AzuriteFixture azurite)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task KilledAndTerminatedSftEndsInTheWeightsOfAnUndisturbedRun()
    {
        JobTestRun calm = await JobTestRun.CreateAsync(azurite, Long);
        JobResult undisturbed = await calm.RunAsync(Stages.Sft, calm.Job(JobKind.Sft));
        JobTestRun run = await JobTestRun.CreateAsync(azurite, Long);

        await run.EnqueueAsync(Stages.Sft, 1, run.Job(JobKind.Sft));
        await using (WorkerProcess killed = WorkerProcess.Start(run))
        {
            await HeadAsync(run, head => head.Step > 0, killed);
            await killed.KillAsync();
        }

        int reached = (await HeadAsync(run, head => head.Step > 0)).Step;
        await run.EnqueueAsync(Stages.Sft, 2, run.Job(JobKind.Sft));
        await using (WorkerProcess terminated = WorkerProcess.Start(run))
        {
            await HeadAsync(run, head => head.Step > reached, terminated);
            terminated.Terminate();
            Assert.Equal(JobWorker.ExitDone, await terminated.ExitAsync());
        }

        JobResult preempted = (await run.JobAsync(Stages.Sft)).Result!;
        Assert.Equal(JobState.Preempted, preempted.Outcome);
        Assert.Equal(preempted.Step, (await HeadAsync(run, _ => true)).Step); // nothing of its work is lost
        Assert.InRange(preempted.Step, reached + 1, undisturbed.TotalSteps - 1);

        await run.EnqueueAsync(Stages.Sft, 3, run.Job(JobKind.Sft));
        await using WorkerProcess last = WorkerProcess.Start(run, ("RLHF_MAX_JOBS", "1"));
        Assert.Equal(JobWorker.ExitDone, await last.ExitAsync());

        JobResult result = (await run.JobAsync(Stages.Sft)).Result!;
        Assert.Equal(JobState.Succeeded, result.Outcome);
        Assert.Equal(undisturbed.Models[ModelRoles.Sft].Sha256, result.Models[ModelRoles.Sft].Sha256);
        Assert.Equal(undisturbed.Metrics, result.Metrics);
        Assert.Contains($"resumes at step {preempted.Step}/", last.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task PpoSlicesOfSeveralProcessesEndInTheWeightsOfOneRun()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite);
        run.Use(await run.RunAsync(Stages.Sft, run.Job(JobKind.Sft)));
        run.Use(await run.RunAsync(Stages.Reward, run.Job(JobKind.Reward)));
        JobResult whole = await run.RunAsync("ppo-whole", run.Job(JobKind.Ppo));

        // Two slices in one process, which keeps its models; the last in another, which loads them.
        await using WorkerProcess first = WorkerProcess.Start(run, ("RLHF_MAX_JOBS", "2"));
        await run.EnqueueAsync(Stages.Ppo, 1, run.Job(JobKind.Ppo, untilStep: 1));
        await StateAsync(run, Stages.Ppo, JobState.SliceDone, first);
        await run.EnqueueAsync(Stages.Ppo, 2, run.Job(JobKind.Ppo, untilStep: 2));
        Assert.Equal(JobWorker.ExitDone, await first.ExitAsync());
        await run.EnqueueAsync(Stages.Ppo, 3, run.Job(JobKind.Ppo, untilStep: 4));
        await using WorkerProcess second = WorkerProcess.Start(run, ("RLHF_MAX_JOBS", "1"));
        Assert.Equal(JobWorker.ExitDone, await second.ExitAsync());

        Assert.Contains("ppo#2 goes on at step 1/4", first.Output, StringComparison.Ordinal);
        Assert.Contains("ppo#3 resumes at step 2/4 from the checkpoint of attempt 2", second.Output, StringComparison.Ordinal);

        JobResult sliced = (await run.JobAsync(Stages.Ppo)).Result!;
        Assert.Equal((JobState.Succeeded, 4), (sliced.Outcome, sliced.Step));
        Assert.Equal(whole.Models[ModelRoles.Ppo].Sha256, sliced.Models[ModelRoles.Ppo].Sha256);
        Assert.Equal(whole.Metrics, sliced.Metrics);
    }

    [Fact]
    public async Task ZombieThatComesBackLeavesNoTrace()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite, Long);
        await run.EnqueueAsync(Stages.Sft, 1, run.Job(JobKind.Sft));
        await using WorkerProcess zombie = WorkerProcess.Start(run, ("RLHF_MAX_JOBS", "1"));
        await HeadAsync(run, head => head.Step > 0, zombie);
        zombie.Freeze(true);

        await run.EnqueueAsync(Stages.Sft, 2, run.Job(JobKind.Sft));
        await run.RunAsync(await run.ClaimAsync(), CancellationToken.None);
        JobDocument finished = await run.JobAsync(Stages.Sft);
        Head head = await HeadAsync(run, _ => true);
        zombie.Freeze(false);
        Assert.Equal(JobWorker.ExitDone, await zombie.ExitAsync());

        Assert.Contains("was superseded", zombie.Output, StringComparison.Ordinal);
        Assert.Equal(JobState.Succeeded, finished.State);
        JobDocument after = await run.JobAsync(Stages.Sft);
        Assert.Equal((finished.Fence, finished.State), (after.Fence, after.State));
        Assert.Equal(finished.Result!.Models[ModelRoles.Sft], after.Result!.Models[ModelRoles.Sft]);
        Assert.Equal(head, await HeadAsync(run, _ => true));
    }

    [Theory]
    [InlineData("RLHF_MAX_JOBS", "many", "RLHF_MAX_JOBS is 'many'")]
    [InlineData("RLHF_MACHINE", "GPU T4", "RLHF_MACHINE is 'GPU T4'")]
    [InlineData("AzureWebJobsStorage", "", "set AzureWebJobsStorage")]
    public async Task UnusableSettingIsNamedAndEndsTheProcess(string name, string value, string message)
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite);
        await using WorkerProcess worker = WorkerProcess.Start(run, (name, value));

        Assert.Equal(JobWorker.ExitUnusable, await worker.ExitAsync());

        Assert.Contains(message, worker.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", worker.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task IdleWorkerEndsByItself()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite);
        await using WorkerProcess worker = WorkerProcess.Start(run, ("RLHF_EXIT_WHEN_IDLE_SECONDS", "0.3"));

        Assert.Equal(JobWorker.ExitDone, await worker.ExitAsync());
    }

    /// <summary>An SFT job of some seconds with a checkpoint every few steps.</summary>
    private static RunSpec Long(RunSpec spec) =>
        spec with { Sft = spec.Sft with { Epochs = 50 }, Trainer = spec.Trainer with { CheckpointEverySteps = 10 } };

    private static async Task StateAsync(JobTestRun run, string stage, JobState state, WorkerProcess worker)
    {
        for (int tries = 0; (await run.JobAsync(stage)).State != state; tries++)
        {
            if (tries > 1200)
                throw new TimeoutException($"The job did not become {state}.\n{worker.Output}");
            await Task.Delay(50, Cancellation);
        }
    }

    private static async Task<Head> HeadAsync(JobTestRun run, Func<Head, bool> until, WorkerProcess? worker = null)
    {
        for (int tries = 0; tries < 1200; tries++)
        {
            if (await run.Blobs.ReadJsonAsync<Head>(BlobLayout.Head(run.RunId, Stages.Sft), Cancellation) is { } head && until(head))
                return head;
            await Task.Delay(50, Cancellation);
        }

        throw new TimeoutException($"The head did not come so far.\n{worker?.Output}");
    }
}
