using Rlhf.Rows;
using Rlhf.Trainer.Methods;

namespace Rlhf.Trainer.Evaluation;

/// <summary>
/// The baseline that a reward model must beat to have read more than words: a Bradley-Terry model whose reward is linear in the word
/// counts of the completion, P(a over b) = σ(w · (n(a) - n(b))). It is a logistic regression with an L2 penalty λ/2 |w|²; its strength is
/// the one of a fixed grid with the least loss on validation rankings. Nothing in it is random.
/// </summary>
internal sealed class BagOfWords
{
    /// <summary>Penalties tried, strongest first: each fit starts from the one before.</summary>
    private static readonly double[] Penalties = [3000, 1000, 300, 100, 30, 10];

    /// <summary>The penalty where there are no validation rankings to choose it by.</summary>
    private const double DefaultPenalty = 30;

    /// <summary>Words seen in fewer training completions than this are left out: they cannot be told from chance.</summary>
    private const int LeastCompletions = 2;

    private readonly Dictionary<string, int> vocabulary;
    private readonly double[] weights;

    private BagOfWords(Dictionary<string, int> vocabulary, double[] weights, double penalty) =>
        (this.vocabulary, this.weights, Penalty) = (vocabulary, weights, penalty);

    /// <summary>The chosen λ.</summary>
    public double Penalty { get; }

    /// <summary>Words with a weight.</summary>
    public int Words => weights.Length;

    /// <summary>Fits the model.</summary>
    /// <param name="train">Ranked rows; every pair of different rank counts once.</param>
    /// <param name="validation">Ranked rows that the penalty is chosen by; may be empty.</param>
    public static BagOfWords Train(IReadOnlyList<Row> train, IReadOnlyList<Row> validation)
    {
        var completions = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (string word in train.SelectMany(row => row.Completions).SelectMany(text => WordsOf(text).Distinct(StringComparer.Ordinal)))
            completions[word] = completions.GetValueOrDefault(word) + 1;
        Dictionary<string, int> vocabulary = completions
            .Where(entry => entry.Value >= LeastCompletions)
            .Select(entry => entry.Key)
            .Order(StringComparer.Ordinal)
            .Index()
            .ToDictionary(entry => entry.Item, entry => entry.Index, StringComparer.Ordinal);
        var learnt = new Comparisons(train, vocabulary);
        var held = new Comparisons(validation, vocabulary);
        double[] weights = new double[vocabulary.Count], best = weights;
        (double penalty, double least) = (double.NaN, double.PositiveInfinity);
        foreach (double candidate in held.Pairs > 0 ? Penalties : [DefaultPenalty])
        {
            weights = Lbfgs.Minimise(point => learnt.PenalisedLoss(point, candidate), weights);
            double loss = held.Pairs > 0 ? held.PenalisedLoss(weights, 0).Value : 0;
            if (loss >= least)
                break; // from here on it overfits
            (penalty, least, best) = (candidate, loss, weights);
        }

        return new BagOfWords(vocabulary, best, penalty);
    }

    /// <summary>The reward of each completion of a row.</summary>
    public float[] Score(Row row) =>
        [.. row.Completions.Select(text => (float)WordsOf(text).Sum(word => vocabulary.TryGetValue(word, out int i) ? weights[i] : 0))];

    /// <summary>Lower-case runs of letters, digits and apostrophes.</summary>
    internal static IEnumerable<string> WordsOf(string text)
    {
        int start = -1;
        for (int i = 0; i <= text.Length; i++)
        {
            bool inside = i < text.Length && (char.IsLetterOrDigit(text[i]) || text[i] is '\'' or '’');
            if (inside && start < 0)
            {
                start = i;
            }
            else if (!inside && start >= 0)
            {
                yield return text[start..i].Replace('’', '\'').ToLowerInvariant();
                start = -1;
            }
        }
    }

    /// <summary>Ranked rows as sparse word counts (compressed rows) and pairs of completions.</summary>
    private sealed class Comparisons
    {
        private readonly int[] first;
        private readonly int[] words;
        private readonly int[] counts;
        private readonly RankedPairs pairs;

        public Comparisons(IReadOnlyList<Row> rows, Dictionary<string, int> vocabulary)
        {
            (int Word, int Count)[][] bags =
            [
                .. rows.SelectMany(row => row.Completions).Select(text => WordsOf(text).Where(vocabulary.ContainsKey)
                    .CountBy(word => vocabulary[word]).OrderBy(entry => entry.Key).Select(entry => (entry.Key, entry.Value)).ToArray()),
            ];
            words = [.. bags.SelectMany(bag => bag).Select(entry => entry.Word)];
            counts = [.. bags.SelectMany(bag => bag).Select(entry => entry.Count)];
            first = new int[bags.Length + 1];
            for (int i = 0; i < bags.Length; i++)
                first[i + 1] = first[i] + bags[i].Length;
            pairs = RankedPairs.AllPairs([.. rows.Select(row => row.Ranks!)]);
        }

        public int Pairs => pairs.Count;

        /// <summary>The sum over pairs of -log σ(gap), plus penalty/2 |w|², and its gradient.</summary>
        public (double Value, double[] Gradient) PenalisedLoss(double[] weights, double penalty)
        {
            double[] rewards = new double[first.Length - 1], slopes = new double[first.Length - 1];
            for (int i = 0; i < rewards.Length; i++)
            {
                for (int entry = first[i]; entry < first[i + 1]; entry++)
                    rewards[i] += weights[words[entry]] * counts[entry];
            }

            double value = 0;
            for (int i = 0; i < pairs.Count; i++)
            {
                double gap = rewards[pairs.Better[i]] - rewards[pairs.Worse[i]];
                value += Math.Log(1 + Math.Exp(-Math.Abs(gap))) + Math.Max(-gap, 0);
                double slope = -1 / (1 + Math.Exp(gap));
                slopes[pairs.Better[i]] += slope;
                slopes[pairs.Worse[i]] -= slope;
            }

            double[] gradient = new double[weights.Length];
            for (int word = 0; word < weights.Length; word++)
            {
                value += penalty / 2 * weights[word] * weights[word];
                gradient[word] = penalty * weights[word];
            }

            for (int i = 0; i < slopes.Length; i++)
            {
                for (int entry = first[i]; entry < first[i + 1]; entry++)
                    gradient[words[entry]] += slopes[i] * counts[entry];
            }

            return (value, gradient);
        }
    }
}
