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
/// The evaluation: base, base with worked examples, SFT, best-of-n and PPO answer the same prompts, sampled and greedy, and the reward
/// model is read on held-out rankings. A step is a chunk of prompts answered by one model, so that it can be stopped and resumed like
/// training. Every model draws with the same random numbers: differences between models are not those of luck.
/// </summary>
internal sealed class EvaluationJob : ITrainingMethod
{
    private const int ChunkRows = 64;
    private const string AnswersPart = "answers";
    private const string RewardsPart = "rewards";

    private readonly EvaluateSpec spec;
    private readonly IReadOnlyList<Row> prompts;
    private readonly IReadOnlyList<Row> examples;
    private readonly IReadOnlyList<Row> preferences;
    private readonly Func<LoadedModel, RowTokenizer> rowTokenizer;
    private readonly Func<string, LoadedModel> load;
    private readonly long seed;
    private readonly List<(AnswerSet Set, int Draw, int First)> chunks = [];
    private readonly Dictionary<string, LoadedModel> loaded = [];
    private SortedDictionary<string, List<Answer>> answers = new(StringComparer.Ordinal);
    private List<float[]> rewards = [];
    private EvaluationReport? report;

    /// <summary>Plans the evaluation; models are loaded when their turn comes.</summary>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="roles">The models there are, by role; <c>sft</c> and <c>reward</c> must be.</param>
    /// <param name="prompts">Prompts that no stage has seen.</param>
    /// <param name="examples">Worked examples for the few-shot baseline.</param>
    /// <param name="preferences">Held-out rankings.</param>
    /// <param name="rowTokenizer">Makes the tokeniser of rows that goes with a model.</param>
    /// <param name="load">Loads the model of a role.</param>
    /// <param name="seed">The run's seed.</param>
    public EvaluationJob(
        EvaluateSpec spec, IReadOnlyCollection<string> roles,
        IReadOnlyList<Row> prompts, IReadOnlyList<Row> examples, IReadOnlyList<Row> preferences,
        Func<LoadedModel, RowTokenizer> rowTokenizer, Func<string, LoadedModel> load, long seed)
    {
        this.spec = spec;
        this.prompts = [.. prompts.Take(spec.MaxPrompts)];
        this.examples = [.. examples.Take(spec.FewShot)];
        this.preferences = preferences;
        this.rowTokenizer = rowTokenizer;
        this.load = load;
        this.seed = seed;
        foreach (AnswerSet set in Sets(roles))
        {
            for (int draw = 0; draw < set.Draws; draw++)
            {
                for (int first = 0; first < this.prompts.Count; first += ChunkRows)
                    chunks.Add((set, draw, first));
            }
        }
    }

    /// <inheritdoc/>
    public int Step { get; private set; }

    /// <inheritdoc/>
    public int TotalSteps => chunks.Count + (preferences.Count + ChunkRows - 1) / ChunkRows;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, double> Advance()
    {
        using DisposeScope scope = torch.NewDisposeScope();
        IReadOnlyDictionary<string, double> metrics = Step < chunks.Count
            ? AnswerChunk(chunks[Step])
            : ScoreChunk((Step - chunks.Count) * ChunkRows);
        Step++;
        return metrics;
    }

    /// <inheritdoc/>
    public void Save(ICheckpointWriter checkpoint)
    {
        checkpoint.WriteState(AnswersPart, answers);
        checkpoint.WriteState(RewardsPart, rewards);
        checkpoint.WriteState("state", new State(Step));
    }

    /// <inheritdoc/>
    public void Load(ICheckpointReader checkpoint)
    {
        answers = new(checkpoint.ReadState<Dictionary<string, List<Answer>>>(AnswersPart), StringComparer.Ordinal);
        rewards = checkpoint.ReadState<List<float[]>>(RewardsPart);
        Step = checkpoint.ReadState<State>("state").Step;
    }

    /// <summary>The table's figures as <c>{model}/{metric}</c>.</summary>
    public IReadOnlyDictionary<string, double> Summary() =>
        Report().Table.ToDictionary(row => $"{row.Model}/{row.Metric}", row => row.Value);

    /// <summary>The finished report; all steps must be done.</summary>
    public EvaluationReport Report()
    {
        if (Step < TotalSteps)
            throw new InvalidOperationException($"{TotalSteps - Step} chunks of the evaluation are still to be done.");
        return report ??= EvaluationTable.Build(
            spec, prompts, answers.ToDictionary(set => set.Key, set => (IReadOnlyList<Answer>)set.Value), preferences, rewards);
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
            if (examples.Count > 0)
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

    private Dictionary<string, double> AnswerChunk((AnswerSet Set, int Draw, int First) chunk)
    {
        (AnswerSet set, int draw, int first) = chunk;
        // Sampled answers to the bare prompt: the few-shot model reads another prompt, and greedy answers are no sample.
        bool measuresKl = set is { Role: ModelRoles.Base or ModelRoles.Ppo, Greedy: false, FewShot: false };
        Require(measuresKl ? [set.Role, ModelRoles.Sft, ModelRoles.Reward] : [set.Role, ModelRoles.Reward]);
        LoadedModel model = loaded[set.Role], reward = loaded[ModelRoles.Reward];
        RowTokenizer rows = rowTokenizer(model);
        Row[] chosen = [.. prompts.Skip(first).Take(ChunkRows)];
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
        if (!answers.TryGetValue(set.Name, out List<Answer>? made))
            answers[set.Name] = made = [];
        made.AddRange(episodes.Select((episode, i) =>
            new Answer(rows.Text(episode.Response), episode.Response.Length, episode.Ended, scores[i], kl?[i])));
        return new Dictionary<string, double>
        {
            ["answers"] = answers.Values.Sum(list => list.Count),
            ["proxy_reward"] = scores.Average(),
            ["eos_rate"] = episodes.Average(episode => episode.Ended ? 1.0 : 0.0),
        };
    }

    private Dictionary<string, double> ScoreChunk(int first)
    {
        Require([ModelRoles.Reward]);
        LoadedModel reward = loaded[ModelRoles.Reward];
        RowTokenizer rows = rowTokenizer(reward);
        TokenizedPreference[] chosen = [.. preferences.Skip(first).Take(ChunkRows).Select(rows.Preference)];
        float[][] scores = RewardModel.Score(reward.Model, chosen, reward.Tokenizer.PadId);
        rewards.AddRange(scores);
        return new Dictionary<string, double>
        {
            ["preferences"] = rewards.Count,
            ["accuracy"] = RankingAccuracy.Measure(chosen, scores).GetValueOrDefault("accuracy"),
        };
    }

    /// <summary>As many worked examples as the context holds beside the prompt and its answer, as turns of the same dialogue.</summary>
    private int[] FewShotPrompt(Row row, LoadedModel model)
    {
        RowTokenizer rows = rowTokenizer(model);
        int room = model.Config.MaxPositions - spec.MaxNewTokens;
        for (int count = examples.Count; count > 0; count--)
        {
            IEnumerable<Turn> before = examples.Take(count)
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

    private sealed record State(int Step);
}
