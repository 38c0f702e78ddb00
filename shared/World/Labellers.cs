namespace Rlhf.World;

/// <summary>
/// Simulated labellers. Each ranks the answers to a prompt by Plackett-Luce on a utility: for two answers this is Bradley-Terry,
/// P(a over b) = sigmoid(u_a - u_b), with u = scale x (gold + taste x words). The scale is shared and fitted so that two labellers agree on as many
/// pairs as people do (InstructGPT: 72.6 to 77.3%); the taste for length is each labeller's own.
/// </summary>
internal sealed class Labellers
{
    /// <summary>Largest taste for, or against, length: gold points per word.</summary>
    private const double TasteAtMost = .01;

    private readonly double[] tastes;

    private Labellers(double scale, double[] tastes) => (Scale, this.tastes) = (scale, tastes);

    public double Scale { get; }

    public int Count => tastes.Length;

    /// <param name="seed">The world's seed; tastes are drawn from it.</param>
    /// <param name="count">Number of labellers.</param>
    /// <param name="agreement">Share of pairs on which two labellers should agree, above one half.</param>
    /// <param name="sample">Gold scores of sets of candidate answers, like those to be ranked.</param>
    /// <exception cref="ArgumentException">No scale reaches the agreement, because too many candidates have equal gold scores.</exception>
    public static Labellers Fit(ulong seed, int count, double agreement, IReadOnlyList<double[]> sample)
    {
        double[] gaps = [.. sample.SelectMany(gold => Pairs(gold.Length).Select(p => Math.Abs(gold[p.First] - gold[p.Second])))];
        double Expected(double scale) => gaps.Average(gap => Agreement(Sigmoid(scale * gap)));
        double low = 0, high = 64;
        if (Expected(high) < agreement)
        {
            throw new ArgumentException(
                $"labellerAgreement {agreement} cannot be reached: {gaps.Count(g => g == 0) / (double)gaps.Length:P0} of the answer pairs are equally good. Lower it.",
                nameof(agreement));
        }
        for (int i = 0; i < 60; i++)
        {
            double middle = (low + high) / 2;
            (low, high) = Expected(middle) < agreement ? (middle, high) : (low, middle);
        }
        var random = WorldRandom.For(seed, "labellers", 0);
        return new Labellers(low, [.. Enumerable.Range(0, count).Select(_ => (2 * random.NextDouble() - 1) * TasteAtMost)]);
    }

    /// <summary>Ranks (1 = best) that one labeller gives to the answers.</summary>
    public int[] Rank(int labeller, IReadOnlyList<string> answers, IReadOnlyList<double> gold, WorldRandom random)
    {
        double[] noisy = [.. answers.Select((a, i) => Utility(labeller, a, gold[i]) + random.Gumbel())];
        return [.. noisy.Select(u => 1 + noisy.Count(v => v > u))];
    }

    /// <summary>P(labeller prefers answer a to answer b).</summary>
    public double Prefers(int labeller, string a, double goldA, string b, double goldB) =>
        Sigmoid(Utility(labeller, a, goldA) - Utility(labeller, b, goldB));

    public static IEnumerable<(int First, int Second)> Pairs(int count) =>
        from i in Enumerable.Range(0, count) from j in Enumerable.Range(i + 1, count - i - 1) select (i, j);

    private double Utility(int labeller, string answer, double gold) => Scale * (gold + tastes[labeller] * answer.Count(c => c == ' '));

    private static double Sigmoid(double x) => 1 / (1 + Math.Exp(-x));

    /// <summary>Chance that two labellers of the same preference probability say the same.</summary>
    private static double Agreement(double p) => p * p + (1 - p) * (1 - p);
}
