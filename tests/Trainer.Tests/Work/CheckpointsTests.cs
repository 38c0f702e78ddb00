using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Tests;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Work;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Work;

[Collection(nameof(StorageTests))]
public sealed class CheckpointsTests(AzuriteFixture azurite) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task ReadsBackWhatWasWritten()
    {
        (JobTestRun run, JobAttempt attempt) = await ClaimedAsync();
        await PublishAsync(run, attempt, 4);

        CheckpointReader? resumed = await Checkpoints(run, attempt).ResumeAsync(Cancellation);

        Assert.Equal(4, Number(resumed));
        using Tensor weights = resumed!.ReadTensors("weights")["w"];
        Assert.Equal([4f, 8f], weights.data<float>().ToArray());
    }

    [Fact]
    public async Task FirstAttemptHasNothingToResume()
    {
        (JobTestRun run, JobAttempt attempt) = await ClaimedAsync();
        Checkpoints checkpoints = Checkpoints(run, attempt);

        Assert.Null(await checkpoints.ResumeAsync(Cancellation));
        Assert.Equal(0, checkpoints.Corrupt);
    }

    [Theory]
    [InlineData("weights.safetensors")]
    [InlineData("state.json")]
    [InlineData("manifest.json")]
    public async Task DamagedCheckpointIsPassedOverForItsParent(string blob)
    {
        (JobTestRun run, JobAttempt attempt) = await ClaimedAsync();
        await PublishAsync(run, attempt, 4, 8);
        await DamageAsync(run, BlobLayout.Checkpoint(attempt.Path, 8) + blob);
        Checkpoints checkpoints = Checkpoints(run, attempt);

        Assert.Equal(4, Number(await checkpoints.ResumeAsync(Cancellation)));
        Assert.Equal(1, checkpoints.Corrupt);
    }

    [Theory]
    [InlineData("weights.safetensors")]
    [InlineData("manifest.json")]
    public async Task MissingPartIsPassedOverForItsParent(string blob)
    {
        (JobTestRun run, JobAttempt attempt) = await ClaimedAsync();
        await PublishAsync(run, attempt, 4, 8);
        await run.Blobs.DeleteAsync(BlobLayout.Checkpoint(attempt.Path, 8) + blob, Cancellation);

        Assert.Equal(4, Number(await Checkpoints(run, attempt).ResumeAsync(Cancellation)));
    }

    [Fact]
    public async Task DamagedHeadIsRebuiltFromTheNewestManifest()
    {
        (JobTestRun run, JobAttempt attempt) = await ClaimedAsync();
        await PublishAsync(run, attempt, 4, 8);
        await run.Blobs.WriteAsync(BlobLayout.Head(run.RunId, Stages.Sft), BinaryData.FromString("{"), Cancellation);

        Assert.Equal(8, Number(await Checkpoints(run, attempt).ResumeAsync(Cancellation)));
    }

    [Fact]
    public async Task NothingIntactMeansStartingOver()
    {
        (JobTestRun run, JobAttempt attempt) = await ClaimedAsync();
        await PublishAsync(run, attempt, 4, 8);
        foreach (int step in (int[])[4, 8])
            await DamageAsync(run, BlobLayout.Checkpoint(attempt.Path, step) + "weights.safetensors");
        Checkpoints checkpoints = Checkpoints(run, attempt);

        Assert.Null(await checkpoints.ResumeAsync(Cancellation));
        Assert.Equal(2, checkpoints.Corrupt);
    }

    [Theory]
    [InlineData("../../escaped.json")]
    [InlineData("/tmp/escaped.json")]
    [InlineData("a/escaped.json")]
    public async Task ACheckpointThatNamesAPlaceOutsideIsPassedOver(string part)
    {
        (JobTestRun run, JobAttempt attempt) = await ClaimedAsync();
        await PublishAsync(run, attempt, 4);
        var content = BinaryData.FromString("escaped");
        await run.Blobs.WriteAsync(BlobLayout.Checkpoint(attempt.Path, 8) + part, content, Cancellation);
        await attempt.PublishCheckpointAsync(
            new CheckpointManifest
            {
                RunId = run.RunId,
                Stage = attempt.Stage,
                Fence = attempt.Fence,
                Step = 8,
                Parts = [new ContentFile(part, CasDocument.Sha256(content), 7)],
                Parent = BlobLayout.CheckpointManifest(attempt.Path, 4),
            },
            Cancellation);

        Assert.Equal(4, Number(await Checkpoints(run, attempt).ResumeAsync(Cancellation)));

        Assert.DoesNotContain(Directory.GetFiles(_folder.Path, "*", SearchOption.AllDirectories), file => file.Contains("escaped", StringComparison.Ordinal));
        Assert.False(File.Exists("/tmp/escaped.json"));
    }

    [Fact]
    public async Task KeepsTheNewestThree()
    {
        (JobTestRun run, JobAttempt attempt) = await ClaimedAsync();
        await PublishAsync(run, attempt, 2, 4, 6, 8, 10);

        var manifests = new List<string>();
        await foreach (BlobEntry entry in run.Blobs.ListAsync(attempt.Path + "ckpt/", Cancellation))
        {
            if (entry.Path.EndsWith("manifest.json", StringComparison.Ordinal))
                manifests.Add(entry.Path);
        }

        Assert.Equal(((int[])[6, 8, 10]).Select(step => BlobLayout.CheckpointManifest(attempt.Path, step)), manifests);
    }

    [Fact]
    public async Task PartOfAnotherNameIsAnErrorAndNoReset()
    {
        (JobTestRun run, JobAttempt attempt) = await ClaimedAsync();
        await PublishAsync(run, attempt, 4);
        CheckpointReader resumed = (await Checkpoints(run, attempt).ResumeAsync(Cancellation))!;

        CheckpointMismatchException tensors = Assert.Throws<CheckpointMismatchException>(() => resumed.ReadTensors("critic"));
        Assert.Throws<CheckpointMismatchException>(() => resumed.ReadState<Counter>("weights"));
        Assert.Throws<CheckpointMismatchException>(() => resumed.ReadState<JobError>("state"));

        Assert.Contains("'critic'", tensors.Message, StringComparison.Ordinal);
        Assert.Contains("weights.safetensors", tensors.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task SupersededAttemptCannotMoveTheHead()
    {
        (JobTestRun run, JobAttempt zombie) = await ClaimedAsync();
        await PublishAsync(run, zombie, 4);
        await run.EnqueueAsync(Stages.Sft, 2, run.Job(JobKind.Sft)); // it was thought lost
        JobAttempt successor = await run.ClaimAsync();
        Checkpoints own = Checkpoints(run, successor);
        Assert.Equal(4, Number(await own.ResumeAsync(Cancellation)));
        await own.PublishAsync(6, Save(6), Cancellation);

        await Assert.ThrowsAsync<FencedException>(() => Checkpoints(run, zombie).PublishAsync(8, Save(8), Cancellation));
        await Assert.ThrowsAsync<FencedException>(() => zombie.FinishAsync(new JobResult { Outcome = JobState.Succeeded }, Cancellation));
        await Assert.ThrowsAsync<FencedException>(() => zombie.BeatAsync(Beat(zombie), Cancellation));

        Head head = (await successor.ReadHeadAsync(Cancellation))!;
        Assert.Equal((2, 6, 2), (head.Fence, head.Step, head.SealedBy));
        Assert.Equal(JobState.Running, (await run.JobAsync(Stages.Sft)).State);
    }

    [Fact]
    public async Task SealAloneStopsTheOldAttemptBeforeANewOneStarts()
    {
        (JobTestRun run, JobAttempt zombie) = await ClaimedAsync();
        await PublishAsync(run, zombie, 4);
        await run.EnqueueAsync(Stages.Sft, 2, run.Job(JobKind.Sft));

        await Assert.ThrowsAsync<FencedException>(() => Checkpoints(run, zombie).PublishAsync(8, Save(8), Cancellation));

        Assert.Equal(4, (await zombie.ReadHeadAsync(Cancellation))!.Step);
    }

    private static Heartbeat Beat(JobAttempt attempt) =>
        new() { AttemptId = attempt.AttemptId, Fence = attempt.Fence, Sequence = 1, Phase = "train" };

    private static async Task DamageAsync(JobTestRun run, string path)
    {
        byte[] bytes = (await run.Blobs.ReadAsync(path, Cancellation))!.Content.ToArray();
        bytes[bytes.Length / 2] ^= 1;
        await run.Blobs.WriteAsync(path, BinaryData.FromBytes(bytes), Cancellation);
    }

    private static Action<ICheckpointWriter> Save(int step) => writer =>
    {
        using Tensor weights = tensor((float[])[step, 2 * step]);
        writer.WriteTensors("weights", [("w", weights)]);
        writer.WriteState("state", new Counter(step));
    };

    private static int? Number(CheckpointReader? checkpoint) => checkpoint?.ReadState<Counter>("state").Number;

    private async Task<(JobTestRun Run, JobAttempt Attempt)> ClaimedAsync()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite);
        await run.EnqueueAsync(Stages.Sft, 1, run.Job(JobKind.Sft));
        return (run, await run.ClaimAsync());
    }

    private Checkpoints Checkpoints(JobTestRun run, JobAttempt attempt)
    {
        string folder = Path.Combine(_folder.Path, Guid.NewGuid().ToString("N"));
        return new Checkpoints(run.Blobs, new ContentCache(run.Blobs, run.Patience, folder), attempt, run.Log, folder);
    }

    private async Task PublishAsync(JobTestRun run, JobAttempt attempt, params IEnumerable<int> steps)
    {
        Checkpoints checkpoints = Checkpoints(run, attempt);
        foreach (int step in steps)
            await checkpoints.PublishAsync(step, Save(step), Cancellation);
    }

    private sealed record Counter(int Number);
}
