using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;

namespace Rlhf.Trainer.Evaluation;

/// <summary>
/// The evaluation: base, base with worked examples, SFT, best-of-n and PPO answer the same prompts, sampled and greedy; held-out
/// demonstrations are read by each language model, held-out rankings by the reward model. A step is a chunk of rows taken by one model,
/// so that it can be stopped and resumed like training. Every model draws with the same random numbers: differences between models are not those of luck.
/// </summary>
internal sealed class EvaluationJob : ITrainingMethod
{
    private const int ChunkRows = 64;
    private const string ResultsPart = "results";

    private readonly EvaluateSpec spec;
    private readonly EvaluationData data;
    private readonly Func<LoadedModel, RowTokenizer> rowTokenizer;
    private readonly Func<string, LoadedModel> load;
    private readonly long seed;
    private readonly List<Func<IReadOnlyDictionary<string, double>>> steps = [];
    private readonly Dictionary<string, LoadedModel> loaded = [];
    private EvaluationResults results = new();
    private EvaluationReport? report;

    /// <summary>Plans the evaluation; models are loaded when their turn comes.</summary>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="roles">The models there are, by role; <c>sft</c> and <c>reward</c> must be.</param>
    /// <param name="data">What to evaluate on.</param>
    /// <param name="rowTokenizer">Makes the tokeniser of rows that goes with a model.</param>
    /// <param name="load">Loads the model of a role.</param>
    /// <param name="seed">The run's seed.</param>
    public EvaluationJob(
        EvaluateSpec spec, IReadOnlyCollection<string> roles, EvaluationData data,
        Func<LoadedModel, RowTokenizer> rowTokenizer, Func<string, LoadedModel> load, long seed)
    {
        this.spec = spec;
        this.data = data with
        {
            Prompts = [.. data.Prompts.Take(spec.MaxPrompts)],
            Examples = [.. data.Examples.Take(spec.FewShot)],
            // What the run held out of SFT; without any, the preferred completions of held-out rankings.
            Demonstrations =
                [.. (data.Demonstrations.Count > 0 ? data.Demonstrations : data.Preferences.Select(EvaluationData.Best)).Take(spec.MaxPrompts)],
        };
        this.rowTokenizer = rowTokenizer;
        this.load = load;
        this.seed = seed;
        foreach (AnswerSet set in Sets(roles))
        {
            for (int draw = 0; draw < set.Draws; draw++)
            {
                int ofDraw = draw;
                Plan(this.data.Prompts.Count, first => AnswerChunk(set, ofDraw, first));
            }
        }

        foreach (string role in LanguageModels(roles))
            Plan(this.data.Demonstrations.Count, first => LikelihoodChunk(role, first));
        Plan(this.data.Preferences.Count, ScoreChunk);
    }

    /// <inheritdoc/>
    public int Step { get; private set; }

    /// <inheritdoc/>
    public int TotalSteps => steps.Count;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, double> Advance()
    {
        using DisposeScope scope = torch.NewDisposeScope();
        IReadOnlyDictionary<string, double> metrics = steps[Step]();
        Step++;
        return metrics;
    }

    /// <inheritdoc/>
    public void Save(ICheckpointWriter checkpoint)
    {
        checkpoint.WriteState(ResultsPart, results);
        checkpoint.WriteState("state", new State(Step));
    }

    /// <inheritdoc/>
    public void Load(ICheckpointReader checkpoint)
    {
        results = checkpoint.ReadState<EvaluationResults>(ResultsPart);
        Step = checkpoint.ReadState<State>("state").Step;
    }

    /// <summary>The table's figures as <c>{model}/{metric}</c>, of a part of the data as <c>{model}/{metric}/{subset}</c>.</summary>
    public IReadOnlyDictionary<string, double> Summary() => Report().Table.ToDictionary(
        row => row.Subset is null ? $"{row.Model}/{row.Metric}" : $"{row.Model}/{row.Metric}/{row.Subset}", row => row.Value);

    /// <summary>The finished report; all steps must be done.</summary>
    public EvaluationReport Report()
    {
        if (Step < TotalSteps)
            throw new InvalidOperationException($"{TotalSteps - Step} chunks of the evaluation are still to be done.");
        return report ??= EvaluationTable.Build(spec, data, results);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (LoadedModel model in loaded.Values)
            model.Dispose();
    }

    private IEnumerable<AnswerSet> Sets(IReadOnlyCollection<string> roles)
    {
        if (roles.Contains(ModelRoles.Base))
        {
            yield return new AnswerSet("base", ModelRoles.Base);
            yield return new AnswerSet("base_greedy", ModelRoles.Base, Greedy: true);
            if (data.Examples.Count > 0)
            {
                yield return new AnswerSet("base_few_shot", ModelRoles.Base, FewShot: true);
                yield return new AnswerSet("base_few_shot_greedy", ModelRoles.Base, Greedy: true, FewShot: true);
            }
        }

        yield return new AnswerSet("sft", ModelRoles.Sft, Draws: Math.Max(1, spec.BestOf.DefaultIfEmpty(1).Max()));
        yield return new AnswerSet("sft_greedy", ModelRoles.Sft, Greedy: true);
        if (roles.Contains(ModelRoles.Ppo))
        {
            yield return new AnswerSet("ppo", ModelRoles.Ppo);
            yield return new AnswerSet("ppo_greedy", ModelRoles.Ppo, Greedy: true);
        }
    }

    private static IEnumerable<string> LanguageModels(IReadOnlyCollection<string> roles) => EvaluationTable.LanguageModels.Where(roles.Contains);

    /// <summary>Adds the steps that go through so many rows in chunks.</summary>
    private void Plan(int rows, Func<int, IReadOnlyDictionary<string, double>> chunk)
    {
        for (int first = 0; first < rows; first += ChunkRows)
        {
            int ofChunk = first;
            steps.Add(() => chunk(ofChunk));
        }
    }

    private Dictionary<string, double> AnswerChunk(AnswerSet set, int draw, int first)
    {
        // Sampled answers to the bare prompt: the few-shot model reads another prompt, and greedy answers are no sample.
        bool measuresKl = set is { Role: ModelRoles.Base or ModelRoles.Ppo, Greedy: false, FewShot: false };
        Require(measuresKl ? [set.Role, ModelRoles.Sft, ModelRoles.Reward] : [set.Role, ModelRoles.Reward]);
        LoadedModel model = loaded[set.Role], reward = loaded[ModelRoles.Reward];
        RowTokenizer rows = rowTokenizer(model);
        Row[] chosen = [.. data.Prompts.Skip(first).Take(ChunkRows)];
        int[][] asked = [.. chosen.Select(row => set.FewShot ? FewShotPrompt(row, model) : rows.Prompt(row.Prompt))];
        int[][] responses = Sampler.Generate(model.Model, asked, new SamplingOptions
        {
            MaxNewTokens = spec.MaxNewTokens,
            Temperature = set.Greedy ? 0 : spec.Temperature,
            Seed = Seeds.For(seed, Stages.Evaluate, draw, "answers"),
            RowIds = [.. Enumerable.Range(first, chosen.Length).Select(i => (long)i)],
            EosId = model.Tokenizer.EosId,
            PadId = model.Tokenizer.PadId,
            BatchSize = ChunkRows,
        });

        Episode[] episodes =
            [.. responses.Select((response, i) => new Episode(rows.Prompt(chosen[i].Prompt), response, rows.Ended(response)))];
        if (set.FewShot)
            episodes = [.. episodes.Select(episode => CutAtNextTurn(episode, model.Tokenizer, rows))];
        float[] scores = Rewards.Score(reward.Model, [.. episodes.Select(episode => episode.Sequence())], reward.Tokenizer.PadId);
        double[]? kl = measuresKl
            ? Episodes.Kl(model.Model, loaded[ModelRoles.Sft].Model, episodes, spec.Temperature, model.Tokenizer.PadId)
            : null;
        Of(results.Answers, set.Name).AddRange(episodes.Select((episode, i) =>
            new Answer(rows.Text(episode.Response), episode.Response.Length, episode.Ended, scores[i], kl?[i])));
        return new Dictionary<string, double>
        {
            ["answers"] = results.Answers.Values.Sum(list => list.Count),
            ["proxy_reward"] = scores.Average(),
            ["eos_rate"] = episodes.Average(episode => episode.Ended ? 1.0 : 0.0),
        };
    }

    private Dictionary<string, double> LikelihoodChunk(string role, int first)
    {
        Require([role]);
        LoadedModel model = loaded[role];
        RowTokenizer rows = rowTokenizer(model);
        CompletionLikelihood[] likelihoods = CompletionLikelihood.Measure(
            model.Model,
            [.. data.Demonstrations.Skip(first).Take(ChunkRows).Select(rows.Demonstration).Select(row => (row.Prompt, row.Completion))],
            model.Tokenizer.PadId);
        Of(results.Demonstrations, role).AddRange(likelihoods);
        return new Dictionary<string, double>
        {
            ["demonstrations"] = results.Demonstrations[role].Count,
            ["loss"] = -likelihoods.Sum(row => row.LogProb) / likelihoods.Sum(row => row.Tokens),
        };
    }

    private Dictionary<string, double> ScoreChunk(int first)
    {
        Require([ModelRoles.Reward]);
        LoadedModel reward = loaded[ModelRoles.Reward];
        RowTokenizer rows = rowTokenizer(reward);
        TokenizedPreference[] chosen = [.. data.Preferences.Skip(first).Take(ChunkRows).Select(rows.Preference)];
        float[][] scores = RewardModel.Score(reward.Model, chosen, reward.Tokenizer.PadId);
        results.Rewards.AddRange(scores);
        return new Dictionary<string, double>
        {
            ["preferences"] = results.Rewards.Count,
            ["accuracy"] = RankingAccuracy.Measure(chosen, scores).GetValueOrDefault("accuracy"),
        };
    }

    /// <summary>As many worked examples as the context holds beside the prompt and its answer, as turns of the same dialogue.</summary>
    private int[] FewShotPrompt(Row row, LoadedModel model)
    {
        RowTokenizer rows = rowTokenizer(model);
        int room = model.Config.MaxPositions - spec.MaxNewTokens;
        for (int count = data.Examples.Count; count > 0; count--)
        {
            IEnumerable<Turn> before = data.Examples.Take(count)
                .SelectMany(example => example.Prompt.Append(new Turn("assistant", example.Completions[0])));
            int[] ids = rows.WholePrompt([.. before, .. row.Prompt]);
            if (ids.Length <= room)
                return ids;
        }

        return rows.Prompt(row.Prompt);
    }

    /// <summary>A base model goes on with the next example instead of ending; what it writes up to there is its answer.</summary>
    private static Episode CutAtNextTurn(Episode episode, ITokenizer tokenizer, RowTokenizer rows)
    {
        string text = tokenizer.Decode(episode.Response);
        int end = ChatTemplate.NextTurn.Select(mark => text.IndexOf(mark, StringComparison.Ordinal))
            .Where(at => at >= 0).DefaultIfEmpty(-1).Min();
        return end < 0 ? episode : new Episode(episode.Prompt, rows.Completion(text[..end].Trim()), Ended: true);
    }

    /// <summary>Holds the models that a chunk needs, and no others: several large ones do not fit beside each other.</summary>
    private void Require(IReadOnlyList<string> roles)
    {
        foreach (string role in loaded.Keys.Except(roles).ToArray())
        {
            loaded[role].Dispose();
            loaded.Remove(role);
        }

        foreach (string role in roles.Except(loaded.Keys).ToArray())
            loaded[role] = load(role);
    }

    private static List<T> Of<T>(Dictionary<string, List<T>> lists, string name)
    {
        if (!lists.TryGetValue(name, out List<T>? list))
            lists[name] = list = [];
        return list;
    }

    private sealed record State(int Step);
}
