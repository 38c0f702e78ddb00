using System.Security.Cryptography;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Logging;
using Rlhf.Functions.Activities;
using Rlhf.Functions.Http;
using Rlhf.Jobs;
using Rlhf.Spec;
using Rlhf.Storage;

namespace Rlhf.Functions.Timers;

/// <summary><c>feedback/{name}/watermark.json</c>: how far feedback has gone into runs.</summary>
/// <param name="Sequence">Runs started from feedback so far.</param>
/// <param name="UpTo">The name of the newest feedback blob that has gone into a run.</param>
/// <param name="RunId">The run it went into.</param>
/// <param name="Plan">
/// The run that is being started; written before anything of it, so that a tick that dies is taken up as it was meant.
/// </param>
public sealed record FeedbackWatermark(int Sequence, string UpTo, string? RunId, RetrainPlan? Plan);

/// <summary>A retraining that is being started.</summary>
/// <param name="RunId">Follows from the sequence, so that a repeated tick starts the same run.</param>
/// <param name="UpTo">The newest feedback blob that goes into it.</param>
/// <param name="Rows">New rows in it.</param>
public sealed record RetrainPlan(string RunId, string UpTo, int Rows);

/// <summary>
/// Starts a run from the production model when enough new feedback has come. Never two at once, and no row lost: the plan is fixed in the
/// watermark first, the run is started under an id that follows from it, and only then the watermark moves.
/// </summary>
public sealed class Retrain(IBlobStore blobs, RunStart starts, RetrainSettings settings, TimeProvider clock, ILogger<Retrain> logger)
{
    private static readonly FeedbackWatermark Start = new(0, string.Empty, null, null);

    /// <summary>One tick of <c>Retrain__Schedule</c>.</summary>
    [Function(nameof(Retrain))]
    public async Task RunAsync(
        [TimerTrigger("%Retrain__Schedule%")] TimerInfo timer, [DurableClient] DurableTaskClient client, CancellationToken cancellation)
    {
        if (settings.Spec is not { } path)
            return;

        RunSpec spec;
        try
        {
            spec = await ReadSpecAsync(path, cancellation);
        }
        catch (UnusableInputException e)
        {
            logger.LogError("Retraining does not start: {Reason}", e.Message);
            return;
        }

        string name = spec.Name;
        FeedbackWatermark watermark = await ReadAsync(name, cancellation) ?? Start;
        if (await ActiveRunAsync(client, watermark, name, cancellation) is { } active)
        {
            logger.LogInformation("Retraining of {Model} waits for run {Run}", name, active);
            return;
        }

        if (watermark.Plan is null && await PlanAsync(name, watermark, cancellation) is { } plan)
        {
            watermark = (await blobs.UpdateJsonAsync<FeedbackWatermark>(
                BlobLayout.FeedbackWatermark(name),
                present => (present ?? Start) is { Plan: null } free && free.Sequence == watermark.Sequence
                    ? free with { Plan = plan }
                    : present,
                cancellation))!;
        }

        if (watermark.Plan is { } planned)
            await StartAsync(client, spec, watermark, planned, cancellation);
    }

    private Task<FeedbackWatermark?> ReadAsync(string name, CancellationToken cancellation) =>
        blobs.ReadJsonAsync<FeedbackWatermark>(BlobLayout.FeedbackWatermark(name), cancellation);

    /// <summary>What the next run would take; null while that is too little.</summary>
    private async Task<RetrainPlan?> PlanAsync(string name, FeedbackWatermark watermark, CancellationToken cancellation)
    {
        long settled = (clock.GetUtcNow() - settings.Settle).Ticks;
        int rows = 0;
        string? newest = null;
        await foreach (FeedbackBlob blob in NewAsync(name, watermark.UpTo, cancellation))
        {
            if (blob.Ticks > settled)
                continue;
            rows += blob.Rows;
            newest = blob.Name;
        }

        return newest is not null && rows >= settings.MinRows
            ? new RetrainPlan($"{name[..Math.Min(name.Length, 32)].TrimEnd('-')}-retrain-{watermark.Sequence + 1:D4}", newest, rows)
            : null;
    }

    private async Task StartAsync(
        DurableTaskClient client, RunSpec spec, FeedbackWatermark watermark, RetrainPlan plan, CancellationToken cancellation)
    {
        // What run.json says counts: the base spec may have been edited since a tick that died after writing it.
        RunDocument? begun = await blobs.ReadJsonAsync<RunDocument>(BlobLayout.RunDocument(plan.RunId), cancellation);
        RunSpec asked = begun?.Spec ?? await WithFeedbackAsync(spec, watermark, plan, cancellation);
        StartOutcome outcome = await starts.StartAsync(client, plan.RunId, asked, cancellation);
        bool started = outcome == StartOutcome.Created || await client.GetInstanceAsync(plan.RunId, cancellation) is not null;
        if (outcome == StartOutcome.Conflict || !started)
            return; // Another host is at it; the next tick looks again.

        await blobs.UpdateJsonAsync<FeedbackWatermark>(
            BlobLayout.FeedbackWatermark(spec.Name),
            present => present?.Plan?.RunId == plan.RunId
                ? new FeedbackWatermark(present.Sequence + 1, plan.UpTo, plan.RunId, null)
                : present,
            cancellation);
        logger.LogInformation("Retraining: run {Run} takes {Rows} new feedback rows", plan.RunId, plan.Rows);
    }

    private async Task<RunSpec> WithFeedbackAsync(
        RunSpec spec, FeedbackWatermark watermark, RetrainPlan plan, CancellationToken cancellation)
    {
        string file = await CollectAsync(spec.Name, watermark.UpTo, plan.UpTo, cancellation);
        bool promoted = await RegistryActivities.ProductionAsync(blobs, spec.Name, cancellation) is not null;
        return spec with
        {
            Data = spec.Data with { Preferences = [.. spec.Data.Preferences, new DataFileSpec { File = file, Subset = "feedback" }] },
            Model = promoted ? spec.Model with { Base = $"model:{spec.Name}", Scratch = null } : spec.Model,
            Pretrain = promoted ? null : spec.Pretrain,
        };
    }

    /// <summary>Gathers the new feedback into one file, under its content's name.</summary>
    private async Task<string> CollectAsync(string name, string after, string upTo, CancellationToken cancellation)
    {
        await using var file = new FileStream(
            Path.Combine(Path.GetTempPath(), Path.GetRandomFileName()),
            FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, 64 * 1024, FileOptions.DeleteOnClose);
        await foreach (FeedbackBlob blob in NewAsync(name, after, cancellation))
        {
            if (string.CompareOrdinal(blob.Name, upTo) > 0)
                break;
            await using Stream rows = await blobs.OpenReadAsync(BlobLayout.Feedback(name) + blob.Name, cancellation);
            await rows.CopyToAsync(file, cancellation);
        }

        file.Position = 0;
        string path = BlobLayout.Input(Convert.ToHexStringLower(await SHA256.HashDataAsync(file, cancellation)), "feedback.jsonl");
        file.Position = 0;
        await blobs.TryCreateAsync(path, file, cancellation);
        return path;
    }

    private async IAsyncEnumerable<FeedbackBlob> NewAsync(
        string name, string after, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellation)
    {
        string folder = BlobLayout.Feedback(name);
        await foreach (BlobEntry entry in blobs.ListAsync(folder, cancellation))
        {
            if (FeedbackBlob.Parse(entry.Path[folder.Length..]) is { } blob && string.CompareOrdinal(blob.Name, after) > 0)
                yield return blob;
        }
    }

    private async Task<RunSpec> ReadSpecAsync(string path, CancellationToken cancellation)
    {
        StoredBlob blob = await blobs.ReadAsync(path, cancellation)
            ?? throw new UnusableInputException(
                $"the setting Retrain__Spec names '{path}', but the container has no such blob. Upload the base spec there.");
        try
        {
            RunSpec spec = SpecReader.ReadStored(blob.Content.ToString());
            return spec.Data.World is null
                ? spec
                : throw new UnusableInputException(
                    $"the base spec '{path}' generates its data (data.world), which feedback cannot join. Name files instead.");
        }
        catch (InvalidSpecException e)
        {
            string errors = string.Join("; ", e.Errors.Select(error => $"{error.Field} {error.Message}"));
            throw new UnusableInputException($"the base spec '{path}' is not valid: {errors}");
        }
    }

    /// <summary>A run of the model that is not over; null when there is none.</summary>
    private async Task<string?> ActiveRunAsync(
        DurableTaskClient client, FeedbackWatermark watermark, string name, CancellationToken cancellation)
    {
        // The last retraining by its id: a listing may not show yet what has just been started.
        if (watermark.RunId is { } last && await client.IsOpenAsync(last, cancellation))
            return last;

        var open = new OrchestrationQuery
        {
            Statuses = [OrchestrationRuntimeStatus.Running, OrchestrationRuntimeStatus.Pending, OrchestrationRuntimeStatus.Suspended],
        };
        await foreach (OrchestrationMetadata instance in client.GetAllInstancesAsync(open).WithCancellation(cancellation))
        {
            string id = instance.InstanceId;
            if (!id.Contains(':', StringComparison.Ordinal) && id != watermark.Plan?.RunId
                && (await blobs.ReadJsonAsync<RunDocument>(BlobLayout.RunDocument(id), cancellation))?.Spec.Name == name)
                return id;
        }

        return null;
    }
}
