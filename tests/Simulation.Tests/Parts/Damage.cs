using Rlhf.Jobs;
using Rlhf.Simulation.Storage;

namespace Rlhf.Simulation.Parts;

/// <summary>What is damaged.</summary>
internal enum DamageTarget
{
    Part,
    Manifest,
    Head,

    /// <summary>The document of a job that is waiting or running.</summary>
    Job,
}

/// <summary>How it is damaged.</summary>
internal enum DamageKind
{
    Missing,
    Truncated,
    Flipped,
}

/// <summary>Damage to what lies in storage, done behind everybody's back.</summary>
internal static class Damage
{
    public static bool IsTarget(BlobServer blobs, DamageTarget target, string path) => target switch
    {
        DamageTarget.Part => path.Contains("/ckpt/", StringComparison.Ordinal) && !path.EndsWith("/manifest.json", StringComparison.Ordinal),
        DamageTarget.Manifest => path.EndsWith("/manifest.json", StringComparison.Ordinal),
        DamageTarget.Head => path.EndsWith("/head.json", StringComparison.Ordinal),
        DamageTarget.Job => path.EndsWith("/job.json", StringComparison.Ordinal) && !blobs.Damaged.Contains(path)
            && CasDocument.Parse<JobDocument>(path, BinaryData.FromBytes(blobs.Read(path)!.Content)).State is JobState.Queued or JobState.Running,
        _ => false,
    };

    public static void Do(BlobServer blobs, string path, DamageKind kind, Random random)
    {
        byte[] content = [.. blobs.Read(path)!.Content];
        content[random.Next(content.Length)] ^= (byte)(1 << random.Next(8));
        blobs.Damage(path, kind switch
        {
            DamageKind.Missing => null,
            DamageKind.Truncated => content[..random.Next(content.Length)],
            _ => content,
        });
    }
}
