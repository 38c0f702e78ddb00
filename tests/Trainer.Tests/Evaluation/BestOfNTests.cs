using Rlhf.Trainer.Evaluation;
using Xunit;

namespace Rlhf.Trainer.Tests.Evaluation;

public sealed class BestOfNTests
{
    // Gao et al. 2022: the exact values of log n - (n - 1)/n.
    [Theory]
    [InlineData(1, 0)]
    [InlineData(2, .193)]
    [InlineData(4, .636)]
    [InlineData(16, 1.835)]
    [InlineData(1000, 5.909)]
    public void KlIsExact(int n, double expected) => Assert.Equal(expected, BestOfN.Kl(n), .0005);

    [Fact]
    public void ExpectationIsTheMeanOverAllSubsets()
    {
        double[] scores = [.3, -1, 2, .5, .1];
        double[] values = [1, 2, 4, 8, 16];

        // By hand: the best by score of each of the ten pairs and triples of five.
        Assert.Equal(values.Average(), BestOfN.Expectation(scores, values, 1), 1e-12);
        Assert.Equal(Subsets(2).Average(Best), BestOfN.Expectation(scores, values, 2), 1e-12);
        Assert.Equal(Subsets(3).Average(Best), BestOfN.Expectation(scores, values, 3), 1e-12);
        Assert.Equal(4, BestOfN.Expectation(scores, values, 5), 1e-12);

        double Best(int[] subset) => values[subset.MaxBy(i => scores[i])];

        static IEnumerable<int[]> Subsets(int size) => Enumerable.Range(0, 1 << 5)
            .Select(mask => Enumerable.Range(0, 5).Where(i => (mask >> i & 1) == 1).ToArray())
            .Where(subset => subset.Length == size);
    }

    [Fact]
    public void FirstDrawnWinsOfEqualScores() => Assert.Equal(1, BestOfN.Expectation([5, 5], [1, 3], 2));

    [Fact]
    public void MoreThanWereDrawnIsRefused() => Assert.Throws<ArgumentOutOfRangeException>(() => BestOfN.Expectation([1], [1], 2));
}
