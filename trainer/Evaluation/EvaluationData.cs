using Rlhf.Rows;

namespace Rlhf.Trainer.Evaluation;

/// <summary>The data sets of an evaluation. All but the prompts may be empty: the figures that rest on them are then left out.</summary>
internal sealed record EvaluationData
{
    /// <summary>[P] prompts that no stage has seen.</summary>
    public required IReadOnlyList<Row> Prompts { get; init; }

    /// <summary>Worked examples for the few-shot baseline.</summary>
    public IReadOnlyList<Row> Examples { get; init; } = [];

    /// <summary>Held-out rankings.</summary>
    public IReadOnlyList<Row> Preferences { get; init; } = [];

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

    /// <summary>By role the likelihood of each held-out demonstration.</summary>
    public Dictionary<string, List<CompletionLikelihood>> Demonstrations { get; init; } = [];
}
