using System.Text.Json.Serialization;
using Rlhf.Rows;

namespace Rlhf.Jobs;

/// <summary>The state of a stage's job. <see cref="Succeeded"/> and <see cref="Cancelled"/> are final.</summary>
public enum JobState
{
    /// <summary>Waits for a trainer.</summary>
    Queued,

    /// <summary>Claimed by one attempt.</summary>
    Running,

    /// <summary>Reached the step it was asked for; the next slice has the next fence.</summary>
    SliceDone,

    /// <summary>Finished with a result.</summary>
    Succeeded,

    /// <summary>Ended in an error; the orchestrator decides about another attempt.</summary>
    Failed,

    /// <summary>Stopped on request, for good.</summary>
    Cancelled,

    /// <summary>Stopped on request, to be taken up again.</summary>
    Paused,

    /// <summary>The machine was taken away (SIGTERM).</summary>
    Preempted,
}

/// <summary>What the orchestrator wants of a running attempt.</summary>
public enum DesiredState
{
    Run,
    Cancel,
    Pause,
}

/// <summary>What a job computes.</summary>
public enum JobKind
{
    Pretrain,
    Sft,
    Reward,
    HeldOutReward,
    Ppo,
    Evaluate,
    Dpo,
    Rloo,
    Grpo,
}

/// <summary>The work of a job: a reference to the run's spec and to its inputs, never data.</summary>
public sealed record JobSpec
{
    public required JobKind Kind { get; init; }

    /// <summary>The run document's blob; holds the <see cref="Spec.RunSpec"/>.</summary>
    public required string RunDocument { get; init; }

    /// <summary>Models by role: <c>base</c>, <c>sft</c>, <c>reward</c>, and the aligned one by its method, such as <c>ppo</c>.</summary>
    public IReadOnlyDictionary<string, ModelRef> Models { get; init; } = new Dictionary<string, ModelRef>();

    /// <summary>Data sets by <see cref="DatasetNames.Split"/>.</summary>
    public IReadOnlyDictionary<string, DatasetRef> Datasets { get; init; } = new Dictionary<string, DatasetRef>();

    /// <summary>The step (online methods: iteration) at which this slice ends; null runs to the end.</summary>
    public int? UntilStep { get; init; }
}

/// <summary>A finished Hugging Face folder, or a PEFT adapter's, in content-addressed storage.</summary>
/// <param name="Manifest">The blob with the folder's <see cref="FolderManifest"/>, named by its own SHA-256.</param>
/// <param name="Sha256">SHA-256 of <c>model.safetensors</c> (<c>adapter_model.safetensors</c>): equal weights have equal sums.</param>
public sealed record ModelRef(string Manifest, string Sha256);

/// <summary>A file by content.</summary>
public sealed record ContentFile(string Name, string Sha256, long Length);

/// <summary>The files of a folder, by name in ordinal order.</summary>
public sealed record FolderManifest(IReadOnlyList<ContentFile> Files);

/// <summary>The only authority over a job: who may compute, and what came of it. Changed by compare-and-swap alone.</summary>
[SealedDocument]
public sealed record JobDocument
{
    public int V { get; init; } = 1;

    public required string RunId { get; init; }

    public required string Stage { get; init; }

    /// <summary>Rises by one with every attempt; only the orchestrator raises it. Writers with an older fence are refused.</summary>
    public required int Fence { get; init; }

    public required JobState State { get; init; }

    public DesiredState Desired { get; init; }

    /// <summary>The attempt that claimed this fence.</summary>
    public string? AttemptId { get; init; }

    public required JobSpec Spec { get; init; }

    /// <summary>Ended attempts, oldest first.</summary>
    public IReadOnlyList<AttemptRecord> History { get; init; } = [];

    /// <summary>The result of the current attempt, once it has ended.</summary>
    public JobResult? Result { get; init; }
}

/// <summary>How an earlier attempt ended.</summary>
/// <param name="Fence">Its fence.</param>
/// <param name="AttemptId">Its id; null if nobody claimed it.</param>
/// <param name="Outcome">Its last state, or one of <see cref="AttemptOutcomes"/>.</param>
/// <param name="Reason">Why, in words.</param>
/// <param name="Seconds">Trainer seconds from claim to end.</param>
public sealed record AttemptRecord(int Fence, string? AttemptId, string Outcome, string? Reason, double Seconds);

/// <summary>How attempts end that do not end themselves; the others end with their last <see cref="JobState"/>.</summary>
public static class AttemptOutcomes
{
    /// <summary>Its heartbeat stood still.</summary>
    public const string Lost = "lost";

    /// <summary>Its heart beat and its step stood still.</summary>
    public const string Wedged = "wedged";

    /// <summary>Nobody claimed it.</summary>
    public const string StartTimeout = "startTimeout";

    /// <summary>It was asked to stop and did not answer.</summary>
    public const string Unresponsive = "unresponsive";

    /// <summary>Its job document was damaged or gone.</summary>
    public const string DocumentLost = "documentLost";

    /// <summary>Storage showed an older state than it had shown before: it has lost writes that it had acknowledged.</summary>
    public const string StorageRollback = "storageRollback";

    /// <summary>True where the attempt was ended from outside: whatever it wrote of its own end does not count.</summary>
    public static bool IsFromOutside(string outcome) => outcome is Lost or Wedged or Unresponsive or DocumentLost or StorageRollback;
}

/// <summary>Kinds of trainer errors; each has its own budget and remedy.</summary>
public enum JobErrorKind
{
    /// <summary>The input is bad; another attempt would fail alike.</summary>
    Input,

    /// <summary>NaN or an exploding loss.</summary>
    Diverged,

    OutOfMemory,

    DiskFull,

    /// <summary>A checkpoint failed verification and no parent was left.</summary>
    CorruptCheckpoint,

    /// <summary>A reward endpoint gave no answer, however often it was asked.</summary>
    Endpoint,

    /// <summary>Anything else.</summary>
    Internal,
}

/// <summary>An error that people can act on.</summary>
/// <param name="Kind">The kind, which decides about another attempt.</param>
/// <param name="Message">What happened, with run, stage and attempt.</param>
/// <param name="Remedy">What to do about it.</param>
public sealed record JobError(JobErrorKind Kind, string Message, string Remedy);

/// <summary>What an attempt ended with.</summary>
public sealed record JobResult
{
    public required JobState Outcome { get; init; }

    /// <summary>Steps done (online methods: iterations).</summary>
    public int Step { get; init; }

    public int TotalSteps { get; init; }

    public JobError? Error { get; init; }

    /// <summary>Summary metrics of the stage, by their names in the metric contract. Free of clocks.</summary>
    public IReadOnlyDictionary<string, double> Metrics { get; init; } = new Dictionary<string, double>();

    /// <summary>Models made, by role.</summary>
    public IReadOnlyDictionary<string, ModelRef> Models { get; init; } = new Dictionary<string, ModelRef>();

    /// <summary>Other files made, by name, as content blobs.</summary>
    public IReadOnlyDictionary<string, ContentFile> Artifacts { get; init; } = new Dictionary<string, ContentFile>();

    /// <summary>Trainer seconds of this attempt.</summary>
    public double Seconds { get; init; }

    /// <summary>Seconds of them spent outside the method: storage, verification, loading.</summary>
    public double OverheadSeconds { get; init; }

    /// <summary>The largest memory of this attempt: of the trainer's process, or with CUDA of the device. 0 where it was not measured.</summary>
    public long PeakMemoryBytes { get; init; }

    /// <summary>Checkpoints that failed verification and were passed over.</summary>
    public int CorruptCheckpoints { get; init; }
}

/// <summary>The queue message: a pointer with a fence, no configuration.</summary>
public sealed record JobMessage(int V, string RunId, string Stage, int Fence, string? Traceparent = null);

/// <summary>The hint from trainer to orchestrator that something about a job changed.</summary>
public sealed record JobEvent(string RunId, string Stage, int Fence, JobState State);

/// <summary>Liveness, progress and cancel channel in one; written by the attempt alone.</summary>
public sealed record Heartbeat
{
    public required string AttemptId { get; init; }

    public required int Fence { get; init; }

    /// <summary>Rises with every beat; its standing still is what counts as silence.</summary>
    public required long Sequence { get; init; }

    /// <summary>What the attempt does now: <c>load</c>, <c>train</c>, <c>checkpoint</c>, <c>evaluate</c>, <c>export</c>.</summary>
    public required string Phase { get; init; }

    public int Step { get; init; }

    public int TotalSteps { get; init; }

    /// <summary>Seconds per step of late, for the estimate of the time left.</summary>
    public double SecondsPerStep { get; init; }

    /// <summary>Step of the newest checkpoint.</summary>
    public int CheckpointStep { get; init; }

    /// <summary>Trainer seconds since the claim.</summary>
    public double Seconds { get; init; }

    /// <summary>The newest metrics.</summary>
    public IReadOnlyDictionary<string, double> Metrics { get; init; } = new Dictionary<string, double>();
}

/// <summary>The pointer to the newest checkpoint of a stage.</summary>
[SealedDocument]
public sealed record Head
{
    /// <summary>The fence of the attempt that wrote the checkpoint.</summary>
    public required int Fence { get; init; }

    public required int Step { get; init; }

    /// <summary>The checkpoint's manifest blob and its SHA-256; null before the first checkpoint.</summary>
    public string? Manifest { get; init; }

    public string? ManifestSha256 { get; init; }

    /// <summary>Attempts with a smaller fence can no longer move the head.</summary>
    public int SealedBy { get; init; }

    /// <summary>
    /// The head had to be written anew without knowing where the old one pointed: the checkpoint to resume from is the newest that can be
    /// found.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool IsLost { get; init; }
}

/// <summary>A checkpoint: its parts with their sums, and where it came from.</summary>
[SealedDocument]
public sealed record CheckpointManifest
{
    public int V { get; init; } = 1;

    public required string RunId { get; init; }

    public required string Stage { get; init; }

    public required int Fence { get; init; }

    public required int Step { get; init; }

    /// <summary>The parts, as blobs beside the manifest.</summary>
    public required IReadOnlyList<ContentFile> Parts { get; init; }

    /// <summary>The manifest of the checkpoint before, to fall back to; with its sum.</summary>
    public string? Parent { get; init; }

    public string? ParentSha256 { get; init; }
}
