using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;

namespace Rlhf.Trainer.Evaluation;

/// <summary>
/// The evaluation: base, base with worked examples, SFT, best-of-n and the aligned model answer the same prompts, sampled and greedy. Each
/// language model reads held-out demonstrations and comparisons and answers the safety prompts; the reward model reads held-out rankings
/// and comparisons, beside a bag of words. A step is a chunk of rows taken by one model, so that it can be stopped and resumed like
/// training. Every model draws with the same random numbers: differences between models are not those of luck.
/// </summary>
internal sealed class EvaluationJob : ITrainingMethod
{
    private const int ChunkRows = 64;
    private const string ResultsPart = "results";

    private readonly EvaluateSpec spec;
    private readonly PreferenceMethod method;
    private readonly EvaluationData data;
    private readonly Func<LoadedModel, RowTokenizer> rowTokenizer;
    private readonly Func<string, LoadedModel> load;
    private readonly long seed;
    private readonly bool heldOutReward;
    private readonly List<Func<IReadOnlyDictionary<string, double>>> steps = [];
    private readonly Dictionary<string, LoadedModel> loaded = [];
    private EvaluationResults results = new();
    private EvaluationReport? report;

    /// <summary>Plans the evaluation; models are loaded when their turn comes.</summary>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="method">The method that aligned the model.</param>
    /// <param name="roles">The models there are, by role; <c>sft</c> must be.</param>
    /// <param name="data">What to evaluate on.</param>
    /// <param name="rowTokenizer">Makes the tokeniser of rows that goes with a model.</param>
    /// <param name="load">Loads the model of a role.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="rewards">Makes what scores the answers; its argument gives the reward model. Null is the reward model alone.</param>
    public EvaluationJob(
        EvaluateSpec spec, PreferenceMethod method, IReadOnlyCollection<string> roles, EvaluationData data,
        Func<LoadedModel, RowTokenizer> rowTokenizer, Func<string, LoadedModel> load, long seed,
        Func<Func<Transformer>, RewardFunction>? rewards = null)
    {
        Scoring = (rewards ?? RewardFunction.OfModel)(() => loaded[ModelRoles.Reward].Model);
        this.spec = spec;
        this.method = method;
        // Answers are sampled to be scored: without a reward model the likelihoods say what there is to say.
        bool scored = roles.Contains(ModelRoles.Reward);
        this.data = data with
        {
            Preferences = scored ? data.Preferences : [],
            UnseenLabellers = scored ? data.UnseenLabellers : [],
            Prompts = Evenly.Take(data.Prompts, spec.MaxPrompts),
            Examples = [.. data.Examples.Take(spec.FewShot)],
            // What the run held out of SFT; without any, the preferred completions of held-out rankings.
            Demonstrations = data.Demonstrations.Count > 0
                ? Evenly.Take(data.Demonstrations, spec.MaxPrompts)
                : [.. Evenly.Take(data.Preferences, spec.MaxPrompts).Select(EvaluationData.Best)],
        };
        this.rowTokenizer = rowTokenizer;
        this.load = load;
        this.seed = seed;
        heldOutReward = roles.Contains(ModelRoles.HeldOutReward);
        foreach (AnswerSet set in scored ? Sets(roles) : [])
        {
            for (int draw = 0; draw < set.Draws; draw++)
            {
                int ofDraw = draw;
                Plan(this.data.Prompts.Count, first => AnswerChunk(set, ofDraw, first));
            }
        }

        foreach (string role in EvaluationTable.LanguageModels(method).Where(roles.Contains))
        {
            Plan(this.data.Demonstrations.Count, first => DemonstrationChunk(role, first));
            Plan(this.data.Comparisons.Count, first => ComparisonChunk(role, first));
            Plan(this.data.Safety.Count, first => SafetyChunk(role, first));
        }

        if (!scored)
            return;
        Plan(this.data.Preferences.Count, first => ScoreChunk("preferences", this.data.Preferences, first, found => found.Rewards));
        Plan(this.data.UnseenLabellers.Count, first => ScoreChunk("unseen_labellers", this.data.UnseenLabellers, first, found => found.UnseenLabellers));
        Plan(this.data.Comparisons.Count, first => ScoreChunk("comparisons", this.data.Comparisons, first, found => found.Comparisons));
        if (this.data.Preferences.Count > 0 && this.data.TrainingPreferences.Count > 0)
            steps.Add(BagsOfWords);
    }

    /// <summary>What scores the answers: the proxy reward.</summary>
    public RewardFunction Scoring { get; }

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
        return report ??= EvaluationTable.Build(spec, method, data, results);
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
        string aligned = Stages.Of(method);
        if (roles.Contains(aligned))
        {
            yield return new AnswerSet(aligned, aligned);
            yield return new AnswerSet($"{aligned}_greedy", aligned, Greedy: true);
        }
    }

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
        bool measuresKl = set is { Role: not ModelRoles.Sft, Greedy: false, FewShot: false };
        bool playsForWins = heldOutReward && draw == 0 && set is { Role: not ModelRoles.Base, Greedy: false };
        Require(
        [
            set.Role, ModelRoles.Reward, .. measuresKl ? [ModelRoles.Sft] : Array.Empty<string>(),
            .. playsForWins ? [ModelRoles.HeldOutReward] : Array.Empty<string>(),
        ]);
        LoadedModel model = loaded[set.Role], reward = loaded[ModelRoles.Reward];
        RowTokenizer rows = rowTokenizer(model);
        Row[] chosen = [.. data.Prompts.Skip(first).Take(ChunkRows)];
        int[][] asked = [.. chosen.Select(row => set.FewShot ? FewShotPrompt(row, model) : rows.Prompt(row.Prompt))];
        int[][] responses = Generate(model, asked, set.Greedy ? 0 : spec.Temperature, draw, first);

        Episode[] episodes =
            [
                .. responses.Select((response, i) => new Episode(rows.Prompt(chosen[i].Prompt), response, rows.Ended(response))
                {
                    Reference = chosen[i].Reference,
                }),
            ];
        if (set.FewShot)
            episodes = [.. episodes.Select(episode => CutAtNextTurn(episode, model.Tokenizer, rows))];
        int[][] sequences = [.. episodes.Select(episode => episode.Sequence())];
        float[] scores =
            Scoring.Score(new AnswerBatch(episodes, model.Tokenizer, $"{Stages.Evaluate}/{set.Name}/{draw}/{first}")).Totals;
        float[]? heldOut = playsForWins
            ? Rewards.Score(loaded[ModelRoles.HeldOutReward].Model, sequences, reward.Tokenizer.PadId)
            : null;
        double[]? kl = measuresKl
            ? Episodes.Kl(model.Model, loaded[ModelRoles.Sft].Model, episodes, spec.Temperature, model.Tokenizer.PadId)
            : null;
        Of(results.Answers, set.Name).AddRange(episodes.Select((episode, i) =>
            new Answer(rows.Text(episode.Response), episode.Response.Length, episode.Ended, scores[i], kl?[i], heldOut?[i])));
        return new Dictionary<string, double>
        {
            ["answers"] = results.Answers.Values.Sum(list => list.Count),
            ["proxy_reward"] = scores.Average(),
            ["eos_rate"] = episodes.Average(episode => episode.Ended ? 1.0 : 0.0),
        };
    }

    private int[][] Generate(LoadedModel model, int[][] prompts, double temperature, int draw, int first) =>
        Sampler.Generate(model.Model, prompts, new SamplingOptions
        {
            MaxNewTokens = spec.MaxNewTokens,
            Temperature = temperature,
            Seed = Seeds.For(seed, Stages.Evaluate, draw, "answers"),
            RowIds = [.. Enumerable.Range(first, prompts.Length).Select(i => (long)i)],
            EosId = model.Tokenizer.EosId,
            PadId = model.Tokenizer.PadId,
            BatchSize = ChunkRows,
        });

    private Dictionary<string, double> DemonstrationChunk(string role, int first)
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

    private Dictionary<string, double> ComparisonChunk(string role, int first)
    {
        Require([role]);
        LoadedModel model = loaded[role];
        RowTokenizer rows = rowTokenizer(model);
        TokenizedPreference[] chosen = [.. data.Comparisons.Skip(first).Take(ChunkRows).Select(rows.Preference)];
        CompletionLikelihood[] flat = CompletionLikelihood.Measure(
            model.Model, [.. chosen.SelectMany(row => row.Completions.Select(completion => (row.Prompt, completion)))], model.Tokenizer.PadId);
        int next = 0;
        Of(results.ComparisonLikelihoods, role).AddRange(chosen.Select(row => row.Completions.Select(_ => flat[next++]).ToArray()));
        return new Dictionary<string, double> { ["comparisons"] = results.ComparisonLikelihoods[role].Count };
    }

    private Dictionary<string, double> SafetyChunk(string role, int first)
    {
        Require([role]);
        LoadedModel model = loaded[role];
        RowTokenizer rows = rowTokenizer(model);
        int[][] asked = [.. data.Safety.Skip(first).Take(ChunkRows).Select(row => rows.Prompt(row.Prompt))];
        string[] texts = [.. Generate(model, asked, temperature: 0, draw: 0, first).Select(response => rows.Text(response))];
        Of(results.SafetyAnswers, role).AddRange(texts);
        return new Dictionary<string, double>
        {
            ["answers"] = results.SafetyAnswers[role].Count,
            ["full_refusal"] = texts.Average(text => Refusals.IsFullRefusal(text) ? 1.0 : 0.0),
        };
    }

    private Dictionary<string, double> ScoreChunk(string name, IReadOnlyList<Row> ranked, int first, Func<EvaluationResults, List<float[]>> place)
    {
        List<float[]> made = place(results);
        Require([ModelRoles.Reward]);
        LoadedModel reward = loaded[ModelRoles.Reward];
        RowTokenizer rows = rowTokenizer(reward);
        TokenizedPreference[] chosen = [.. ranked.Skip(first).Take(ChunkRows).Select(rows.Preference)];
        float[][] scores = RewardModel.Score(reward.Model, chosen, reward.Tokenizer.PadId);
        made.AddRange(scores);
        return new Dictionary<string, double>
        {
            [name] = made.Count,
            ["accuracy"] = RankingAccuracy.Measure(chosen, scores).GetValueOrDefault("accuracy"),
        };
    }

    /// <summary>The baselines learn in one step: it takes seconds.</summary>
    private Dictionary<string, double> BagsOfWords()
    {
        BagOfWords bag = BagOfWords.Train(data.TrainingPreferences, data.ValidationPreferences);
        results.BagOfWords.AddRange(data.Preferences.Select(bag.Score));
        if (data.Preferences.Select(row => row.Subset).Distinct(StringComparer.Ordinal).Count() > 1)
        {
            Dictionary<string, BagOfWords> bags = data.Preferences.Select(row => row.Subset).Distinct(StringComparer.Ordinal).ToDictionary(
                subset => subset,
                subset => BagOfWords.Train(
                    [.. data.TrainingPreferences.Where(row => row.Subset == subset)],
                    [.. data.ValidationPreferences.Where(row => row.Subset == subset)]),
                StringComparer.Ordinal);
            results.BagOfWordsBySubset.AddRange(data.Preferences.Select(row => bags[row.Subset].Score(row)));
        }

        return new Dictionary<string, double> { ["words"] = bag.Words, ["penalty"] = bag.Penalty };
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
        return end < 0 ? episode : episode with { Response = rows.Completion(text[..end].Trim()), Ended = true };
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
