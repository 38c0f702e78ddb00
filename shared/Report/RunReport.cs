using Rlhf.Jobs;
using Rlhf.Spec;

namespace Rlhf.Report;

/// <summary>What a run came to: <c>report.json</c>. Metrics are free of clocks, so equal seeds give equal metrics.</summary>
public sealed record RunReport
{
    public required string RunId { get; init; }

    /// <summary><c>succeeded</c>, <c>failed</c>, <c>cancelled</c>.</summary>
    public required string State { get; init; }

    /// <summary>In one sentence: what came out, or why it stopped and what to do.</summary>
    public required string Summary { get; init; }

    public required RunSpec Spec { get; init; }

    public required IReadOnlyList<StageReport> Stages { get; init; }

    /// <summary><c>base</c>, <c>sft</c>, <c>reward</c>, and the aligned one by its method (<c>ppo</c>), as far as they were made.</summary>
    public required IReadOnlyDictionary<string, ModelReport> Models { get; init; }

    public EvaluationReport? Evaluation { get; init; }

    /// <summary>The aligned model's validation, after each slice of an online method.</summary>
    public IReadOnlyList<CurvePoint> Curve { get; init; } = [];

    /// <summary>Gao's forms fitted to the curve and to best-of-n, as far as there are points enough.</summary>
    public IReadOnlyList<GaoFit> Fits { get; init; } = [];

    public DataReport? Data { get; init; }

    public PromotionReport? Promotion { get; init; }

    /// <summary>The run's time, and the share of it in which nothing was computed.</summary>
    public required TimeReport Time { get; init; }

    public required IReadOnlyList<LineageEntry> Lineage { get; init; }
}

/// <summary>One stage.</summary>
/// <param name="Name">The stage.</param>
/// <param name="State">How it ended: <c>succeeded</c>, <c>skipped</c>, <c>failed</c>, <c>cancelled</c>, <c>stoppedByGuard</c>.</param>
/// <param name="Seconds">From its start to its end, on the orchestrator's clock.</param>
/// <param name="GpuSeconds">Trainer seconds of all attempts (on whatever device).</param>
/// <param name="Attempts">Attempts, slices included.</param>
/// <param name="Metrics">Summary metrics.</param>
/// <param name="Failures">Attempts that did not end well, with their reasons.</param>
public sealed record StageReport(
    string Name,
    string State,
    double Seconds,
    double GpuSeconds,
    int Attempts,
    IReadOnlyDictionary<string, double> Metrics,
    IReadOnlyList<AttemptRecord> Failures)
{
    /// <summary>The largest memory of an attempt, in bytes; 0 where it was not measured.</summary>
    public long PeakMemoryBytes { get; init; }
}

/// <summary>A model of the run.</summary>
/// <param name="Path">The folder manifest's blob.</param>
/// <param name="Sha256">SHA-256 of its <c>model.safetensors</c>.</param>
public sealed record ModelReport(string Path, string Sha256);

/// <summary>The evaluation's outcome, as the evaluate job writes it (<c>evaluation.json</c>).</summary>
public sealed record EvaluationReport
{
    /// <summary>One row per model and metric.</summary>
    public required IReadOnlyList<EvaluationRow> Table { get; init; }

    public required IReadOnlyList<EvaluationSample> Samples { get; init; }

    /// <summary>Reward model against labels and baselines, by subset.</summary>
    public IReadOnlyList<RewardModelRow> RewardModel { get; init; } = [];

    /// <summary>Best-of-n and the aligned model in the plane of square-root KL and reward.</summary>
    public IReadOnlyList<CurvePoint> BestOfN { get; init; } = [];

    /// <summary>Findings in words, such as that over-optimisation set in.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];
}

/// <summary>A figure with its interval.</summary>
/// <param name="Model"><c>base</c>, <c>base_few_shot</c>, <c>sft</c>, <c>best_of_4</c>, <c>best_of_16</c>, <c>ppo</c> (or the method of the run), and with suffix <c>_greedy</c> the greedy answers.</param>
/// <param name="Metric"><c>gold_reward</c>, <c>proxy_reward</c>, <c>helpful</c>, <c>honest</c>, <c>harmless</c>, <c>held_out</c>, <c>kl</c>, <c>loss</c> ...</param>
/// <param name="Value">The mean.</param>
/// <param name="N">Answers it rests on; of <c>loss</c> and <c>perplexity</c> the tokens.</param>
/// <param name="Ci95">Half the width of the 95% interval: value plus or minus this.</param>
public sealed record EvaluationRow(string Model, string Metric, double Value, int N, double Ci95)
{
    /// <summary>The part of the data that the figure rests on; null where it rests on all.</summary>
    public string? Subset { get; init; }
}

/// <summary>A prompt with the answers side by side. Of the methods only the run's own has one.</summary>
public sealed record EvaluationSample(string Prompt, string Base, string Sft, string? Ppo = null)
{
    public string? Dpo { get; init; }

    public string? Rloo { get; init; }

    public string? Grpo { get; init; }

    /// <summary>The answer of the model that a method aligned; empty where it was not measured.</summary>
    public string Aligned(PreferenceMethod method) => method switch
    {
        PreferenceMethod.Ppo => Ppo,
        PreferenceMethod.Dpo => Dpo,
        PreferenceMethod.Rloo => Rloo,
        PreferenceMethod.Grpo => Grpo,
        _ => null,
    } ?? string.Empty;

    /// <summary>With the answer of the model that a method aligned.</summary>
    public EvaluationSample WithAligned(PreferenceMethod method, string answer) => method switch
    {
        PreferenceMethod.Ppo => this with { Ppo = answer },
        PreferenceMethod.Dpo => this with { Dpo = answer },
        PreferenceMethod.Rloo => this with { Rloo = answer },
        PreferenceMethod.Grpo => this with { Grpo = answer },
        _ => throw new ArgumentOutOfRangeException(nameof(method), method, "unknown method"),
    };

    /// <summary>The judge's or reward model's verdict on each answer, by model.</summary>
    public IReadOnlyDictionary<string, double> Scores { get; init; } = new Dictionary<string, double>();

    public string Subset { get; init; } = "all";

    /// <summary>What the world's truth asks for, where it is known.</summary>
    public string? Expected { get; init; }
}

/// <summary>The reward model on held-out pairs of one subset.</summary>
/// <param name="Subset">The subset, or <c>all</c>.</param>
/// <param name="Metric"><c>accuracy</c>, <c>bag_of_words</c>, <c>above_bag_of_words</c>, <c>longer_is_better</c>, <c>labeller_ceiling</c>, <c>gold_correlation</c>, <c>ece</c>, <c>length_correlation</c>.</param>
/// <param name="Value">The figure.</param>
/// <param name="N">Pairs or answers.</param>
/// <param name="Ci95">Half the width of the 95% interval; 0 where none applies.</param>
public sealed record RewardModelRow(string Subset, string Metric, double Value, int N, double Ci95);

/// <summary>A point of the curve of rewards over KL (Gao 2022).</summary>
/// <param name="Label">What was measured, such as <c>ppo 20</c> or <c>best of 4</c>.</param>
/// <param name="Step">Iteration (of DPO: step); 0 for others.</param>
/// <param name="Kl">KL from the SFT model in nats per sequence.</param>
/// <param name="ProxyReward">Mean score of the reward model.</param>
/// <param name="GoldReward">Mean of the gold judge; null where there is none.</param>
public sealed record CurvePoint(string Label, int Step, double Kl, double ProxyReward, double? GoldReward)
{
    public double? ProxyCi95 { get; init; }

    public double? GoldCi95 { get; init; }
}

/// <summary>What data preparation found.</summary>
public sealed record DataReport
{
    public required IReadOnlyList<DataFileReport> Files { get; init; }

    /// <summary>Rows by data set and split.</summary>
    public required IReadOnlyDictionary<string, int> Rows { get; init; }

    /// <summary>Rows that occurred more than once and were kept once, by data set.</summary>
    public required IReadOnlyDictionary<string, int> Duplicates { get; init; }

    /// <summary>Rows removed from training because their prompt is kept for test or evaluation, by data set.</summary>
    public IReadOnlyDictionary<string, int> HeldOut { get; init; } = new Dictionary<string, int>();

    /// <summary>Histograms of lengths in words: data set, then upper edge of the bin, then rows.</summary>
    public required IReadOnlyDictionary<string, IReadOnlyDictionary<string, int>> Lengths { get; init; }
}

/// <summary>What data preparation found in one file.</summary>
/// <param name="File">The file.</param>
/// <param name="Format">The detected format.</param>
/// <param name="Lines">Lines read.</param>
/// <param name="Rows">Usable rows.</param>
/// <param name="Dropped">Rows dropped; the first 100 with their reasons.</param>
/// <param name="DroppedCount">All dropped rows.</param>
public sealed record DataFileReport(string File, string Format, int Lines, int Rows, IReadOnlyList<DroppedRow> Dropped, int DroppedCount);

/// <summary>A dropped row.</summary>
public sealed record DroppedRow(int Line, string Reason);

/// <summary>How the promotion gate decided.</summary>
public sealed record PromotionReport(bool Promoted, string Reason, string? By, string? Note);

/// <summary>Where the time went.</summary>
/// <param name="TotalSeconds">From start to report.</param>
/// <param name="TrainerSeconds">Time in which a trainer was claimed by the run.</param>
/// <param name="ComputeSeconds">Of it, time inside the methods.</param>
/// <param name="WaitingSeconds">Time waiting for people; not overhead.</param>
/// <param name="Overhead">1 - compute / (total - waiting).</param>
/// <param name="Cost">Trainer hours times the spec's price.</param>
public sealed record TimeReport(
    double TotalSeconds, double TrainerSeconds, double ComputeSeconds, double WaitingSeconds, double Overhead, double Cost);

/// <summary>What was made of what.</summary>
/// <param name="Output">The thing made, by content.</param>
/// <param name="Stage">The stage that made it.</param>
/// <param name="Inputs">What it was made of, by content.</param>
public sealed record LineageEntry(string Output, string Stage, IReadOnlyList<string> Inputs);
