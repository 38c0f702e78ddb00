using Rlhf.Jobs;
using Rlhf.Spec;

namespace Rlhf;

/// <summary><c>run.json</c>: the run as it was asked for. Creating this blob is what makes a start unique.</summary>
[SealedDocument]
public sealed record RunDocument(string RunId, RunSpec Spec, string SpecSha256, DateTimeOffset CreatedUtc);

/// <summary>
/// <c>control.json</c>: what people last asked of the run; there is none before they ask. Whoever is about to start or watch a job reads
/// it, so that a request is never lost between two jobs. A cancel is never taken back.
/// </summary>
public sealed record RunControl(DesiredState Desired);

/// <summary>The states of a run as the API names them.</summary>
public static class RunStates
{
    public const string Pending = "pending";
    public const string Running = "running";
    public const string Paused = "paused";
    public const string WaitingForApproval = "waitingForApproval";
    public const string Succeeded = "succeeded";
    public const string Failed = "failed";
    public const string Cancelled = "cancelled";

    /// <summary>True when nothing more will happen.</summary>
    public static bool IsFinal(string state) => state is Succeeded or Failed or Cancelled;
}

/// <summary>The states of a stage, in the API and in the report.</summary>
public static class StageStates
{
    public const string Pending = "pending";
    public const string Running = "running";
    public const string Succeeded = "succeeded";
    public const string Skipped = "skipped";
    public const string Failed = "failed";
    public const string Cancelled = "cancelled";

    /// <summary>Ended early, with a model, by a rule of <see cref="GuardSpec"/>.</summary>
    public const string StoppedByGuard = "stoppedByGuard";
}

/// <summary>The stages of a run, in their order.</summary>
public static class Stages
{
    public const string Data = "data";
    public const string Pretrain = "pretrain";
    public const string Sft = "sft";
    public const string Reward = "reward";
    public const string Ppo = "ppo";
    public const string Dpo = "dpo";
    public const string Rloo = "rloo";
    public const string Grpo = "grpo";
    public const string HeldOutReward = "held-out-reward";
    public const string Evaluate = "evaluate";
    public const string Promote = "promote";

    /// <summary>The stages of a run.</summary>
    public static IReadOnlyList<string> All(RunSpec spec) =>
    [
        Data, Pretrain, Sft, Reward, Of(spec.Method),
        .. spec.Evaluate.HeldOutRewardModel ? [HeldOutReward] : Array.Empty<string>(), Evaluate, Promote,
    ];

    /// <summary>The stage of a method; its model's role and the model's name in the report are the same.</summary>
    public static string Of(PreferenceMethod method) => method switch
    {
        PreferenceMethod.Ppo => Ppo,
        PreferenceMethod.Dpo => Dpo,
        PreferenceMethod.Rloo => Rloo,
        PreferenceMethod.Grpo => Grpo,
        _ => throw new ArgumentOutOfRangeException(nameof(method), method, "unknown method"),
    };
}

/// <summary>The body of <c>GET /api/runs/{id}</c>.</summary>
public sealed record RunView
{
    public required string RunId { get; init; }

    /// <summary>The model's name.</summary>
    public required string Name { get; init; }

    /// <summary>One of <see cref="RunStates"/>.</summary>
    public required string State { get; init; }

    /// <summary>The present or last stage.</summary>
    public string? Stage { get; init; }

    /// <summary>What the run does or waits for, in words.</summary>
    public string? Activity { get; init; }

    /// <summary>Why the run failed, and what to do.</summary>
    public string? Error { get; init; }

    public ProgressView? Progress { get; init; }

    /// <summary>The stage's newest metrics.</summary>
    public IReadOnlyDictionary<string, double> Metrics { get; init; } = new Dictionary<string, double>();

    public IReadOnlyList<StageView> Stages { get; init; } = [];

    /// <summary>Attempts of all stages.</summary>
    public int Attempts { get; init; }

    public double TrainerSeconds { get; init; }

    public double Cost { get; init; }

    public DateTimeOffset CreatedUtc { get; init; }

    public DateTimeOffset UpdatedUtc { get; init; }

    public string? ReportUrl { get; init; }
}

/// <summary>How far the present stage is.</summary>
/// <param name="Step">Steps done.</param>
/// <param name="Total">All steps; 0 while unknown.</param>
/// <param name="EtaSeconds">Seconds the stage still needs at its present pace; null while unknown.</param>
public sealed record ProgressView(int Step, int Total, double? EtaSeconds);

/// <summary>One stage of <see cref="RunView"/>.</summary>
/// <param name="Name">The stage.</param>
/// <param name="State">One of <see cref="StageStates"/>.</param>
/// <param name="Attempts">Attempts so far.</param>
/// <param name="Seconds">From its start until now or its end.</param>
public sealed record StageView(string Name, string State, int Attempts, double Seconds);

/// <summary>One line of the metrics stream.</summary>
/// <param name="Stage">The stage.</param>
/// <param name="Step">The step (online methods: iteration).</param>
/// <param name="Seconds">What the step took.</param>
/// <param name="Metrics">Values by their names in the metric contract.</param>
public sealed record MetricRow(string Stage, int Step, double Seconds, IReadOnlyDictionary<string, double> Metrics);
