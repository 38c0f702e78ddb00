namespace Rlhf.World;

/// <summary>A prompt with the answer an imperfect writer gave.</summary>
public sealed record DemonstrationRow(string Prompt, string Completion, string Cluster, string Template, Truth Truth);

/// <summary>A prompt with K answers and the ranks (1 = best) that one labeller gave them.</summary>
public sealed record RankedRow(
    string Prompt, IReadOnlyList<string> Completions, IReadOnlyList<int> Ranks, string Labeller, string Cluster, string Template, Truth Truth);

/// <summary>A prompt alone. Training never reads <paramref name="Truth"/>; the judge does.</summary>
public sealed record PromptRow(string Prompt, string Cluster, string Template, Truth Truth);

/// <summary>
/// The sample world: a small closed world of things, people, deeds and words, asked about in FLAN's manner (clusters of tasks, several templates each,
/// one cluster held out), with a programmatic truth for every prompt. Every data set is a pure function of the options, and a longer one starts
/// with the rows of a shorter one.
/// </summary>
public sealed class SampleWorld
{
    /// <summary>The cluster that no training data set holds.</summary>
    public const string HeldOutCluster = Clusters.HeldOut;

    /// <summary>One prompt in this many is kept for evaluation, and one made-up name; of the held-out cluster, one in two.</summary>
    private const ulong EvaluationShare = 6, HeldOutShare = 2;

    /// <summary>Prompts whose candidate answers set the labellers' common scale.</summary>
    private const int CalibrationPrompts = 400;

    /// <summary>Answers written in search of K different ones.</summary>
    private const int AttemptsPerSet = 500;

    private readonly Lazy<Labellers> labellers;

    private SampleWorld(WorldOptions options)
    {
        Options = options;
        labellers = new(() => Labellers.Fit(
            options.Seed, options.Labellers, options.LabellerAgreement,
            [.. CandidateSets("calibration", CalibrationPrompts).Select(set => set.Gold)]));
    }

    public WorldOptions Options { get; }

    /// <exception cref="ArgumentException">An option is out of its range.</exception>
    public static SampleWorld Create(WorldOptions options)
    {
        options.Validate();
        return new SampleWorld(options);
    }

    /// <summary>Documents of plain text for the base model.</summary>
    public IEnumerable<string> PretrainText() =>
        Enumerable.Range(0, Options.PretrainDocuments).Select(i => World.PretrainText.Document(WorldRandom.For(Options.Seed, "pretrain", i)));

    /// <summary>What SFT imitates.</summary>
    public IEnumerable<DemonstrationRow> Demonstrations() =>
        Questions(Options.Seed, "demonstrations", Options.Demonstrations, forEvaluation: false).Select((q, i) =>
            new DemonstrationRow(q.Prompt, Write(q, "demonstrations.answer", i), q.Cluster, q.Template, q.Truth));

    /// <summary>What the reward model learns from: rankings by every labeller but the last.</summary>
    public IEnumerable<RankedRow> Preferences() => Rankings("preferences", Options.PreferencePrompts, 0, Options.Labellers - 1);

    /// <summary>Rankings by the labeller whom <see cref="Preferences"/> leaves out, on prompts of their own.</summary>
    public IEnumerable<RankedRow> UnseenLabellerPreferences() => Rankings("unseen", Options.UnseenLabellerPrompts, Options.Labellers - 1, 1);

    /// <summary>What PPO answers.</summary>
    public IEnumerable<PromptRow> Prompts() => Questions(Options.Seed, "prompts", Options.Prompts, forEvaluation: false).Select(Row);

    /// <summary>Prompts that no training data set of any seed holds, then those of the held-out cluster.</summary>
    public IEnumerable<PromptRow> Evaluation() =>
        Questions(Options.EvaluationSeed, "evaluation", Options.EvaluationPrompts, forEvaluation: true)
            .Concat(Questions(Options.EvaluationSeed, "held_out", Options.HeldOutPrompts, forEvaluation: true, Clusters.Unseen.Ask))
            .Select(Row);

    /// <summary>Good examples for prompting the base model: four answers, one "I do not know", one refusal.</summary>
    public IReadOnlyList<DemonstrationRow> FewShotExemplars()
    {
        var chosen = new List<Question>();
        foreach (Question question in Questions(Options.Seed, "exemplars", 400, forEvaluation: false))
        {
            Demand demand = question.Truth.Demand;
            int wanted = demand == Demand.Answer ? 4 : 1;
            if (chosen.Count(q => q.Truth.Demand == demand) < wanted && chosen.All(q => q.Cluster != question.Cluster || demand != Demand.Answer))
                chosen.Add(question);
        }
        return [.. chosen.Select((q, i) => new DemonstrationRow(
            q.Prompt, Writer.Write(q, WriterErrors.None, WorldRandom.For(Options.Seed, "exemplars.answer", i)), q.Cluster, q.Template, q.Truth))];
    }

    /// <summary>What the data sets really are: agreement, ceiling, quality of the writer.</summary>
    public WorldStatistics Statistics()
    {
        Labellers all = labellers.Value;
        double agree = 0, ceiling = 0, ties = 0, gold = 0;
        int pairs = 0, answers = 0;
        foreach ((int index, CandidateSet set) in CandidateSets("preferences", Options.PreferencePrompts).Index())
        {
            var random = WorldRandom.For(Options.Seed, "statistics", index);
            int[] two = random.PickSome([.. Enumerable.Range(0, all.Count)], 2);
            int[] first = all.Rank(two[0], set.Answers, set.Gold, random), second = all.Rank(two[1], set.Answers, set.Gold, random);
            foreach ((int i, int j) in Labellers.Pairs(set.Answers.Count))
            {
                double p = all.Prefers(two[0], set.Answers[i], set.Gold[i], set.Answers[j], set.Gold[j]);
                bool tie = set.Gold[i] == set.Gold[j];
                agree += (first[i] < first[j]) == (second[i] < second[j]) ? 1 : 0;
                ceiling += tie ? .5 : set.Gold[i] > set.Gold[j] ? p : 1 - p;
                ties += tie ? 1 : 0;
                pairs++;
            }
            gold += set.Gold.Sum();
            answers += set.Gold.Length;
        }
        return new WorldStatistics(pairs, agree / pairs, ceiling / pairs, ties / pairs, gold / answers, all.Scale);
    }

    internal static bool IsForEvaluation(Question question) =>
        WorldRandom.Hash(question.MadeUpName ?? question.Prompt) % (question.Cluster == Clusters.HeldOut ? HeldOutShare : EvaluationShare) == 0;

    private static PromptRow Row(Question q) => new(q.Prompt, q.Cluster, q.Template, q.Truth);

    private string Write(Question question, string stream, int index) =>
        Writer.Write(question, Options.Writer, WorldRandom.For(Options.Seed, stream, index));

    private IEnumerable<RankedRow> Rankings(string stream, int count, int firstLabeller, int labellerCount) =>
        CandidateSets(stream, count).Select((set, i) =>
        {
            var random = WorldRandom.For(Options.Seed, $"{stream}.rank", i);
            int labeller = firstLabeller + random.Below(labellerCount);
            int[] ranks = labellers.Value.Rank(labeller, set.Answers, set.Gold, random);
            return new RankedRow(set.Question.Prompt, set.Answers, ranks, $"labeller-{labeller + 1}", set.Question.Cluster, set.Question.Template, set.Question.Truth);
        });

    private sealed record CandidateSet(Question Question, IReadOnlyList<string> Answers, double[] Gold);

    /// <summary>Prompts with K different answers each, as the imperfect writer gives them.</summary>
    private IEnumerable<CandidateSet> CandidateSets(string stream, int count) =>
        Questions(Options.Seed, stream, count, forEvaluation: false).Select((question, index) =>
        {
            var answers = new List<string>();
            for (int attempt = 0; answers.Count < Options.CompletionsPerPrompt; attempt++)
            {
                if (attempt == AttemptsPerSet)
                {
                    throw new InvalidOperationException(
                        $"The sample world's writer gives only {answers.Count} different answers to \"{question.Prompt}\", not {Options.CompletionsPerPrompt}. "
                        + "Raise its error rates or lower completionsPerPrompt.");
                }
                string answer = Write(question, $"{stream}.answer.{attempt}", index);
                if (!answers.Contains(answer))
                    answers.Add(answer);
            }
            return new CandidateSet(question, answers, [.. answers.Select(a => Judge.Score(question.Truth, a, ended: true).Total)]);
        });

    /// <summary>The first <paramref name="count"/> questions with different prompts from one side of the split.</summary>
    private static IEnumerable<Question> Questions(
        ulong seed, string stream, int count, bool forEvaluation, Func<WorldRandom, Question>? ask = null)
    {
        ask ??= Clusters.Draw;
        var seen = new HashSet<string>(StringComparer.Ordinal);
        for (int i = 0; seen.Count < count; i++)
        {
            if (i > 1000 + 200L * count)
                throw new InvalidOperationException($"The sample world has no {count} different prompts for '{stream}', only {seen.Count}. Ask for fewer.");
            Question question = ask(WorldRandom.For(seed, stream, i));
            if (IsForEvaluation(question) == forEvaluation && seen.Add(question.Prompt))
                yield return question;
        }
    }
}
