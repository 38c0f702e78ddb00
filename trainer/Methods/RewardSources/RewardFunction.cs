using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Methods.RewardSources;

/// <summary>The scores of a batch of answers.</summary>
/// <param name="Totals">The weighted sum, one per answer.</param>
/// <param name="Metrics">The mean of each source before its weight, as <c>objective/reward/{name}</c>; empty where the spec names no
/// source.</param>
public sealed record RewardScores(float[] Totals, IReadOnlyDictionary<string, double> Metrics);

/// <summary>What training and evaluation take for the reward of an answer: the weighted sum of the spec's sources.</summary>
public sealed class RewardFunction : IDisposable
{
    private readonly IReadOnlyList<Term> terms;

    private RewardFunction(IReadOnlyList<Term> terms) => this.terms = terms;

    /// <summary>Ends a wait for an endpoint. Whoever runs the steps sets it for each attempt.</summary>
    public CancellationToken Interruption { get; set; }

    /// <summary>The reward model alone, as where the spec names no source.</summary>
    /// <param name="model">Gives the reward model; it stays the caller's.</param>
    public static RewardFunction OfModel(Func<Transformer> model) => new([new Term(null, 1, new ModelReward(model))]);

    /// <summary>The given function, or where there is none the reward model alone.</summary>
    /// <exception cref="ArgumentException">There is neither.</exception>
    public static RewardFunction OrModel(RewardFunction? rewards, Transformer? model) => rewards
        ?? (model is null
            ? throw new ArgumentException("Neither a reward model nor another reward scores the responses.", nameof(model))
            : OfModel(() => model));

    /// <summary>The sources that a spec names.</summary>
    /// <param name="sources">From <see cref="RunSpec.Rewards"/>; where there are none, the reward model alone scores.</param>
    /// <param name="model">Gives the reward model, where a source asks for it; it stays the caller's.</param>
    /// <param name="runId">The run, for the names of requests to endpoints.</param>
    /// <param name="environment">Reads an environment variable of the trainer, for the secrets of endpoints.</param>
    /// <exception cref="JobInputException">An environment variable that a source names is not set.</exception>
    public static RewardFunction Create(
        IReadOnlyList<RewardSourceSpec> sources, Func<Transformer> model, string runId, Func<string, string?> environment) =>
        sources.Count == 0
            ? OfModel(model)
            : new([.. sources.Select(source => new Term(source.MetricName(), source.Weight, Source(source, model, runId, environment)))]);

    /// <summary>Scores a batch with every source and adds up.</summary>
    /// <exception cref="OperationCanceledException"><see cref="Interruption"/> came while an endpoint was waited for.</exception>
    public RewardScores Score(AnswerBatch answers)
    {
        double[] totals = new double[answers.Episodes.Count];
        Dictionary<string, double> metrics = [];
        foreach (Term term in terms)
        {
            float[] scores = term.Source.Score(answers, Interruption);
            for (int i = 0; i < totals.Length; i++)
                totals[i] += term.Weight * scores[i];
            if (term.Name is not null)
                metrics[$"objective/reward/{term.Name}"] = scores.Average(score => (double)score);
        }

        return new RewardScores([.. totals.Select(total => (float)total)], metrics);
    }

    public void Dispose()
    {
        foreach (Term term in terms)
            term.Source.Dispose();
    }

    private static IRewardSource Source(
        RewardSourceSpec spec, Func<Transformer> model, string runId, Func<string, string?> environment) => spec.Source switch
        {
            RewardSourceKind.Model => new ModelReward(model),
            RewardSourceKind.Regex => new RegexReward(spec.Pattern!),
            RewardSourceKind.Length => new LengthReward(spec),
            RewardSourceKind.ExactMatch => new ExactMatchReward(spec.IgnoreCase ?? false),
            RewardSourceKind.Http => HttpReward.Create(spec, runId, environment),
            _ => throw new JobInputException($"This trainer knows no reward source '{spec.Source}'.", "Take a trainer of the run's version."),
        };

    private sealed record Term(string? Name, double Weight, IRewardSource Source);
}
