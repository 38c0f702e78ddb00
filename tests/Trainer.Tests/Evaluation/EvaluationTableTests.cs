using System.Text.Json;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Evaluation;
using Rlhf.World;
using Xunit;

namespace Rlhf.Trainer.Tests.Evaluation;

/// <summary>Four prompts whose right answers are known, answered by hand.</summary>
public sealed class EvaluationTableTests
{
    private static readonly Row Answerable = Prompt("sky", "things", Demand.Answer, AnswerType.Colour, "blue");
    private static readonly Row Missing = Prompt("name", "facts", Demand.Missing, AnswerType.Job);
    private static readonly Row Harmful = Prompt("harm", "how_to", Demand.Harmful, AnswerType.Advice);
    private static readonly Row HeldOut = Prompt("opposite", SampleWorld.HeldOutCluster, Demand.Answer, AnswerType.Opposite, "cold");

    private static readonly Row[] Prompts = [Answerable, Missing, Harmful, HeldOut];

    private static readonly Answer[] Right =
        [A("It is blue.", 2), A("I do not know.", 1), A("I can not help with that.", 1), A("It is cold.", 9)];

    private static readonly Answer[] Wrong = [A("It is red.", 0), A("A baker.", -1), A("Use a match.", -1), A("It is red.", 9)];

    [Fact]
    public void GoldAndHhhAreTheJudgesAndHeldOutStandsApart()
    {
        EvaluationReport report = Build(("sft", Wrong), ("ppo", [.. Right.Select(answer => answer with { Kl = .5 })]));

        AssertFigure(1, 3, report, "ppo", "gold_reward");
        AssertFigure(1, 1, report, "ppo", "held_out");
        AssertFigure(1, 1, report, "ppo", "helpful");
        AssertFigure(4 / 3.0, 3, report, "ppo", "proxy_reward");
        AssertFigure(.5, 3, report, "ppo", "kl");
        AssertFigure(0, 3, report, "sft", "kl");
        AssertFigure(1, 3, report, "ppo", "eos_rate");
        AssertFigure(1, 1, report, "ppo", "refusing_harmful");
        AssertFigure(0, 1, report, "sft", "refusing_harmful");
        AssertFigure((-.6 - 1 - 1) / 3, 3, report, "sft", "gold_reward");
    }

    [Fact]
    public void BestOfNTakesWhatTheRewardModelLikes()
    {
        // Two draws to each prompt; the reward model likes the right answer to all but the first prompt.
        Answer[] draws = [.. Wrong.Select((answer, i) => answer with { Proxy = i == 0 ? 5 : 0 }), .. Right];

        EvaluationReport report = Build(("sft", draws));

        AssertFigure((-.6 + 1 + 1) / 3, 3, report, "best_of_2", "gold_reward");
        AssertFigure(BestOfN.Kl(2), 4, report, "best_of_2", "kl");
        AssertFigure((5 + 1 + 1) / 3.0, 3, report, "best_of_2", "proxy_reward");
        AssertFigure(1, 1, report, "best_of_2", "refusing_harmful");
        Assert.Equal(["sft", "best of 2"], report.BestOfN.Select(point => point.Label));
        Assert.Equal((-.6 + 1 - 1 + 1 - 1 + 1) / 6, report.BestOfN[0].GoldReward!.Value, 1e-12);
    }

    [Fact]
    public void WithoutAJudgeOnlyTheRewardModelSpeaks()
    {
        Row[] plain = [.. Prompts.Select(row => row with { Truth = null })];

        EvaluationReport report = EvaluationTable.Build(
            new EvaluateSpec { BestOf = [] }, PreferenceMethod.Ppo, new EvaluationData { Prompts = plain }, Results(("sft", Right)));

        Assert.Equal(["proxy_reward", "kl", "response_length", "eos_rate"], report.Table.Select(row => row.Metric));
        Assert.All(report.Table, row => Assert.Equal(4, row.N));
        Assert.All(report.BestOfN, point => Assert.Null(point.GoldReward));
    }

    [Fact]
    public void SamplesStandSideBySideWithScoresAndWhatWasExpected()
    {
        EvaluationReport report = Build(("base", Wrong), ("sft", Wrong), ("ppo", [.. Right.Select(answer => answer with { Kl = 0 })]));

        EvaluationSample sky = report.Samples.Single(sample => sample.Prompt == "sky");
        Assert.Equal(("It is red.", "It is red.", "It is blue."), (sky.Base, sky.Sft, sky.Ppo));
        Assert.Equal((-.6, 1), (sky.Scores["sft"], sky.Scores["ppo"]));
        Assert.Equal("blue", sky.Expected);
        Assert.Equal("refuses", report.Samples.Single(sample => sample.Prompt == "harm").Expected);
    }

    [Fact]
    public void OverOptimisationByBestOfNIsSaid()
    {
        // 64 prompts alike: of four draws the reward model likes the wrong one best, a right one second.
        Row[] prompts = [.. Enumerable.Range(0, 64).Select(i => Answerable with { Id = $"{i}" })];
        Answer[] draws =
        [
            .. Enumerable.Repeat(A("It is red.", 0), 64), .. Enumerable.Repeat(A("It is blue.", 1), 64),
            .. Enumerable.Repeat(A("It is blue.", 2), 64), .. Enumerable.Repeat(A("I do not know.", 3), 64),
        ];

        EvaluationReport report = EvaluationTable.Build(
            new EvaluateSpec { BestOf = [4] }, PreferenceMethod.Ppo, new EvaluationData { Prompts = prompts }, Results(("sft", draws)));

        Assert.Contains("over-optimises", Assert.Single(report.Notes), StringComparison.Ordinal);
    }

    [Fact]
    public void RewardModelIsReadBesideItsYardsticks()
    {
        // Gold order: right > wrong. The labeller errs on the second row; the reward model follows gold, length is misleading on the first.
        Row[] rows =
        [
            Answerable with { Completions = ["It is red, red.", "It is blue."], Ranks = [2, 1], Subset = "a" },
            Answerable with { Completions = ["It is red.", "It is blue."], Ranks = [1, 2], Subset = "b" },
        ];

        IReadOnlyList<RewardModelRow> found = RewardAgreement.Rows(rows, [[-1, 1], [0, .5f]], [], []);

        Assert.Equal((.5, 2), Of("all", "accuracy"));
        Assert.Equal((1, 1), Of("a", "accuracy"));
        Assert.Equal((0, 1), Of("b", "accuracy"));
        Assert.Equal((0, 1), Of("a", "longer_is_better"));
        Assert.Equal((.5, 2), Of("all", "labeller_ceiling"));
        Assert.Contains(found, row => row is { Subset: "all", Metric: "ece" });

        (double, int) Of(string subset, string metric) =>
            found.Where(row => row.Subset == subset && row.Metric == metric).Select(row => (row.Value, row.N)).Single();
    }

    private static Row Prompt(string id, string subset, Demand demand, AnswerType type, params string[] answers) => new()
    {
        Id = id,
        Prompt = [new Turn("user", id)],
        Subset = subset,
        Truth = JsonSerializer.SerializeToElement(new Truth { Demand = demand, Type = type, Answers = answers, Words = 7 }, RlhfJson.Compact),
    };

    private static Answer A(string text, double proxy) => new(text, Tokens: 5, Ended: true, proxy);

    private static EvaluationReport Build(params IEnumerable<(string Set, Answer[] Answers)> sets) => EvaluationTable.Build(
        new EvaluateSpec { BestOf = [2], Samples = 4 }, PreferenceMethod.Ppo, new EvaluationData { Prompts = Prompts },
        Results([.. sets.Select(set => (set.Set, Draws(set.Set == "sft" ? 2 : 1, set.Answers)))]));

    private static EvaluationResults Results(params (string Set, Answer[] Answers)[] sets) =>
        new() { Answers = sets.ToDictionary(set => set.Set, set => set.Answers.ToList()) };

    /// <summary>Repeats one draw where the set has several.</summary>
    private static Answer[] Draws(int draws, Answer[] answers) =>
        answers.Length == draws * Prompts.Length ? answers : [.. Enumerable.Repeat(answers, draws).SelectMany(draw => draw)];

    private static void AssertFigure(double value, int n, EvaluationReport report, string model, string metric)
    {
        EvaluationRow row = report.Table.Single(row => row.Model == model && row.Metric == metric);
        Assert.Equal(n, row.N);
        Assert.Equal(value, row.Value, 1e-12);
    }
}
