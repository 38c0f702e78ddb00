namespace Rlhf.Trainer.Evaluation;

/// <summary>Best-of-n sampling: the reward model picks one of n answers (Stiennon et al. 2020; Gao et al. 2022, section 2).</summary>
public static class BestOfN
{
    /// <summary>KL from the sampling model in nats per answer: log n - (n - 1)/n (Stiennon et al. 2020, appendix G.3).</summary>
    public static double Kl(int n) => Math.Log(n) - (n - 1.0) / n;

    /// <summary>
    /// The expectation of a value of the best of n answers, unbiased, from all N that were drawn (Nakano et al. 2021, appendix I): the
    /// answer of rank i by its score, worst first, is the best of a random n of them with probability C(i - 1, n - 1) / C(N, n).
    /// </summary>
    /// <param name="scores">[N] what the best is chosen by; of equal scores the one drawn first wins.</param>
    /// <param name="values">[N] what is averaged.</param>
    /// <param name="n">1 to N.</param>
    public static double Expectation(IReadOnlyList<double> scores, IReadOnlyList<double> values, int n)
    {
        int count = scores.Count;
        if (n < 1 || n > count)
            throw new ArgumentOutOfRangeException(nameof(n), n, $"must lie between 1 and the {count} answers drawn");
        int[] worstFirst = [.. Enumerable.Range(0, count).OrderBy(i => scores[i]).ThenByDescending(i => i)];
        double expectation = 0;
        double weight = 1; // C(i - 1, n - 1) / C(N, n), from i = N downwards: n / N at first
        for (int i = count; i >= n; i--)
        {
            weight = i == count ? (double)n / count : weight * (i - n + 1) / i;
            expectation += weight * values[worstFirst[i - 1]];
        }

        return expectation;
    }
}
