using Rlhf.Rows;

namespace Rlhf.Trainer.Evaluation;

/// <summary>The data sets of an evaluation. All but the prompts may be empty: the figures that rest on them are then left out.</summary>
internal sealed record EvaluationData
{
    /// <summary>[P] prompts that no stage has seen.</summary>
    public required IReadOnlyList<Row> Prompts { get; init; }

    /// <summary>Worked examples for the few-shot baseline.</summary>
    public IReadOnlyList<Row> Examples { get; init; } = [];

    /// <summary>[R] held-out rankings.</summary>
    public IReadOnlyList<Row> Preferences { get; init; } = [];

    /// <summary>Rankings that the reward model has learnt from, for the bag-of-words baseline to learn from too.</summary>
    public IReadOnlyList<Row> TrainingPreferences { get; init; } = [];

    /// <summary>Rankings that the baseline's penalty is chosen by.</summary>
    public IReadOnlyList<Row> ValidationPreferences { get; init; } = [];

    /// <summary>[U] rankings by labellers of whom the reward model has seen none.</summary>
    public IReadOnlyList<Row> UnseenLabellers { get; init; } = [];

    /// <summary>[C] comparisons with known better answers.</summary>
    public IReadOnlyList<Row> Comparisons { get; init; } = [];

    /// <summary>[S] prompts labelled safe or unsafe.</summary>
    public IReadOnlyList<Row> Safety { get; init; } = [];

    /// <summary>Held-out demonstrations.</summary>
    public IReadOnlyList<Row> Demonstrations { get; init; } = [];

    /// <summary>A ranked row's best completion as a demonstration; of several that are best the first.</summary>
    public static Row Best(Row ranked) => ranked with
    {
        Completions = [ranked.Completions[Enumerable.Range(0, ranked.Ranks!.Count).MinBy(i => ranked.Ranks[i])]],
        Ranks = null,
    };
}

/// <summary>What the steps of an evaluation have found so far; its checkpoint. Lists run parallel to the data sets.</summary>
internal sealed record EvaluationResults
{
    /// <summary>By <see cref="AnswerSet"/> the answers [draws × P], one draw after the other.</summary>
    public Dictionary<string, List<Answer>> Answers { get; init; } = [];

    /// <summary>[R][K] the reward model's scores of the held-out rankings' completions.</summary>
    public List<float[]> Rewards { get; init; } = [];

    /// <summary>[R][K] those of the bag-of-words model that learnt from the same rankings as the reward model.</summary>
    public List<float[]> BagOfWords { get; init; } = [];

    /// <summary>[R][K] those of bag-of-words models of their own for each subset; empty where there are no subsets.</summary>
    public List<float[]> BagOfWordsBySubset { get; init; } = [];

    /// <summary>[U][K] the reward model's scores of the unseen labellers' completions.</summary>
    public List<float[]> UnseenLabellers { get; init; } = [];

    /// <summary>[C][K] the reward model's scores of the comparisons' answers.</summary>
    public List<float[]> Comparisons { get; init; } = [];

    /// <summary>By role [C][K] the likelihoods of the comparisons' answers.</summary>
    public Dictionary<string, List<CompletionLikelihood[]>> ComparisonLikelihoods { get; init; } = [];

    /// <summary>By role [S] the greedy answers to the safety prompts.</summary>
    public Dictionary<string, List<string>> SafetyAnswers { get; init; } = [];

    /// <summary>By role the likelihood of each held-out demonstration.</summary>
    public Dictionary<string, List<CompletionLikelihood>> Demonstrations { get; init; } = [];
}
