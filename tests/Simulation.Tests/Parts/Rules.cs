using Rlhf.Jobs;
using Rlhf.Simulation.Core;
using Rlhf.Simulation.Storage;

namespace Rlhf.Simulation.Parts;

/// <summary>
/// The promises, looked after at every change of the storage: what a change may not do is written down as a violation, whoever made it.
/// </summary>
internal sealed class Rules
{
    public const string HeadGoesBack = "the head never goes back";
    public const string HeadIsIntact = "a promoted checkpoint is whole and is never lost";
    public const string FencesRise = "fences rise one by one";
    public const string OneClaim = "one attempt holds a fence";
    public const string OneResult = "each stage publishes one result";
    public const string CreatedOnce = "what is created once stays as it is";
    public const string NeedlessFence = "no fence is raised over a healthy trainer";
    public const string RepeatedWork = "at most one checkpoint interval and one step is repeated";
    public const string SameResult = "an interrupted run ends in the same bytes";
    public const string Ends = "the run ends";
    public const string Poison = "a poison message is set aside after five deliveries";

    /// <summary>What hindered a trainer before that is no excuse for its loss.</summary>
    private static readonly TimeSpan LongAgo = TimeSpan.FromMinutes(3);

    private readonly SimWorld world;
    private readonly StorageService storage;
    private readonly Dictionary<string, SimProcess> claims = [];
    private readonly HashSet<string> promoted = [];
    private readonly Dictionary<string, ServerBlob> documents = [];

    public Rules(SimWorld world, StorageService storage)
    {
        this.world = world;
        this.storage = storage;
        storage.Blobs.Changing += Check;
    }

    /// <summary>Results published by stage.</summary>
    public Dictionary<string, int> Results { get; } = [];

    private void Check(string path, ServerBlob? before, ServerBlob? after)
    {
        if (after is null)
        {
            if (promoted.Contains(path))
                world.Violate(HeadIsIntact, $"{path} is deleted");
        }
        else if (path.EndsWith("/job.json", StringComparison.Ordinal))
        {
            CheckJob(Parse<JobDocument>(documents.GetValueOrDefault(path)), Parse<JobDocument>(after)!, storage.Blobs.Damaged.Contains(path));
            documents[path] = after; // what was made of it since, by damage, is nobody's doing
        }
        else if (path.EndsWith("/head.json", StringComparison.Ordinal))
        {
            CheckHead(path, Parse<Head>(documents.GetValueOrDefault(path)), Parse<Head>(after)!);
            documents[path] = after;
        }
        else if (before is not null && !IsRewritten(path) && !before.Content.AsSpan().SequenceEqual(after.Content))
        {
            world.Violate(CreatedOnce, $"{path} is overwritten");
        }
    }

    private void CheckJob(JobDocument? before, JobDocument after, bool wasDamaged)
    {
        string name = $"{after.Stage} {after.Fence}";
        // A fence that was asked for when the document was found damaged is left out: it may have been given out before.
        int most = (before?.Fence ?? 0) + (wasDamaged ? 3 : 1);
        if (after.Fence < (before?.Fence ?? 0) || after.Fence > most)
            world.Violate(FencesRise, $"{name} follows {before?.Fence}");
        if (before is { State: JobState.Succeeded or JobState.Cancelled })
            world.Violate(OneResult, $"{name} changes after it was {before.State}");

        bool sameFence = before?.Fence == after.Fence;
        if (sameFence && before!.AttemptId is { } holder && after.AttemptId != holder)
            world.Violate(OneClaim, $"{name} passes from one attempt to another");
        if (after.State == JobState.Running && before?.State == JobState.Queued)
            claims[after.AttemptId!] = storage.Caller!;
        if (sameFence && before!.State != after.State && before.State is not (JobState.Queued or JobState.Running)
            && after.State != JobState.Cancelled)
        {
            world.Violate(OneResult, $"{name} goes from {before.State} to {after.State}");
        }

        if (after.State is JobState.Succeeded or JobState.SliceDone && before?.State != after.State)
            Results[after.Stage] = Results.GetValueOrDefault(after.Stage) + 1;
        if (before is not null && after.Fence > before.Fence)
            CheckRaise(name, before, after);
    }

    private void CheckRaise(string name, JobDocument before, JobDocument after)
    {
        string outcome = after.History[^1].Outcome;
        if (outcome == "failed")
            world.Violate(NeedlessFence, $"{name}: attempt {before.Fence} failed: {before.Result?.Error?.Message}");
        if (outcome is not ("lost" or "wedged" or "unresponsive") || before.AttemptId is null
            || claims.GetValueOrDefault(before.AttemptId) is not { } trainer)
        {
            return;
        }

        TimeSpan lately = world.Now - LongAgo;
        bool hindered = trainer.IsDead || trainer.StandsStill || trainer.LastHindered > lately || trainer.Machine.CutOffUntil > lately;
        if (!hindered)
            world.Violate(NeedlessFence, $"{name}: {after.History[^1].Reason}, but {trainer.Machine.Name} is at work");
    }

    private void CheckHead(string path, Head? before, Head after)
    {
        if (before is not null)
        {
            bool moved = after.Manifest != before.Manifest;
            bool isLost = after.IsLost && storage.Blobs.Damaged.Contains(path);
            if (isLost ? after.SealedBy < before.SealedBy : after.Fence < before.Fence || (after.Fence == before.Fence && after.Step < before.Step) || after.SealedBy < before.SealedBy)
            {
                world.Violate(
                    HeadGoesBack,
                    $"{path}: {before.Fence}/{before.Step} sealed by {before.SealedBy} becomes {after.Fence}/{after.Step} sealed by {after.SealedBy}");
            }

            if (moved && !isLost && after.Fence < before.SealedBy)
                world.Violate(HeadGoesBack, $"{path}: fence {after.Fence} moves what {before.SealedBy} has sealed");
            if (!moved)
                return;
        }

        promoted.RemoveWhere(blob => blob.StartsWith(path[..^"head.json".Length], StringComparison.Ordinal));
        if (after.Manifest is null)
            return;
        if (storage.Blobs.Damaged.Contains(after.Manifest))
            return;
        if (storage.Blobs.Read(after.Manifest) is not { } manifest || Sum(manifest) != after.ManifestSha256)
        {
            world.Violate(HeadIsIntact, $"{path}: {after.Manifest} is missing or other than the head says");
            return;
        }

        promoted.Add(after.Manifest);
        foreach (ContentFile part in Parse<CheckpointManifest>(manifest)!.Parts)
        {
            string blob = after.Manifest[..(after.Manifest.LastIndexOf('/') + 1)] + part.Name;
            if (!storage.Blobs.Damaged.Contains(blob) && (storage.Blobs.Read(blob) is not { } content || Sum(content) != part.Sha256))
                world.Violate(HeadIsIntact, $"{path}: {blob} is missing or other than its manifest says");
            promoted.Add(blob);
        }
    }

    /// <summary>What may be written more than once: documents of one owner, and those changed by compare-and-swap.</summary>
    private static bool IsRewritten(string path) =>
        path.EndsWith("/hb.json", StringComparison.Ordinal) || path.EndsWith("/metrics.jsonl", StringComparison.Ordinal)
        || path.EndsWith("/control.json", StringComparison.Ordinal);

    private static T? Parse<T>(ServerBlob? blob)
        where T : class => blob is null ? null : CasDocument.Parse<T>("", BinaryData.FromBytes(blob.Content));

    private static string Sum(ServerBlob blob) => CasDocument.Sha256(BinaryData.FromBytes(blob.Content));
}
