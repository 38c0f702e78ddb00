using Rlhf.Rows;
using Rlhf.Trainer.Evaluation;
using Xunit;

namespace Rlhf.Trainer.Tests.Evaluation;

public sealed class BagOfWordsTests
{
    [Fact]
    public void WordsAreLowerCaseRunsOfLettersDigitsAndApostrophes() =>
        Assert.Equal(["don't", "say", "it's", "42", "times"], BagOfWords.WordsOf("Don’t say: it's 42-times!"));

    [Fact]
    public void WeightsSolveThePenalisedLikelihoodExactly()
    {
        // "good" against "bad", 3 times right and once wrong, and nothing else differs. By symmetry w(good) = -w(bad) = w, the gap is 2w,
        // and the optimum solves 3 (σ(2w) - 1) + σ(2w) + λ w = 0 with λ = 30.
        Row[] rows = [Pair("a", "good x", "bad x"), Pair("b", "good y", "bad y"), Pair("c", "good x", "bad x"), Pair("d", "bad y", "good y")];
        double w = 0;
        for (int i = 0; i < 200; i++)
            w = (3 - 4 * Sigmoid(2 * w)) / 30;

        BagOfWords bag = BagOfWords.Train(rows, []);

        float[] scores = bag.Score(Pair("e", "good and unknown", "bad"));
        Assert.Equal((4, 30), (bag.Words, bag.Penalty));
        Assert.Equal(w, scores[0], 1e-5);
        Assert.Equal(-w, scores[1], 1e-5);
        static double Sigmoid(double x) => 1 / (1 + Math.Exp(-x));
    }

    [Fact]
    public void ValidationChoosesThePenalty()
    {
        // The rule holds on both sides: the weakest penalty fits best. It is reversed in validation: the strongest harms least.
        Row[] train = [.. Enumerable.Range(0, 40).Select(i => Pair($"{i}", $"good {i % 3}", $"bad {i % 3}"))];
        Row[] reversed = [.. train.Select(row => row with { Ranks = [2, 1] })];

        Assert.Equal(10, BagOfWords.Train(train, train).Penalty);
        Assert.Equal(3000, BagOfWords.Train(train, reversed).Penalty);
    }

    [Fact]
    public void CountsMatterAndRankingsOfManyAreAllTheirPairs()
    {
        Row[] rows = [.. Enumerable.Range(0, 30).Select(i => Pair($"{i}", "yes yes yes", "yes") with
        {
            Completions = ["yes yes yes", "yes yes", "yes"],
            Ranks = [1, 2, 3],
        })];

        float[] scores = BagOfWords.Train(rows, []).Score(rows[0]);

        Assert.True(scores[0] > scores[1] && scores[1] > scores[2] && scores[2] > 0);
        Assert.Equal(3 * scores[2], scores[0], 1e-6);
    }

    [Fact]
    public void MinimumOfAnIllConditionedQuadraticIsFound()
    {
        double[] scales = [.. Enumerable.Range(0, 20).Select(i => Math.Pow(10, i / 8.0))];

        double[] found = Lbfgs.Minimise(
            point => (scales.Select((scale, i) => scale / 2 * (point[i] - i) * (point[i] - i)).Sum(),
                [.. scales.Select((scale, i) => scale * (point[i] - i))]),
            new double[20]);

        // It stops where the gradient is a ten-thousandth of that at 0.
        double enough = 1e-4 * Math.Sqrt(scales.Select((scale, i) => scale * scale * i * i).Sum());
        for (int i = 0; i < 20; i++)
            Assert.Equal(i, found[i], enough / scales[i]);
    }

    private static Row Pair(string prompt, string chosen, string rejected) => new()
    {
        Id = prompt,
        Prompt = [new Turn("user", prompt)],
        Completions = [chosen, rejected],
        Ranks = [1, 2],
    };
}
