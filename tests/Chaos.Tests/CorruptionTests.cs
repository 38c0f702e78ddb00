using System.Diagnostics;
using System.Globalization;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>Damage to what lies in the real storage, done while the trainer whose work it is stands still, so that others have to take it up.</summary>
[Collection(nameof(ChaosRuns))]
public sealed class CorruptionTests(ChaosRuns chaos)
{
    private const int Seed = 5, CheckpointInterval = 2;

    /// <summary>Where damage is done, in the order of the run.</summary>
    private static readonly string[] Damaged = [Stages.Pretrain, Stages.Sft, Stages.Reward, Stages.Ppo];

    private enum Target
    {
        Part,
        Manifest,
        Head,
        Job,
    }

    private enum Harm
    {
        Truncated,
        OneBitFlipped,
        Deleted,
    }

    [Fact]
    public async Task Whatever_is_damaged_in_storage_is_noticed_and_the_run_ends_in_the_same_bytes()
    {
        const string run = "ppo-damaged";
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync("ppo");
        var random = new Random(Seed);
        await stack.StartRunAsync("ppo", run, spec =>
        {
            spec["trainer"]!["checkpointEverySteps"] = CheckpointInterval;
            spec["budget"]!["corruptCheckpoints"] = 1000;
        });

        int damages = 0, noticed = 0;
        foreach (Harm harm in Enum.GetValues<Harm>())
        {
            foreach (Target target in Enum.GetValues<Target>())
            {
                (TrainerProcess frozen, AttemptLine at) = await FreezeAsync(stack, run, Damaged.Skip((int)harm));
                damages++;
                await DamageAsync(stack, at, target, content => Hurt(harm, content, random), frozen);
                noticed++;
                frozen.Thaw();
                AttemptLine end = await frozen.WaitForAsync(line => line.Job == at.Job && line.Fence == at.Fence && line.IsEnd, ChaosStack.Patience);
                Assert.True(end.IsSuperseded, end.Text);
            }
        }

        RunReport report = await stack.ReportAsync(run);
        Assert.Equal(expected["ppo"], RunFingerprint.Of(report));
        await RunChecks.AssertOneResultAsync(stack, report);
        Figures.Report(string.Create(
            CultureInfo.InvariantCulture, $"real corruptions: {damages} damages (seed {Seed}), {noticed} noticed; the run's bytes are the same"));
    }

    /// <summary>Stops whoever trains in the run, in the middle of a stage, with a checkpoint of its own and one before it.</summary>
    private static async Task<(TrainerProcess Trainer, AttemptLine At)> FreezeAsync(ChaosStack stack, string run, IEnumerable<string> stages)
    {
        HashSet<string> jobs = [.. stages.Select(stage => $"{run}/{stage}")];
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(10))
        {
            Assert.True(clock.Elapsed < ChaosStack.Patience, $"nobody trains any more\n{stack.Logs()}");
            foreach (TrainerProcess trainer in stack.Trainers)
            {
                if (trainer.Present is not { } at || !jobs.Contains(at.Job))
                    continue;
                AttemptLine[] lines = [.. trainer.Ledger.Where(line => line.Job == at.Job && line.Fence == at.Fence)];
                int from = lines.Select(line => line.TakenUpAt).FirstOrDefault(step => step is not null) ?? 0;
                if (lines.Max(line => line.Step) is not { } step || step <= from + CheckpointInterval)
                    continue;
                trainer.Freeze();
                if (await stack.SettledHeadAsync(run, at.Job.Split('/')[1]) is { } head && head.Fence == at.Fence
                    && head.Step >= 2 * CheckpointInterval && trainer.Present == at)
                {
                    return (trainer, at);
                }

                trainer.Thaw();
            }
        }
    }

    /// <summary>Does the damage, and sees it noticed and got over.</summary>
    /// <param name="stack">The stack.</param>
    /// <param name="at">The attempt that stands still.</param>
    /// <param name="target">What to damage.</param>
    /// <param name="hurt">From its bytes to damaged ones; null deletes it.</param>
    /// <param name="frozen">The attempt's trainer.</param>
    private static async Task DamageAsync(
        ChaosStack stack, AttemptLine at, Target target, Func<byte[], byte[]?> hurt, TrainerProcess frozen)
    {
        (string run, string stage) = (at.Job.Split('/')[0], at.Job.Split('/')[1]);
        TrainerProcess[] others = [.. stack.Trainers.Where(trainer => trainer != frozen)];
        Head head = (await stack.HeadAsync(run, stage))!;
        CheckpointManifest newest = (await stack.Blobs.ReadJsonAsync<CheckpointManifest>(head.Manifest!, CancellationToken.None))!;
        CheckpointManifest parent = (await stack.Blobs.ReadJsonAsync<CheckpointManifest>(newest.Parent!, CancellationToken.None))!;
        string path = target switch
        {
            Target.Part => head.Manifest![..(head.Manifest!.LastIndexOf('/') + 1)] + newest.Parts[0].Name,
            Target.Manifest => head.Manifest!,
            Target.Head => BlobLayout.Head(run, stage),
            _ => BlobLayout.Job(run, stage),
        };

        // Whoever repairs the head forgets where it pointed to; nobody is to train on until that has been seen.
        foreach (TrainerProcess other in others.Where(_ => target == Target.Head))
            other.Freeze();
        StoredBlob blob = (await stack.Blobs.ReadAsync(path, CancellationToken.None))!;
        if (hurt(blob.Content.ToArray()) is { } damaged)
            await stack.Blobs.WriteAsync(path, BinaryData.FromBytes(damaged), CancellationToken.None);
        else
            await stack.Blobs.DeleteAsync(path, CancellationToken.None);

        switch (target)
        {
            case Target.Head:
                Head repaired = await stack.UntilAsync(
                    $"{path} to be repaired", () => stack.Blobs.ReadIntactJsonAsync<Head>(path, CancellationToken.None));
                Assert.True(repaired.IsLost && repaired.SealedBy > at.Fence, $"{path} was taken for intact");
                foreach (TrainerProcess other in others)
                    other.Thaw();
                break;
            case Target.Job:
                AttemptRecord record = await stack.EndedAsync(run, stage, at.Fence, AttemptOutcomes.DocumentLost);
                Assert.Contains(path, record.Reason, StringComparison.Ordinal);
                break;
            default:
                await TrainerProcess.WaitForAsync(
                    others,
                    line => line.Job == at.Job && line.Fence > at.Fence && line.Text.StartsWith("passes over a corrupt checkpoint", StringComparison.Ordinal)
                        && line.Text.Contains(path, StringComparison.Ordinal),
                    ChaosStack.Patience);
                break;
        }

        AttemptLine next = await TrainerProcess.WaitForAsync(
            others, line => line.Job == at.Job && line.Fence > at.Fence && line.TakenUpAt is not null, ChaosStack.Patience);
        int least = target is Target.Part or Target.Manifest ? parent.Step : head.Step;
        Assert.True(next.TakenUpAt >= least, $"{path} was damaged, step {least} was not, and the work was taken up at {next.TakenUpAt}");
    }

    private static byte[]? Hurt(Harm harm, byte[] content, Random random)
    {
        if (harm == Harm.Truncated)
            return content[..random.Next(1, content.Length)];
        if (harm == Harm.Deleted)
            return null;
        content[random.Next(content.Length)] ^= (byte)(1 << random.Next(8));
        return content;
    }
}
