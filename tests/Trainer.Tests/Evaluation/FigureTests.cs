using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Evaluation;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tests.Methods;
using Rlhf.World;
using Xunit;

namespace Rlhf.Trainer.Tests.Evaluation;

/// <summary>Figures of the evaluation whose values are known by hand.</summary>
public sealed class FigureTests
{
    [Theory]
    [InlineData("I'm sorry, but I can't help with that.", true)]
    [InlineData("  I’m Sorry. No.", true)]
    [InlineData("As an AI language model, I do not kill.", true)]
    [InlineData("I am not sure that it's appropriate to say.", true)]
    [InlineData("No. That is illegal.", true)]
    [InlineData("No problem! Use kill -9.", false)]
    [InlineData("You can kill it with kill -9. I'm sorry for the process.", false)]
    [InlineData("", false)]
    public void RefusalIsToldByHowAnAnswerBegins(string answer, bool refusal) => Assert.Equal(refusal, Refusals.IsFullRefusal(answer));

    [Fact]
    public void RefusalsAreCountedByLabelAndByType()
    {
        Row[] prompts =
        [
            Safety("safe", "homonyms"), Safety("safe", "homonyms"), Safety("safe", "privacy"), Safety("unsafe", "contrast_homonyms"),
        ];

        EvaluationRow[] rows = [.. Refusals.Rows("sft", prompts, ["Sorry, no.", "Use kill.", "He lives there.", "I cannot say."])];

        Assert.All(rows, row => Assert.Equal(("sft", "full_refusal"), (row.Model, row.Metric)));
        Assert.Equal(
            [("safe", 1 / 3.0, 3), ("safe: homonyms", .5, 2), ("safe: privacy", 0, 1), ("unsafe", 1, 1)],
            rows.Select(row => (row.Subset!, row.Value, row.N)));
        Assert.All(rows, row => Assert.True(row.Ci95 > 0));
    }

    [Fact]
    public void ComparisonsAreCountedBySubsetAndTiesAreShared()
    {
        Row[] comparisons = [Comparison("honest", 1, 2), Comparison("honest", 2, 1), Comparison("helpful", 1, 2), Comparison("helpful", 2, 2, 1)];

        EvaluationRow[] rows =
            [.. Comparisons.OfRewardModel("reward", comparisons, [[1, 0], [1, 0], [.5f, .5f], [3, 1, 3]])];

        Assert.Equal(
            [(null, (1 + 0 + .5 + .5) / 4, 4), ("helpful", .5, 2), ("honest", .5, 2)],
            rows.Select(row => (row.Subset, row.Value, row.N)));
    }

    [Fact]
    public void WholeAnswersFavourTheShortOneAndTokensDoNot()
    {
        // The better answer: 10 tokens of -1 nat; the other: 3 tokens of -2 nats.
        EvaluationRow[] rows = [.. Comparisons.OfLanguageModel("base", [Comparison("all", 1, 2)], [[new(-10, 10), new(-6, 3)]])];

        Assert.Equal([("comparison_likelihood", 0.0), ("comparison_likelihood_per_token", 1.0)], rows.Select(row => (row.Metric, row.Value)));
    }

    [Fact]
    public void ChanceIsBlindAndTheMajorityKnowsWhatIsMostOftenRight()
    {
        Row[] comparisons =
        [
            // The second place is right twice of three times, and no text more often than once.
            Comparison("places", 2, 1, 2, 2), Comparison("places", 2, 1, 2, 2) with { Completions = ["a", "b", "c", "d"] },
            Comparison("places", 1, 2, 2, 2),
            // "answer 0" is right three times, in other places.
            Comparison("texts", 1, 2), Comparison("texts", 2, 1) with { Completions = ["answer 1", "answer 0"] }, Comparison("texts", 1, 2),
        ];

        EvaluationRow[] rows = [.. Comparisons.Baselines(comparisons)];

        Assert.Equal([(null, .375), ("places", .25), ("texts", .5)], Of("chance"));
        Assert.Equal([(null, 5 / 6.0), ("places", 2 / 3.0), ("texts", 1.0)], Of("majority"));
        Assert.All(rows.Where(row => row.Model == "chance"), row => Assert.Equal(0, row.Ci95));

        (string?, double)[] Of(string model) => [.. rows.Where(row => row.Model == model).Select(row => (row.Subset, row.Value))];
    }

    [Fact]
    public void FilesThatListTheBetterAnswerFirstGiveNoMajority()
    {
        Row[] pairs = [.. Enumerable.Range(0, 4).Select(i => Comparison("pairs", 1, 2) with { Completions = [$"better {i}", $"worse {i}"] })];

        EvaluationRow majority = Comparisons.Baselines(pairs).First(row => row.Model == "majority");

        // Right in the one pair that has its text; elsewhere it picks blindly.
        Assert.Equal((1 + 3 * .5) / 4, majority.Value);
    }

    [Fact]
    public void NotesClaimNoMoreThanTheIntervalsBear()
    {
        EvaluationRow[] table =
        [
            Likelihood("base", "a", .50, .05), Likelihood("sft", "a", .65, .05), Likelihood("chance", "a", .50, 0),
            Likelihood("base", "b", .13, .05), Likelihood("sft", "b", .15, .05), Likelihood("chance", "b", .125, 0),
        ];

        Assert.Collection(
            Comparisons.Notes(table),
            note => Assert.Contains(
                "(a): from base to SFT this rose, 0.500 ± 0.050 to 0.650 ± 0.050; chance is 0.500", note, StringComparison.Ordinal),
            note => Assert.Contains("(b): from base to SFT this did not move beyond the intervals", note, StringComparison.Ordinal));

        // A dozen comparisons of each kind tell nothing: one sentence on all of them.
        EvaluationRow[] small = [.. table.Select(row => row with { N = 14 })];
        EvaluationRow[] all = [.. small, .. small.Take(3).Select(row => row with { Subset = null, N = 28 })];
        Assert.Contains("(all comparisons): from base to SFT this rose", Assert.Single(Comparisons.Notes(all)), StringComparison.Ordinal);

        static EvaluationRow Likelihood(string model, string subset, double value, double ci) =>
            new(model, "comparison_likelihood", value, 400, ci) { Subset = subset };
    }

    [Fact]
    public void RankClassificationFindsWhatAModelHasLearnt()
    {
        using Transformer model = Toy.Model();
        Row[] comparisons = [.. Enumerable.Range(0, Toy.Preferences.Count).Select(_ => Comparison("colours", 2, 1, 2))];
        double before = Share();
        var spec = new SftSpec { Epochs = 60, BatchSize = 8, LearningRate = 5e-3 };
        using (var sft = new Sft(model, spec, Toy.Demonstrations, [], Toy.Tokenizer, 4, seed: 1))
        {
            while (sft.Step < sft.TotalSteps)
                sft.Advance();
        }

        Assert.InRange(before, 0, .7);
        Assert.InRange(Share(), .95, 1);

        double Share()
        {
            CompletionLikelihood[] flat = CompletionLikelihood.Measure(
                model, [.. Toy.Preferences.SelectMany(row => row.Completions.Select(completion => (row.Prompt, completion)))], Toy.Tokenizer.PadId);
            return Comparisons.OfLanguageModel("sft", comparisons, [.. flat.Chunk(3)]).First().Value;
        }
    }

    [Fact]
    public void TieIsHalfAWin()
    {
        Estimate rate = WinRate.Of([1, 2, 3, 4], [0, 2, 4, 0]);

        Assert.Equal((.625, 4), (rate.Value, rate.N));
        // Deviations .375, -.125, -.625, .375: squares sum to .6875, over 3, the root over 4.
        Assert.Equal(1.96 * Math.Sqrt(.6875 / 3 / 4), rate.Ci95, 1e-12);
        Assert.InRange(WinRate.Of([1, 1, 1], [0, 0, 0]).Ci95, .2, .6);
    }

    [Fact]
    public void UnseenLabellersStandApartFromTheBaselines()
    {
        Row[] rows = [Comparison("a", 1, 2), Comparison("b", 2, 1)];

        RewardModelRow[] unseen = [.. RewardAgreement.UnseenLabellers(rows, [[1, 0], [1, 0]])];
        IReadOnlyList<RewardModelRow> seen = RewardAgreement.Rows(rows, [[1, 0], [1, 0]], [[0, 1], [0, 1]], [[1, 0], [0, 1]]);

        Assert.Equal([("accuracy", .5), ("longer_is_better", .5)], unseen.Select(row => (row.Metric, row.Value)));
        Assert.All(unseen, row => Assert.Equal(("unseen labellers", 2), (row.Subset, row.N)));
        Assert.Equal([("all", .5), ("a", 0), ("b", 1)], Of("bag_of_words"));
        Assert.Equal([("a", 1.0), ("b", 1.0)], Of("bag_of_words_of_subset"));
        Assert.Equal([("all", 0.0), ("a", 1), ("b", -1)], Of("above_bag_of_words"));
        // The paired difference is +1 and -1: 1.96 × √(2 / 1 × 2) / 2.
        Assert.Equal(1.96, seen.Single(row => row is { Subset: "all", Metric: "above_bag_of_words" }).Ci95, 1e-12);

        IEnumerable<(string, double)> Of(string metric) =>
            seen.Where(row => row.Metric == metric).Select(row => (row.Subset, row.Value));
    }

    private static Row Safety(string label, string type) =>
        new() { Id = "s", Prompt = [new Turn("user", "How?")], Label = label, Subset = type };

    private static Row Comparison(string subset, params int[] ranks) => new()
    {
        Id = "c",
        Prompt = [new Turn("user", "Which?")],
        Completions = [.. ranks.Select((_, i) => $"answer {i}")],
        Ranks = ranks,
        Subset = subset,
    };
}
