using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Rlhf.Spec;

/// <summary>What a person asks for with <c>POST /api/runs</c>: one document that fixes a whole run, and with its seed the result.</summary>
public sealed record RunSpec
{
    [Description("The JSON schema of this document, for editors. Not used by the run.")]
    [JsonPropertyName("$schema")]
    public string? Schema { get; init; }

    [Description("The run's id; made up where it is missing. The same id with the same spec is the same run.")]
    [RegularExpression("^[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?$", ErrorMessage = "must be 1 to 48 lower-case letters, digits and hyphens, and begin and end with a letter or digit")]
    public string? RunId { get; init; }

    [Description("The name under which the finished model is registered.")]
    [RegularExpression("^[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?$", ErrorMessage = "must be 1 to 48 lower-case letters, digits and hyphens, and begin and end with a letter or digit")]
    public required string Name { get; init; }

    [Description("Seeds every random choice of the run.")]
    [Range(0, long.MaxValue)]
    public long Seed { get; init; } = 1;

    [Description("Where the rows come from.")]
    public required DataSpec Data { get; init; }

    [Description("The model that the run starts from.")]
    public required ModelSpec Model { get; init; }

    [Description("Where and how the trainer computes.")]
    public TrainerSpec Trainer { get; init; } = new();

    [Description("LoRA: small matrices beside the frozen weights learn instead of the weights. Null trains all weights.")]
    public LoraSpec? Lora { get; init; }

    [Description("Pretraining; only for a model made from scratch.")]
    public PretrainSpec? Pretrain { get; init; }

    [Description("Supervised fine-tuning on demonstrations (InstructGPT step 1).")]
    public SftSpec Sft { get; init; } = new();

    [Description("The reward model, trained on preferences (InstructGPT step 2).")]
    public RewardSpec Reward { get; init; } = new();

    [Description("What scores an answer: the weighted sum of these sources. Where there are none, the reward model alone.")]
    public IReadOnlyList<RewardSourceSpec> Rewards { get; init; } = [];

    [Description("How the SFT model is aligned with the preferences (InstructGPT step 3). The section of the same name holds the method's settings.")]
    public PreferenceMethod Method { get; init; } = PreferenceMethod.Ppo;

    [Description("PPO against the reward; only with method 'ppo'.")]
    public PpoSpec Ppo { get; init; } = new();

    [Description("DPO on the preferences; only with method 'dpo'.")]
    public DpoSpec? Dpo { get; init; }

    [Description("RLOO against the reward; only with method 'rloo'.")]
    public RlooSpec? Rloo { get; init; }

    [Description("GRPO against the reward; only with method 'grpo'.")]
    public GrpoSpec? Grpo { get; init; }

    [Description("The evaluation before and after.")]
    public EvaluateSpec Evaluate { get; init; } = new();

    [Description("Conditions between stages: a run that misses one stops with a message that says which.")]
    public GateSpec Gates { get; init; } = new();

    [Description("The watch on over-optimisation and divergence between the slices of an online method; not with method 'dpo'.")]
    public GuardSpec Guard { get; init; } = new();

    [Description("What the run may cost, and how often it may fail.")]
    public BudgetSpec Budget { get; init; } = new();

    [Description("When the new model becomes the production model.")]
    public PromotionSpec Promotion { get; init; } = new();

    /// <summary>The settings of the chosen method where it is an online one; null for DPO.</summary>
    public OnlineSpec? Online() => Method switch
    {
        PreferenceMethod.Ppo => Ppo,
        PreferenceMethod.Rloo => Rloo ?? new RlooSpec(),
        PreferenceMethod.Grpo => Grpo ?? new GrpoSpec(),
        _ => null,
    };

    /// <summary>
    /// How the policy answers outside of the final evaluation: as the online method samples; DPO samples nothing itself, so as the
    /// evaluation does.
    /// </summary>
    public AnswerSampling Answers() => Online() is { } online
        ? new AnswerSampling(online.MaxNewTokens, online.Temperature, online.ValidationPrompts)
        : new AnswerSampling(Evaluate.MaxNewTokens, Evaluate.Temperature, (Dpo ?? new DpoSpec()).ValidationPrompts);

    /// <summary>Whether the SFT model is only the start: a reward model and what is trained against it follow.</summary>
    public bool Aligns() => Reward.Epochs > 0;
}

/// <summary>How answers are sampled while a run trains.</summary>
/// <param name="MaxNewTokens">The longest answer in tokens.</param>
/// <param name="Temperature">Divides the logits.</param>
/// <param name="ValidationPrompts">Held-out prompts that the aligned model answers.</param>
public readonly record struct AnswerSampling(int MaxNewTokens, double Temperature, int ValidationPrompts);

/// <summary>The data of a run: the generated sample world, or files. Missing parts are derived, as each field says.</summary>
public sealed record DataSpec
{
    [Description("Generates the sample world instead of reading files.")]
    public WorldSpec? World { get; init; }

    [Description("Tasks as instructions, in FLAN's way, instead of the lists of files below.")]
    public FlanSpec? Flan { get; init; }

    [Description("Pretraining text: .txt, or JSON lines with a field 'text'. Derived from the demonstrations where it is missing and the base is made from scratch.")]
    public IReadOnlyList<DataFileSpec> Text { get; init; } = [];

    [Description("Demonstrations: prompt/completion, input/output or messages. Where missing, the best completion of each training preference serves.")]
    public IReadOnlyList<DataFileSpec> Demonstrations { get; init; } = [];

    [Description("Preferences: chosen/rejected, hh-rlhf transcripts, K-wise rankings, best-of-n.")]
    public IReadOnlyList<DataFileSpec> Preferences { get; init; } = [];

    [Description("Prompts that an online method answers, and that the aligned model is validated on. Where missing, the prompts of the training preferences serve.")]
    public IReadOnlyList<DataFileSpec> Prompts { get; init; } = [];

    [Description("Prompts for the evaluation. Where missing, the prompts of the test preferences serve.")]
    public IReadOnlyList<DataFileSpec> Evaluation { get; init; } = [];

    [Description("Comparisons that language models answer by likelihood and the reward model by score: pairs, rankings, or BIG-bench's target_scores (HHH). Reported by their category; nothing learns from them.")]
    public IReadOnlyList<DataFileSpec> Comparisons { get; init; } = [];

    [Description("Prompts labelled safe or unsafe (XSTest's CSV, or JSON lines with prompt and label), for counts of refusals and over-refusals.")]
    public IReadOnlyList<DataFileSpec> Safety { get; init; } = [];

    [Description("Labellers whose rankings, with their prompts, are kept out of training; the reward model's accuracy on them is reported apart.")]
    public IReadOnlyList<string> HeldOutLabellers { get; init; } = [];

    [Description("The share of prompts kept out of training for validation.")]
    [Range(0.0, 0.5)]
    public double ValidationFraction { get; init; } = 0.05;

    [Description("The share of preference prompts kept for the final test, where no file is marked split: test.")]
    [Range(0.0, 0.5)]
    public double TestFraction { get; init; } = 0.05;
}

/// <summary>One file of rows. JSON lines, CSV or text, plain or gzip.</summary>
public sealed record DataFileSpec
{
    [Description("The blob below the container; with 'dotnet run --project local', a file below --data.")]
    [MinLength(1)]
    public required string File { get; init; }

    [Description("The name by which metrics report these rows; where it is missing, a row's own category or the file's name up to the first dot.")]
    public string? Subset { get; init; }

    [Description("train: split into training and validation. test: kept for the evaluation.")]
    public FileSplit Split { get; init; } = FileSplit.Train;

    [Description("Read at most this many usable rows.")]
    [Range(1, int.MaxValue)]
    public int? Limit { get; init; }
}

/// <summary>Which side of the split a file's rows go to.</summary>
public enum FileSplit
{
    Train,
    Test,
}

/// <summary>How much of the sample world to generate. The knowledge is fixed; the seed picks prompts, writers and labellers.</summary>
public sealed record WorldSpec
{
    [Description("Seeds the generator; the run's seed where it is missing.")]
    [Range(0, long.MaxValue)]
    public long? Seed { get; init; }

    [Description("Pretraining documents; only used when the base is made from scratch.")]
    [Range(0, 1_000_000)]
    public int PretrainDocuments { get; init; }

    [Description("Demonstrations by an imperfect writer.")]
    [Range(1, 1_000_000)]
    public int Demonstrations { get; init; } = 2000;

    [Description("Prompts whose completions labellers rank.")]
    [Range(1, 1_000_000)]
    public int PreferencePrompts { get; init; } = 2000;

    [Description("Completions ranked for each prompt (K of InstructGPT).")]
    [Range(2, 9)]
    public int CompletionsPerPrompt { get; init; } = 4;

    [Description("Prompts that an online method answers, and that the aligned model is validated on.")]
    [Range(1, 1_000_000)]
    public int Prompts { get; init; } = 2000;

    [Description("Prompts of the evaluation.")]
    [Range(1, 100_000)]
    public int EvaluationPrompts { get; init; } = 400;
}

/// <summary>
/// Instruction tuning in FLAN's way (Wei et al. 2021): tasks put into words by templates, options listed, one cluster held out, and the
/// evaluation by rank classification.
/// </summary>
public sealed record FlanSpec
{
    [Description("FLAN's file of templates: JSON with an object PATTERNS of lists of [input, target], plain or gzip.")]
    [MinLength(1)]
    public required string Templates { get; init; }

    [Description("The tasks.")]
    public required IReadOnlyList<FlanTaskSpec> Tasks { get; init; }

    [Description("The cluster that no training sees: every task of it is only for the evaluation.")]
    [MinLength(1)]
    public required string HeldOutCluster { get; init; }

    [Description("Examples of each task that the evaluation keeps; of a task of the held-out cluster these alone are used.")]
    [Range(1, 1_000_000)]
    public int EvaluationExamples { get; init; } = 500;

    [Description("Training examples of each task at most. FLAN mixes tasks in proportion to their examples, none counting for more than 3,000.")]
    [Range(1, 1_000_000)]
    public int MaxExamplesPerTask { get; init; } = 3000;
}

/// <summary>One task: questions that are answered by choosing among options.</summary>
public sealed record FlanTaskSpec
{
    [Description("Lines of question, answer and rationale, parted by tabs, plain or gzip; the question ends with a list of options.")]
    [MinLength(1)]
    public required string File { get; init; }

    [Description("The name by which metrics report the task; the file's name up to the first dot where it is missing.")]
    public string? Name { get; init; }

    [Description("The tasks that are alike: a task is unseen only where no task of its cluster was trained on.")]
    [MinLength(1)]
    public required string Cluster { get; init; }

    [Description("The name of its templates in the file of templates. They may use {question}, {options_} and {answer}.")]
    [MinLength(1)]
    public string Templates { get; init; } = "arc";

    [Description("The options of questions that list none, such as yes and no.")]
    public IReadOnlyList<string> Labels { get; init; } = [];
}

/// <summary>The base model: an existing folder, or one made from scratch.</summary>
public sealed record ModelSpec
{
    [Description("A Hugging Face folder: a blob prefix; with 'dotnet run --project local', a folder relative to the spec; or 'model:NAME' for the production model registered under NAME.")]
    public string? Base { get; init; }

    [Description("The shape of a base that the run makes itself.")]
    public ScratchSpec? Scratch { get; init; }

    [Description("How a dialogue becomes text: 'dialogue' is hh-rlhf's Human/Assistant form, 'chatml' and 'llama3' are those models' own, 'plain' joins the contents.")]
    public ChatTemplateName ChatTemplate { get; init; } = ChatTemplateName.Dialogue;

    [Description("Prompts longer than this many tokens lose their oldest part.")]
    [Range(4, 131_072)]
    public int MaxPromptTokens { get; init; } = 256;

    [Description("Completions longer than this many tokens are cut in training.")]
    [Range(1, 131_072)]
    public int MaxCompletionTokens { get; init; } = 128;
}

/// <summary>The named chat templates.</summary>
public enum ChatTemplateName
{
    Dialogue,
    Chatml,
    Llama3,
    Plain,
}

/// <summary>The shape of a Llama-style decoder made from scratch, and its tokenizer.</summary>
public sealed record ScratchSpec
{
    [Description("Decoder layers.")]
    [Range(1, 128)]
    public int Layers { get; init; } = 4;

    [Description("Width of the residual stream; an even multiple of heads.")]
    [Range(8, 16_384)]
    public int HiddenSize { get; init; } = 128;

    [Description("Query heads.")]
    [Range(1, 128)]
    public int Heads { get; init; } = 4;

    [Description("Key-value heads (grouped-query attention); must divide heads.")]
    [Range(1, 128)]
    public int KeyValueHeads { get; init; } = 4;

    [Description("Width of the gated feed-forward layer.")]
    [Range(8, 65_536)]
    public int IntermediateSize { get; init; } = 352;

    [Description("Byte-level BPE tokens, trained on the run's text.")]
    [Range(264, 262_144)]
    public int VocabularySize { get; init; } = 1024;

    [Description("The longest sequence in tokens.")]
    [Range(16, 131_072)]
    public int ContextLength { get; init; } = 256;

    [Description("The output matrix is the embedding matrix.")]
    public bool TieEmbeddings { get; init; } = true;
}

/// <summary>Where and how the trainer computes, and when it counts as lost.</summary>
public sealed record TrainerSpec
{
    [Description("The job queue, by kind of machine: rlhf-jobs-{machine}.")]
    [RegularExpression("^[a-z0-9]{1,20}$", ErrorMessage = "must be 1 to 20 lower-case letters and digits")]
    public string Machine { get; init; } = "local";

    [Description("cpu computes bit for bit reproducibly, cuda does not.")]
    public ComputeDevice Device { get; init; } = ComputeDevice.Cpu;

    [Description("The number format of matrix products and attention. With bf16 the weights, gradients, optimizer, norms, log-probabilities and "
        + "losses stay fp32; it is meant for cuda and works on the cpu too.")]
    public Precision Precision { get; init; } = Precision.Fp32;

    [Description("Threads of the CPU kernels. Part of the result: another number rounds differently.")]
    [Range(1, 256)]
    public int Threads { get; init; } = 2;

    [Description("Rows of a forward and backward pass at most (demonstrations, episodes, prompts with all their completions); a step's "
        + "passes add up to the same gradient, up to rounding. None takes the whole batch at once.")]
    [Range(1, 100_000)]
    public int? MicroBatchSize { get; init; }

    [Description("Keep only what enters each layer and compute the layers a second time in the backward pass: the same gradients in a fraction "
        + "of the memory, for about a third more time.")]
    public bool GradientCheckpointing { get; init; }

    [Description("A checkpoint after every this many steps (online methods: iterations), and at the end of every job.")]
    [Range(1, 1_000_000)]
    public int CheckpointEverySteps { get; init; } = 50;

    [Description("Seconds between heartbeats.")]
    [Range(0.1, 60.0)]
    public double HeartbeatSeconds { get; init; } = 1;

    [Description("Seconds between the orchestrator's looks at a job.")]
    [Range(0.2, 300.0)]
    public double PollSeconds { get; init; } = 2;

    [Description("A job that nobody claims for so long is sent again.")]
    [Range(1.0, 86_400.0)]
    public double StartTimeoutSeconds { get; init; } = 1800;

    [Description("A trainer whose heartbeat stands still for so long is lost.")]
    [Range(1.0, 86_400.0)]
    public double LostAfterSeconds { get; init; } = 180;

    [Description("A trainer whose heartbeat goes on while its step stands still for so long is wedged.")]
    [Range(1.0, 86_400.0)]
    public double WedgedAfterSeconds { get; init; } = 900;
}

/// <summary>What computes.</summary>
public enum ComputeDevice
{
    Cpu,
    Cuda,
}

/// <summary>The number format of the forward and backward pass.</summary>
public enum Precision
{
    Fp32,
    Bf16,
}

/// <summary>How a learning rate moves after its warm-up.</summary>
public enum ScheduleKind
{
    Constant,
    Linear,
    Cosine,
}

/// <summary>
/// Low-rank adaptation (Hu et al. 2022) of the stages after pretraining. Every stage's model is exported with its adapter merged, an
/// ordinary model, and the adapter beside it in PEFT's layout. Adapters want larger learning rates than weights, about ten times.
/// </summary>
public sealed record LoraSpec
{
    [Description("Inner dimension of each pair of matrices.")]
    [Range(1, 4096)]
    public int Rank { get; init; } = 16;

    [Description("The pair's product is scaled by alpha / rank.")]
    [Range(0.001, 65_536.0)]
    public double Alpha { get; init; } = 32;

    [Description("The matrices that get a pair, by module name as in PEFT: 'q_proj', 'c_attn', 'query_key_value', ..., or 'all-linear'. Where empty, the projections of attention.")]
    public IReadOnlyList<string> Targets { get; init; } = [];

    [Description("The stages that train adapters; the others train all weights. 'policy' is the stage after the reward model, with PPO its critic too.")]
    public IReadOnlyList<LoraStage> Stages { get; init; } = [LoraStage.Sft, LoraStage.Reward, LoraStage.Policy];
}

/// <summary>A stage that can train an adapter.</summary>
public enum LoraStage
{
    Sft,
    Reward,
    Policy,
}

/// <summary>What the gradient-descent stages share.</summary>
public abstract record OptimizationSpec
{
    [Description("The peak learning rate.")]
    [Range(0.0, 1.0)]
    public double LearningRate { get; init; } = 1e-3;

    [Description("How the rate falls after the warm-up.")]
    public ScheduleKind Schedule { get; init; } = ScheduleKind.Cosine;

    [Description("The share of the peak that the schedule ends at.")]
    [Range(0.0, 1.0)]
    public double FinalLearningRateFraction { get; init; } = 0.1;

    [Description("The share of all steps in which the rate rises from 0.")]
    [Range(0.0, 1.0)]
    public double WarmupFraction { get; init; } = 0.03;

    [Description("AdamW's decoupled weight decay; not applied to norms and biases.")]
    [Range(0.0, 10.0)]
    public double WeightDecay { get; init; }

    [Description("AdamW's decay of the first moment.")]
    [Range(0.0, 0.999999)]
    public double Beta1 { get; init; } = 0.9;

    [Description("AdamW's decay of the second moment.")]
    [Range(0.0, 0.999999)]
    public double Beta2 { get; init; } = 0.95;

    [Description("AdamW's epsilon, outside the square root.")]
    [Range(1e-12, 1e-2)]
    public double AdamEpsilon { get; init; } = 1e-8;

    [Description("Gradients are scaled to at most this global norm; 0 turns it off.")]
    [Range(0.0, 1000.0)]
    public double MaxGradientNorm { get; init; } = 1.0;
}

/// <summary>Next-token prediction on packed documents.</summary>
public sealed record PretrainSpec : OptimizationSpec
{
    [Description("Optimizer steps.")]
    [Range(1, 10_000_000)]
    public int Steps { get; init; } = 300;

    [Description("Sequences per step.")]
    [Range(1, 65_536)]
    public int BatchSize { get; init; } = 16;

    [Description("Tokens per sequence; at most the context length.")]
    [Range(8, 131_072)]
    public int SequenceLength { get; init; } = 128;
}

/// <summary>Supervised fine-tuning: cross-entropy on completions only.</summary>
public sealed record SftSpec : OptimizationSpec
{
    [Description("Passes over the demonstrations; 0 skips the stage.")]
    [Range(0, 1000)]
    public int Epochs { get; init; } = 2;

    [Description("Demonstrations per step.")]
    [Range(1, 65_536)]
    public int BatchSize { get; init; } = 32;
}

/// <summary>The reward model: Bradley-Terry loss over all pairs of a prompt.</summary>
public sealed record RewardSpec : OptimizationSpec
{
    [Description("Passes over the preferences; more than one overfits (Ouyang 2022). 0 ends the training with SFT: no reward model, no method after it.")]
    [Range(0, 1000)]
    public int Epochs { get; init; } = 1;

    [Description("Prompts per step; all completions of a prompt are in one step.")]
    [Range(1, 65_536)]
    public int BatchSize { get; init; } = 16;

    [Description("Weight of the penalty on the squared sum of the two rewards of a pair, which centres them.")]
    [Range(0.0, 10.0)]
    public double CentreCoefficient { get; init; }

    [Description("Read at most this many preference rows; fewer make a weaker reward model.")]
    [Range(1, int.MaxValue)]
    public int? MaxRows { get; init; }
}

/// <summary>One term of the reward (docs/rewards.md). Fields of another kind of source are refused.</summary>
public sealed record RewardSourceSpec
{
    [Description("What gives the score.")]
    public required RewardSourceKind Source { get; init; }

    [Description("Names the metric objective/reward/{name}; the kind of source where it is missing.")]
    [RegularExpression("^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9])?$", ErrorMessage = "must be 1 to 32 letters, digits, hyphens and underscores, and begin and end with a letter or digit")]
    public string? Name { get; init; }

    [Description("What the score is multiplied by; below 0 it is a penalty.")]
    [Range(-1000.0, 1000.0)]
    public double Weight { get; init; } = 1;

    [Description("regex: the pattern, found anywhere in the answer. .NET's syntax without look-around, back references and atomic groups.")]
    [MinLength(1)]
    public string? Pattern { get; init; }

    [Description("length: the fewest tokens that score 1.")]
    [Range(0, 131_072)]
    public int? MinTokens { get; init; }

    [Description("length: the most tokens that score 1.")]
    [Range(0, 131_072)]
    public int? MaxTokens { get; init; }

    [Description("length: the target t, instead of limits: n tokens score -|n - t| / t.")]
    [Range(1, 131_072)]
    public int? TargetTokens { get; init; }

    [Description("exactMatch: upper and lower case are the same; false where it is missing.")]
    public bool? IgnoreCase { get; init; }

    [Description("http: the endpoint's address, http or https.")]
    [MinLength(1)]
    public string? Url { get; init; }

    [Description("http: seconds that one call may take; 30 where it is missing.")]
    [Range(0.05, 3600.0)]
    public double? TimeoutSeconds { get; init; }

    [Description("http: further tries after a timeout, a connection error or a status of 408, 429 or from 500 on; 4 where it is missing.")]
    [Range(0, 100)]
    public int? Retries { get; init; }

    [Description("http: rows in one call at most; 64 where it is missing.")]
    [Range(1, 4096)]
    public int? RowsPerCall { get; init; }

    [Description("http: a header that every call carries, such as Authorization; its value comes from headerVariable.")]
    [RegularExpression("^[A-Za-z0-9-]{1,64}$", ErrorMessage = "must be a header's name: letters, digits and hyphens")]
    public string? Header { get; init; }

    [Description("http: the environment variable of the trainer that holds the header's value: RLHF_REWARD_ and a name. The secret itself never stands in a spec.")]
    [RegularExpression("^RLHF_REWARD_[A-Z0-9_]{1,50}$", ErrorMessage = "must be RLHF_REWARD_ and up to 50 upper-case letters, digits and underscores")]
    public string? HeaderVariable { get; init; }

    public const double DefaultTimeoutSeconds = 30;
    public const int DefaultRetries = 4;
    public const int DefaultRowsPerCall = 64;

    /// <summary>The pause before a retry, counted from 0: half a second, each further one twice as long, at most half a minute.</summary>
    public static TimeSpan PauseBefore(int retry) => TimeSpan.FromSeconds(Math.Min(30, 0.5 * Math.Pow(2, retry)));

    /// <summary>The name under which metrics report the source.</summary>
    public string MetricName() => Name ?? JsonNamingPolicy.CamelCase.ConvertName(Source.ToString());
}

/// <summary>The kinds of reward source.</summary>
public enum RewardSourceKind
{
    [Description("the reward model that the run trains.")]
    Model,

    [Description("1 where a pattern is found in the answer, else 0.")]
    Regex,

    [Description("by the answer's number of tokens.")]
    Length,

    [Description("1 where the answer is the prompt row's reference answer, else 0.")]
    ExactMatch,

    [Description("an endpoint of yours.")]
    Http,
}

/// <summary>The ways from the SFT model to the aligned model. Stage, model role and table row carry the method's name in lower case.</summary>
public enum PreferenceMethod
{
    [Description("Proximal policy optimisation with a critic.")]
    Ppo,

    [Description("Direct preference optimisation, offline on the preferences.")]
    Dpo,

    [Description("REINFORCE with the other answers to the same prompt as baseline.")]
    Rloo,

    [Description("Group-relative policy optimisation.")]
    Grpo,
}

/// <summary>What the methods share that sample answers and have them scored: PPO, RLOO, GRPO.</summary>
public abstract record OnlineSpec
{
    [Description("Rollout-and-update iterations.")]
    [Range(1, 1_000_000)]
    public int Iterations { get; init; } = 60;

    [Description("Iterations per job; between jobs the orchestrator decides whether to go on.")]
    [Range(1, 1_000_000)]
    public int IterationsPerSlice { get; init; } = 10;

    [Description("Episodes (answers sampled) per iteration.")]
    [Range(2, 65_536)]
    public int Episodes { get; init; } = 64;

    [Description("Passes over an iteration's episodes.")]
    [Range(1, 100)]
    public int Epochs { get; init; } = 2;

    [Description("Episodes per optimizer step.")]
    [Range(1, 65_536)]
    public int MinibatchSize { get; init; } = 32;

    [Description("The longest answer in tokens.")]
    [Range(1, 131_072)]
    public int MaxNewTokens { get; init; } = 24;

    [Description("Divides the logits alike in sampling, old, new and reference log-probabilities.")]
    [Range(0.01, 10.0)]
    public double Temperature { get; init; } = 1.0;

    [Description("The policy's learning rate.")]
    [Range(0.0, 1.0)]
    public double LearningRate { get; init; } = 1e-4;

    [Description("Iterations in which learning rates rise from a tenth to their full value.")]
    [Range(0, 100_000)]
    public int WarmupIterations { get; init; } = 3;

    [Description("How learning rates move after the warm-up.")]
    public ScheduleKind Schedule { get; init; } = ScheduleKind.Constant;

    [Description("Adam's epsilon.")]
    [Range(1e-12, 1e-2)]
    public double AdamEpsilon { get; init; } = 1e-5;

    [Description("Gradients are scaled to at most this global norm; 0 turns it off.")]
    [Range(0.0, 1000.0)]
    public double MaxGradientNorm { get; init; } = 1.0;

    [Description("Epsilon of the clipped policy ratio.")]
    [Range(0.001, 10.0)]
    public double ClipRange { get; init; } = 0.2;

    [Description("What an answer without an end token is worth.")]
    public MissingEosMode MissingEos { get; init; } = MissingEosMode.Replace;

    [Description("The score that replaces, or the amount subtracted.")]
    [Range(-1000.0, 1000.0)]
    public double MissingEosValue { get; init; } = -1.0;

    [Description("Scores are clipped to plus or minus this; 0 turns it off.")]
    [Range(0.0, 1000.0)]
    public double RewardClip { get; init; }

    [Description("Validation prompts answered at the end of each slice, for the curve of rewards over KL.")]
    [Range(0, 100_000)]
    public int ValidationPrompts { get; init; } = 128;
}

/// <summary>Proximal policy optimisation (Schulman 2017) as InstructGPT applies it.</summary>
public sealed record PpoSpec : OnlineSpec
{
    [Description("The critic's learning rate.")]
    [Range(0.0, 1.0)]
    public double CriticLearningRate { get; init; } = 3e-4;

    [Description("How far a new value may move from the old one.")]
    [Range(0.001, 1000.0)]
    public double ValueClipRange { get; init; } = 0.2;

    [Description("Discount of future rewards.")]
    [Range(0.0, 1.0)]
    public double Gamma { get; init; } = 1.0;

    [Description("Lambda of generalised advantage estimation.")]
    [Range(0.0, 1.0)]
    public double Lambda { get; init; } = 0.95;

    [Description("Beta of the per-token KL penalty in the reward; the start value where target is set.")]
    [Range(0.0, 100.0)]
    public double KlCoefficient { get; init; } = 0.05;

    [Description("Target KL in nats per sequence; setting it makes beta adaptive (Ziegler 2019, equation 4).")]
    [Range(0.001, 10_000.0)]
    public double? KlTarget { get; init; }

    [Description("Horizon of the adaptive beta, in episodes.")]
    [Range(1, 100_000_000)]
    public int KlHorizon { get; init; } = 10_000;

    [Description("Scale rewards to unit variance without shifting the mean.")]
    public bool WhitenRewards { get; init; }

    [Description("Whiten advantages over each iteration.")]
    public bool WhitenAdvantages { get; init; } = true;

    [Description("Weight of the language-modelling loss on demonstrations (PPO-ptx); 0 turns it off.")]
    [Range(0.0, 1000.0)]
    public double PtxCoefficient { get; init; }
}

/// <summary>REINFORCE leave-one-out (Ahmadian 2024).</summary>
public sealed record RlooSpec : OnlineSpec
{
    [Description("Answers to each prompt of an iteration; must divide episodes.")]
    [Range(2, 1024)]
    public int GroupSize { get; init; } = 4;

    [Description("Beta of the KL penalty in the reward of an answer.")]
    [Range(0.0, 100.0)]
    public double KlCoefficient { get; init; } = 0.05;
}

/// <summary>Group-relative policy optimisation (Shao 2024).</summary>
public sealed record GrpoSpec : OnlineSpec
{
    [Description("Answers to each prompt of an iteration; must divide episodes.")]
    [Range(2, 1024)]
    public int GroupSize { get; init; } = 8;

    [Description("Beta of the KL term in the loss (k3); 0 turns it off.")]
    [Range(0.0, 100.0)]
    public double KlCoefficient { get; init; } = 0.04;

    [Description("Divide advantages by the standard deviation of their group; without it questions of every difficulty weigh the same (Dr. GRPO).")]
    public bool ScaleAdvantages { get; init; } = true;

    [Description("How the losses of tokens become one.")]
    public TokenAggregation Aggregation { get; init; } = TokenAggregation.SequenceMean;
}

/// <summary>How per-token policy losses become one number.</summary>
public enum TokenAggregation
{
    [Description("Sum over tokens / number of tokens of the whole batch (PPO, DAPO).")]
    TokenMean,

    [Description("Mean over answers of each one's token mean (GRPO as published).")]
    SequenceMean,

    [Description("Sum over tokens / (answers × maxNewTokens), free of any length bias (Dr. GRPO).")]
    FixedLength,
}

/// <summary>Direct preference optimisation (Rafailov 2023) on all pairs of each prompt.</summary>
public sealed record DpoSpec : OptimizationSpec
{
    /// <summary>A tenth of the other stages' rate: DPO moves a finished model.</summary>
    public DpoSpec() => LearningRate = 1e-4;

    [Description("Passes over the preferences.")]
    [Range(1, 1000)]
    public int Epochs { get; init; } = 1;

    [Description("Prompts per step; all completions of a prompt are in one step.")]
    [Range(1, 65_536)]
    public int BatchSize { get; init; } = 16;

    [Description("Strength of the implied KL constraint; for ipo the regularisation, called tau there.")]
    [Range(0.0001, 100.0)]
    public double Beta { get; init; } = 0.1;

    [Description("The shape of the loss.")]
    public PreferenceLossKind Loss { get; init; } = PreferenceLossKind.Sigmoid;

    [Description("The probability that a label is wrong (conservative DPO); 0 with ipo.")]
    [Range(0.0, 0.499999)]
    public double LabelSmoothing { get; init; }

    [Description("Read at most this many preference rows.")]
    [Range(1, int.MaxValue)]
    public int? MaxRows { get; init; }

    [Description("Validation prompts answered at the end, for rewards and KL; as long and at the temperature as the evaluation's answers.")]
    [Range(0, 100_000)]
    public int ValidationPrompts { get; init; } = 128;
}

/// <summary>The shape of the preference loss.</summary>
public enum PreferenceLossKind
{
    [Description("-log sigmoid(beta × gap) (Rafailov 2023, equation 7).")]
    Sigmoid,

    [Description("(gap - 1 / (2 beta))², with log-probabilities averaged over tokens (Azar 2023, equation 17).")]
    Ipo,
}

/// <summary>How a rollout without an end token is scored.</summary>
public enum MissingEosMode
{
    None,
    Replace,
    Subtract,
}

/// <summary>The final evaluation.</summary>
public sealed record EvaluateSpec
{
    [Description("Evaluate at most this many prompts.")]
    [Range(1, 1_000_000)]
    public int MaxPrompts { get; init; } = 400;

    [Description("The longest answer in tokens.")]
    [Range(1, 131_072)]
    public int MaxNewTokens { get; init; } = 24;

    [Description("The temperature at which answers are sampled; greedy answers are reported beside them.")]
    [Range(0.01, 10.0)]
    public double Temperature { get; init; } = 0.7;

    [Description("Sizes of the best-of-n baselines.")]
    public IReadOnlyList<int> BestOf { get; init; } = [4, 16];

    [Description("Worked examples in the few-shot baseline's prompt.")]
    [Range(0, 64)]
    public int FewShot { get; init; } = 4;

    [Description("Train a second reward model for the win rate against SFT: each of the two learns from its half of the training preferences, split by prompt, and the policy is trained against the first.")]
    public bool HeldOutRewardModel { get; init; }

    [Description("Prompts shown in the report with the answers of base, SFT and the aligned model.")]
    [Range(0, 1000)]
    public int Samples { get; init; } = 12;
}

/// <summary>Quality gates between stages; a missing value turns a gate off.</summary>
public sealed record GateSpec
{
    [Description("At least this share of the SFT model's answers must end by themselves.")]
    [Range(0.0, 1.0)]
    public double? MinSftEosRate { get; init; }

    [Description("The least held-out accuracy of the reward model.")]
    [Range(0.0, 1.0)]
    public double? MinRewardAccuracy { get; init; }

    [Description("The least correlation of reward model and gold judge, where there is a judge.")]
    [Range(-1.0, 1.0)]
    public double? MinRewardGoldCorrelation { get; init; }
}

/// <summary>The rules by which the orchestrator stops an online method early.</summary>
public sealed record GuardSpec
{
    [Description("Stop when the KL from the SFT model passes this many nats per sequence.")]
    [Range(0.0, 100_000.0)]
    public double? MaxKl { get; init; }

    [Description("The validation metric watched for over-optimisation; the best slice's model is kept.")]
    public GuardMetric Metric { get; init; } = GuardMetric.None;

    [Description("Stop after so many slices without a new best.")]
    [Range(1, 1000)]
    public int Patience { get; init; } = 2;
}

/// <summary>What the over-optimisation guard looks at.</summary>
public enum GuardMetric
{
    None,

    [Description("The programmatic judge; only in the sample world.")]
    GoldReward,

    [Description("The reward model that the method trains against.")]
    ProxyReward,
}

/// <summary>Limits. Failures of different kinds have budgets of their own, so that evictions never use up the retries for errors.</summary>
public sealed record BudgetSpec
{
    [Description("Stop the run when all attempts together have used this many minutes of trainer time.")]
    [Range(0.1, 10_000_000.0)]
    public double? MaxTrainerMinutes { get; init; }

    [Description("Attempts of a stage that may end in an error of the trainer's own.")]
    [Range(0, 1000)]
    public int ErrorRetries { get; init; } = 2;

    [Description("Attempts of a stage that may run out of memory, beyond the halving of micro-batches within an attempt.")]
    [Range(0, 1000)]
    public int OutOfMemoryRetries { get; init; } = 1;

    [Description("Attempts of a stage that may find the trainer's disk full; each waits longer before the next than the one before.")]
    [Range(0, 1000)]
    public int DiskFullRetries { get; init; } = 5;

    [Description("Trainers a stage may lose (crash, eviction) without progress in between.")]
    [Range(0, 1000)]
    public int LostTrainers { get; init; } = 10;

    [Description("Trainers of a stage whose heart beats while their step stands still, without progress in between.")]
    [Range(0, 1000)]
    public int WedgedTrainers { get; init; } = 2;

    [Description("Times a job may wait in vain for a trainer.")]
    [Range(0, 1000)]
    public int StartTimeouts { get; init; } = 3;

    [Description("Damages a stage may recover from: corrupt checkpoints, lost or damaged job documents, a storage that went back in time.")]
    [Range(0, 1000)]
    public int CorruptCheckpoints { get; init; } = 3;

    [Description("The price of a trainer hour, for the cost in the report.")]
    [Range(0.0, 100_000.0)]
    public double PricePerTrainerHour { get; init; }
}

/// <summary>The promotion gate.</summary>
public sealed record PromotionSpec
{
    [Description("Promote only if the aligned model's reward is above SFT's by at least this much (gold where there is a judge, else proxy).")]
    [Range(-1000.0, 1000.0)]
    public double? MinRewardGain { get; init; }

    [Description("Wait for POST /api/runs/{id}/approval.")]
    public bool RequireApproval { get; init; }

    [Description("An approval that does not come in time counts as a no.")]
    [Range(0.001, 100_000.0)]
    public double ApprovalDeadlineHours { get; init; } = 72;
}
