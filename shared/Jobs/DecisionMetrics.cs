namespace Rlhf.Jobs;

/// <summary>The summary metrics (<see cref="JobResult.Metrics"/>) that the orchestrator takes decisions by; the trainer reports them under these names.</summary>
public static class DecisionMetrics
{
    /// <summary>SFT: the share of answers to validation prompts that end by themselves.</summary>
    public const string EosRate = "eos_rate";

    /// <summary>Reward model: accuracy on validation preferences.</summary>
    public const string RewardAccuracy = "val/accuracy";

    /// <summary>Reward model: correlation with the sample world's judge.</summary>
    public const string GoldCorrelation = "gold_correlation";

    /// <summary>Aligned model, after each slice: KL from the SFT model on validation prompts (k1, nats per sequence).</summary>
    public const string Kl = "kl";

    /// <summary>Aligned model: mean score of the reward model on validation prompts.</summary>
    public const string ProxyReward = "proxy_reward";

    /// <summary>Aligned model: mean score of the sample world's judge on validation prompts.</summary>
    public const string GoldReward = "gold_reward";

    /// <summary>Half the width of the 95% interval of a metric is reported under its name with this suffix.</summary>
    public const string Ci95 = "_ci95";
}

/// <summary>The names under which results carry what they made.</summary>
public static class ModelRoles
{
    public const string Base = "base";
    public const string Sft = "sft";
    public const string Reward = "reward";

    /// <summary>The models that the methods make, each by its stage's name.</summary>
    public const string Ppo = Stages.Ppo;
    public const string Dpo = Stages.Dpo;
    public const string Rloo = Stages.Rloo;
    public const string Grpo = Stages.Grpo;

    /// <summary>A second reward model, made of other preferences than the first, that judges what was trained against the first.</summary>
    public const string HeldOutReward = "held_out_reward";

    /// <summary>The role of a model's adapter, in PEFT's layout, where the stage trained one; the model itself has it merged.</summary>
    public static string Adapter(string role) => $"{role}_adapter";
}

/// <summary>The names of files among <see cref="JobResult.Artifacts"/> that the orchestrator reads.</summary>
public static class ArtifactNames
{
    /// <summary>The evaluate job's <c>EvaluationReport</c>.</summary>
    public const string Evaluation = "evaluation.json";
}
