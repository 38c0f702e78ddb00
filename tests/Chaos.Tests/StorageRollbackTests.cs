using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>
/// A storage that loses what it has acknowledged: the emulator killed between two of its saves. The trainer whose work it loses stands
/// still meanwhile, as it would if the machine had gone down with the storage.
/// </summary>
[Collection(nameof(ChaosRuns))]
public sealed class StorageRollbackTests(ChaosRuns chaos)
{
    private const int MostTries = 5;

    [Fact]
    public async Task A_storage_that_forgets_what_it_acknowledged_is_noticed_by_name()
    {
        const string run = "dpo-rollback";
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync("dpo");
        await stack.StartRunAsync("dpo", run, spec =>
        {
            spec["trainer"]!["checkpointEverySteps"] = 2;
            spec["trainer"]!["lostAfterSeconds"] = 300; // it stands still for longer than the usual two seconds, and is not to be lost for that
        });

        (TrainerProcess frozen, AttemptLine at) = await stack.AtStepAsync(run, Stages.Dpo, 5); // with a checkpoint behind it
        frozen.Freeze();
        Head shown, after;
        int tries = 0;
        do
        {
            Assert.True(tries++ < MostTries, "the emulator keeps whatever is done");
            Head saved = await SavedAsync(stack, run, Stages.Dpo);
            frozen.Thaw();
            await stack.UntilAsync("another checkpoint", async () => await stack.HeadAsync(run, Stages.Dpo) is { } head && head.Step > saved.Step ? head : null);
            frozen.Freeze();
            shown = (await stack.SettledHeadAsync(run, Stages.Dpo))!;
            Assert.True(frozen.Present is { } present && present.Job == at.Job && present.Fence == at.Fence, $"too late\n{frozen.Tail}");
            await stack.LookedAtAsync(run, Stages.Dpo);
            await stack.Azurite.KillAsync();
            await stack.Azurite.StartAsync();
            after = (await stack.HeadAsync(run, Stages.Dpo))!;
        }
        while (after.Step == shown.Step);

        AttemptRecord record = await stack.EndedAsync(run, Stages.Dpo, at.Fence, AttemptOutcomes.StorageRollback);
        Assert.Equal(
            $"storage has lost writes that it had acknowledged: the newest checkpoint is of step {after.Step} and was of step {shown.Step}", record.Reason);
        frozen.Thaw();
        AttemptLine end = await frozen.WaitForAsync(line => line.Job == at.Job && line.Fence == at.Fence && line.IsEnd, ChaosStack.Patience);
        Assert.True(end.IsSuperseded, end.Text);

        RunReport report = await stack.ReportAsync(run);
        Assert.Equal(expected["dpo"], RunFingerprint.Of(report));
        await RunChecks.AssertOneResultAsync(stack, report);
        Figures.Report($"real storage rollback: killed {tries} times until it forgot steps {after.Step + 1} to {shown.Step}; noticed by name, the run's bytes are the same");
    }

    [Fact]
    public async Task A_model_that_storage_forgot_ends_the_run_with_the_name_of_the_blob()
    {
        ChaosStack stack = await chaos.StackAsync();
        for (int tries = 1; ; tries++)
        {
            Assert.SkipWhen(tries > MostTries, "on a machine as busy as this the emulator saves before the next stage begins");
            string run = $"dpo-forgotten{tries}";
            await stack.StartRunAsync("dpo", run, spec =>
            {
                spec["seed"] = 1000 + tries; // a model that no other run has made
                spec["pretrain"]!["steps"] = 200;
                spec["trainer"]!["lostAfterSeconds"] = 300;
            });
            (TrainerProcess frozen, AttemptLine at) = await stack.AtStepAsync(run, Stages.Pretrain, 190);
            frozen.Freeze();
            if (frozen.Present is { } present && present.Job == at.Job)
                await SavedAsync(stack, run, Stages.Pretrain);
            frozen.Thaw();
            AttemptLine claim = await TrainerProcess.WaitForAsync(
                stack.Trainers, line => line.IsClaim && line.Job == $"{run}/{Stages.Sft}", ChaosStack.Patience);
            frozen = stack.Trainers.Single(trainer => trainer.Ledger.Contains(claim));
            frozen.Freeze();
            string model = (await stack.JobAsync(run, Stages.Pretrain))!.Result!.Models[ModelRoles.Base].Manifest;
            await stack.Azurite.KillAsync();
            await stack.Azurite.StartAsync();
            if (await stack.Blobs.ReadAsync(model, CancellationToken.None) is not null)
            {
                frozen.Thaw();
                await stack.AskAsync(run, "cancel");
                await stack.EndAsync(run);
                continue;
            }

            RunView end = await stack.EndAsync(run);
            Assert.Equal(RunStates.Failed, end.State);
            Assert.Contains($"Run '{run}', stage '{Stages.Sft}', attempt ", end.Error, StringComparison.Ordinal);
            Assert.Contains($"The blob '{model}' is corrupt: it is missing.", end.Error, StringComparison.Ordinal);
            Assert.Contains((await stack.JobAsync(run, Stages.Sft))!.History, record => record.Fence == claim.Fence && record.Outcome == AttemptOutcomes.DocumentLost);
            frozen.Thaw();
            AttemptLine stopped = await frozen.WaitForAsync(line => line.Job == claim.Job && line.Fence == claim.Fence && line.IsEnd, ChaosStack.Patience);
            Assert.True(stopped.IsSuperseded, stopped.Text);
            return;
        }
    }

    [Fact]
    public async Task A_trainer_at_work_while_the_storage_forgets_loses_its_attempt_and_the_run_nothing()
    {
        const string run = "dpo-forgetful";
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync("dpo");
        await stack.StartRunAsync("dpo", run, spec =>
        {
            spec["trainer"]!["checkpointEverySteps"] = 2;
            spec["trainer"]!["lostAfterSeconds"] = 300;
        });

        (TrainerProcess trainer, AttemptLine at) = await stack.AtStepAsync(run, Stages.Dpo, 5);
        trainer.Freeze();
        Head saved = await SavedAsync(stack, run, Stages.Dpo);
        string attempt = BlobLayout.Attempt(run, Stages.Dpo, at.Fence, (await stack.JobAsync(run, Stages.Dpo))!.AttemptId!);
        trainer.Thaw();
        await stack.UntilAsync("two checkpoints", async () => await stack.HeadAsync(run, Stages.Dpo) is { } head && head.Step > saved.Step + 3 ? head : null);
        int shown = (await stack.MetricRowsAsync(attempt)).Count;
        await stack.Azurite.KillAsync();
        await stack.Azurite.StartAsync();
        Assert.SkipUnless(
            (await stack.MetricRowsAsync(attempt)).Count < shown, "on a machine as busy as this the emulator saves in between");

        // Whoever sees it first: the orchestrator by the head, or the trainer by the metrics that it had appended.
        RunReport report = await stack.ReportAsync(run);
        AttemptRecord ended = (await stack.JobAsync(run, Stages.Dpo))!.History[0];
        Assert.True(
            ended.Outcome == AttemptOutcomes.StorageRollback
                || (ended.Outcome == "failed" && ended.Reason!.Contains($"{BlobLayout.Metrics(attempt)}' is corrupt", StringComparison.Ordinal)),
            $"{ended}\n{trainer.Tail}");
        Assert.Equal(expected["dpo"], RunFingerprint.Of(report));
        // Rows of metrics that storage forgot before their attempt noticed are gone: no promise is made of a store that forgets.
        await RunChecks.AssertOneResultAsync(stack, report, forgetful: Stages.Dpo);
    }

    /// <summary>Waits until the emulator has just saved all that there is, so that it forgets what is done in the seconds after.</summary>
    private static async Task<Head> SavedAsync(ChaosStack stack, string run, string stage)
    {
        Head head = (await stack.SettledHeadAsync(run, stage))!;
        string tag = (await stack.Blobs.ReadAsync(BlobLayout.Head(run, stage), CancellationToken.None))!.ETag.Trim('"');
        (DateTime before, _) = stack.Azurite.SavedBlobs();
        return await stack.UntilAsync("the emulator to save", async () =>
        {
            await stack.Blobs.WriteAsync("tick", BinaryData.FromString("something new to save"), CancellationToken.None);
            (DateTime utc, string text) = stack.Azurite.SavedBlobs();
            return utc > before && text.Contains(tag, StringComparison.Ordinal) ? head : null;
        });
    }
}
