using System.Diagnostics;
using System.Text.Json.Nodes;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>What goes wrong inside a trainer, for real: each kind is named, and handled by a budget of its own.</summary>
[Collection(nameof(ChaosRuns))]
public sealed class FaultKindTests(ChaosRuns chaos)
{
    private const int ExitWedged = 4;

    [Fact]
    public async Task A_wedged_step_is_told_from_a_slow_one_and_its_trainer_ends_itself()
    {
        const string run = "dpo-wedged", machine = "wedged";
        const int slowBeats = 6;
        const double wedgedAfter = 8;
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync("dpo");

        // Pipes that nobody writes to, where the trainer keeps verified copies: opening one waits, as for a mount that hangs.
        string cache = stack.NewFolder("cache-with-pipes");
        string slow = await MakePipeAsync(stack, cache, Stages.Sft, DatasetNames.Demonstrations);
        await MakePipeAsync(stack, cache, Stages.Reward, DatasetNames.Preferences);
        TrainerProcess wedged = await stack.StartTrainerForAsync(machine, ("RLHF_CACHE", cache), ("RLHF_GRACE_SECONDS", "2"));
        await stack.StartRunAsync("dpo", run, spec =>
        {
            spec["trainer"]!["machine"] = machine;
            spec["trainer"]!["wedgedAfterSeconds"] = wedgedAfter;
        });

        await stack.UntilAsync("a slow step", async () => await BeatAsync(stack, run, Stages.Sft) is { Phase: "load", Sequence: >= slowBeats } beat ? beat : null);
        await Task.Run(() => new FileStream(slow, FileMode.Open, FileAccess.Write, FileShare.ReadWrite).Dispose()).WaitAsync(ChaosStack.Patience);

        AttemptRecord record = await stack.EndedAsync(run, Stages.Reward, 1, AttemptOutcomes.Wedged);
        Assert.Contains($"heartbeats, but no progress for {wedgedAfter} s", record.Reason, StringComparison.Ordinal);
        Assert.Equal(ExitWedged, await wedged.ExitAsync(ChaosStack.Patience));
        Assert.Contains(
            $"Run '{run}', stage '{Stages.Reward}', attempt 1: the step after 0 has not ended 2 s after the attempt was superseded. The trainer ends itself",
            wedged.Output, StringComparison.Ordinal);
        Assert.Empty((await stack.JobAsync(run, Stages.Sft))!.History);

        TrainerProcess healthy = await stack.StartTrainerForAsync(machine);
        RunReport report = await stack.ReportAsync(run);
        Assert.Equal(expected["dpo"], RunFingerprint.Of(report));
        await RunChecks.AssertOneResultAsync(stack, report);
        await healthy.KillAsync();
    }

    [Fact]
    public async Task A_full_disk_is_named_waited_for_and_survived()
    {
        const string run = "dpo-full-disk", machine = "fulldisk";
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync("dpo");
        string disk = stack.NewFolder("small-disk");
        Assert.SkipUnless(await RunAsync("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk), "a disk of its own needs the right to mount one");
        try
        {
            TrainerProcess trainer = await stack.StartTrainerForAsync(machine, ("RLHF_CACHE", disk));
            await stack.StartRunAsync("dpo", run, spec => spec["trainer"]!["machine"] = machine);

            RunView paused = await stack.WaitAsync(run, view => view.Activity?.Contains("waiting for the next attempt, in", StringComparison.Ordinal) == true);
            Assert.Contains("pausing after: ", paused.Activity, StringComparison.Ordinal);
            Assert.Contains("No space left", paused.Activity, StringComparison.Ordinal);
            Assert.True(await RunAsync("mount", "-o", "remount,size=200m", disk));

            RunReport report = await stack.ReportAsync(run);
            Assert.Equal(expected["dpo"], RunFingerprint.Of(report));
            await RunChecks.AssertOneResultAsync(stack, report);
            IReadOnlyList<AttemptRecord> failed = (await stack.JobAsync(run, Stages.Pretrain))!.History;
            Assert.NotEmpty(failed);
            foreach (AttemptRecord record in failed)
            {
                Assert.Equal("failed", record.Outcome);
                Assert.Contains("No space left", record.Reason, StringComparison.Ordinal);
                Assert.Equal(JobErrorKind.DiskFull, (await ErrorAsync(stack, run, Stages.Pretrain, record.Fence, record.AttemptId!)).Kind);
            }

            await trainer.KillAsync();
        }
        finally
        {
            await RunAsync("umount", "-l", disk);
        }
    }

    [Fact]
    public async Task A_loss_that_is_no_number_ends_the_run_by_name_without_another_attempt()
    {
        const string run = "dpo-nan", folder = "inputs/nan";
        ChaosStack stack = await chaos.StackAsync();
        await chaos.UndisturbedAsync("dpo");
        await UploadBaseWithNanAsync(stack, folder);
        await stack.StartRunAsync("dpo", run, spec =>
        {
            spec["model"]!["base"] = folder;
            spec["model"]!.AsObject().Remove("scratch");
            spec.AsObject().Remove("pretrain");
            spec["budget"]!["errorRetries"] = 10;
        });

        RunView end = await stack.EndAsync(run);
        Assert.Equal(RunStates.Failed, end.State);
        Assert.Contains($"Run '{run}', stage '{Stages.Sft}', attempt 1: ", end.Error, StringComparison.Ordinal);
        Assert.Contains("is NaN", end.Error, StringComparison.Ordinal);
        Assert.Contains("Lower the stage's learningRate", end.Error, StringComparison.Ordinal);
        JobDocument job = (await stack.JobAsync(run, Stages.Sft))!;
        Assert.Equal((JobState.Failed, 1, JobErrorKind.Diverged), (job.State, job.Fence, job.Result!.Error!.Kind));
        Assert.Single(stack.Ledger, line => line.IsClaim && line.Job.StartsWith(run + "/", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_model_that_does_not_fit_is_refused_by_name_with_its_own_budget()
    {
        const string run = "dpo-too-large";
        ChaosStack stack = await chaos.StackAsync();
        await stack.StartRunAsync("dpo", run, spec =>
        {
            JsonNode scratch = spec["model"]!["scratch"]!;
            (scratch["layers"], scratch["hiddenSize"], scratch["intermediateSize"], scratch["heads"], scratch["keyValueHeads"]) = (128, 16_384, 65_536, 128, 128);
            spec["budget"]!["errorRetries"] = 10;
        });

        RunView end = await stack.EndAsync(run);
        Assert.Equal(RunStates.Failed, end.State);
        Assert.Contains($"Run '{run}', stage '{Stages.Pretrain}', attempt 2: weights, gradients and optimizer take ", end.Error, StringComparison.Ordinal);
        Assert.Contains("(2 times out of memory; budget.outOfMemoryRetries is 1). Take a larger machine or a smaller model.", end.Error, StringComparison.Ordinal);
        JobDocument job = (await stack.JobAsync(run, Stages.Pretrain))!;
        AttemptRecord first = Assert.Single(job.History);
        Assert.Equal((JobState.Failed, 2, "failed"), (job.State, job.Fence, first.Outcome));
        Assert.Equal(JobErrorKind.OutOfMemory, job.Result!.Error!.Kind);
        Assert.Equal(JobErrorKind.OutOfMemory, (await ErrorAsync(stack, run, Stages.Pretrain, 1, first.AttemptId!)).Kind);
        Assert.Equal(2, stack.Ledger.Count(line => line.IsClaim && line.Job.StartsWith(run + "/", StringComparison.Ordinal)));
    }

    /// <summary>A pipe in place of the trainer's copy of a stage's data set, whose sum every run of the same spec and seed shares.</summary>
    private static async Task<string> MakePipeAsync(ChaosStack stack, string cache, string stage, string dataset)
    {
        JobDocument job = (await stack.JobAsync("dpo-undisturbed", stage))!;
        string pipe = Path.Combine(cache, "files", job.Spec.Datasets[DatasetNames.Split(dataset, "train")].Sha256);
        Directory.CreateDirectory(Path.GetDirectoryName(pipe)!);
        Assert.True(await RunAsync("mkfifo", pipe));
        return pipe;
    }

    /// <summary>The undisturbed run's base model with one weight that is no number.</summary>
    private static async Task UploadBaseWithNanAsync(ChaosStack stack, string folder)
    {
        JobDocument pretrain = (await stack.JobAsync("dpo-undisturbed", Stages.Pretrain))!;
        FolderManifest manifest = (await stack.Blobs.ReadJsonAsync<FolderManifest>(
            pretrain.Result!.Models[ModelRoles.Base].Manifest, CancellationToken.None))!;
        foreach (ContentFile file in manifest.Files)
        {
            byte[] content = (await stack.Blobs.ReadAsync(BlobLayout.Content(file.Sha256), CancellationToken.None))!.Content.ToArray();
            if (file.Name == "model.safetensors")
                BitConverter.TryWriteBytes(content.AsSpan(^sizeof(float)..), float.NaN);
            await stack.Blobs.WriteAsync($"{folder}/{file.Name}", BinaryData.FromBytes(content), CancellationToken.None);
        }
    }

    private static async Task<Heartbeat?> BeatAsync(ChaosStack stack, string runId, string stage) =>
        await stack.JobAsync(runId, stage) is { AttemptId: { } attempt } job
            ? await stack.Blobs.ReadIntactJsonAsync<Heartbeat>(
                BlobLayout.Heartbeat(BlobLayout.Attempt(runId, stage, job.Fence, attempt)), CancellationToken.None)
            : null;

    private static async Task<JobError> ErrorAsync(ChaosStack stack, string runId, string stage, int fence, string attempt) =>
        (await stack.Blobs.ReadJsonAsync<JobResult>(
            BlobLayout.Result(BlobLayout.Attempt(runId, stage, fence, attempt)), CancellationToken.None))!.Error!;

    private static async Task<bool> RunAsync(string program, params IEnumerable<string> arguments)
    {
        using Process process = Process.Start(program, arguments);
        await process.WaitForExitAsync();
        return process.ExitCode == 0;
    }
}
