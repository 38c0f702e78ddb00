namespace Rlhf.Trainer.Methods;

/// <summary>Figures on the responses of an iteration: lengths, endings, repetition, and the reward model's scores before any
/// penalty.</summary>
internal static class RolloutStatistics
{
    public static void Add(Dictionary<string, double> metrics, IReadOnlyList<Episode> episodes, IReadOnlyList<float> scores)
    {
        double[] raw = [.. scores.Select(score => (double)score)];
        double mean = raw.Average();
        metrics["objective/scores"] = mean;
        metrics["objective/scores_std"] = Math.Sqrt(raw.Average(score => (score - mean) * (score - mean)));
        metrics["objective/scores_min"] = raw.Min();
        metrics["objective/scores_max"] = raw.Max();

        double[] lengths = [.. episodes.Select(episode => (double)episode.Response.Length)];
        double ended = episodes.Average(episode => episode.Ended ? 1.0 : 0.0);
        metrics["rollout/response_length_mean"] = lengths.Average();
        metrics["rollout/response_length_min"] = lengths.Min();
        metrics["rollout/response_length_max"] = lengths.Max();
        metrics["rollout/eos_rate"] = ended;
        metrics["rollout/truncated_rate"] = 1 - ended;
        metrics["rollout/repetition_rate"] = episodes.Average(episode => 1 - Distinct(Bigrams(episode.Response)));
        metrics["rollout/distinct_1"] = Distinct(episodes.SelectMany(episode => episode.Response));
        metrics["rollout/distinct_2"] = Distinct(episodes.SelectMany(episode => Bigrams(episode.Response)));
        metrics["reward/length_correlation"] = RankingAccuracy.Correlation(raw, lengths);
    }

    /// <summary>The share of groups whose answers are all worth the same, which teach nothing.</summary>
    public static void AddGroups(Dictionary<string, double> metrics, double[] outcomes, int groupSize) =>
        metrics["rollout/frac_zero_std"] = outcomes.Chunk(groupSize).Average(group => group.All(outcome => outcome == group[0]) ? 1.0 : 0.0);

    private static IEnumerable<(int First, int Second)> Bigrams(int[] tokens) => tokens.Zip(tokens.Skip(1));

    /// <summary>Different items / items (Li et al. 2016); 1 where there is none.</summary>
    private static double Distinct<T>(IEnumerable<T> items)
    {
        T[] all = [.. items];
        return all.Length == 0 ? 1 : (double)all.Distinct().Count() / all.Length;
    }
}
