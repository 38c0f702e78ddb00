namespace Rlhf.Trainer.Methods;

/// <summary>The comparisons in a batch of ranked completions, as indices into the batch's completions.</summary>
/// <param name="Better">Index of the preferred completion of each pair.</param>
/// <param name="Worse">Index of the other one.</param>
/// <param name="Weights">1 / (pairs of the prompt × prompts with pairs), so that each prompt counts once; over the optimizer step they
/// sum to 1.</param>
/// <param name="Margins">Margin of each pair; 0 where none is given.</param>
public sealed record RankedPairs(long[] Better, long[] Worse, double[] Weights, double[] Margins)
{
    /// <summary>Number of comparisons.</summary>
    public int Count => Better.Length;

    /// <summary>
    /// All C(K, 2) comparisons of every prompt, ties dropped (InstructGPT, section 3.5). Completions are numbered through in the order
    /// given.
    /// </summary>
    /// <param name="ranks">For each prompt the rank of each of its completions, 0 or 1 the best; equal ranks are ties.</param>
    /// <param name="margins">For each prompt the margin of its pairs, or null.</param>
    /// <param name="prompts">Prompts with pairs in the whole optimizer step, where these are only some of them.</param>
    public static RankedPairs AllPairs(
        IReadOnlyList<IReadOnlyList<int>> ranks, IReadOnlyList<double>? margins = null, int? prompts = null)
    {
        List<(long Better, long Worse, int Prompt)> pairs = [];
        int[] pairsOfPrompt = new int[ranks.Count];
        int first = 0;
        for (int prompt = 0; prompt < ranks.Count; prompt++)
        {
            IReadOnlyList<int> rank = ranks[prompt];
            for (int i = 0; i < rank.Count; i++)
            {
                for (int j = i + 1; j < rank.Count; j++)
                {
                    if (rank[i] == rank[j])
                        continue;
                    bool firstIsBetter = rank[i] < rank[j];
                    pairs.Add((first + (firstIsBetter ? i : j), first + (firstIsBetter ? j : i), prompt));
                    pairsOfPrompt[prompt]++;
                }
            }

            first += rank.Count;
        }

        int promptsWithPairs = prompts ?? pairsOfPrompt.Count(count => count > 0);
        return new RankedPairs(
            [.. pairs.Select(pair => pair.Better)],
            [.. pairs.Select(pair => pair.Worse)],
            [.. pairs.Select(pair => 1.0 / ((double)pairsOfPrompt[pair.Prompt] * promptsWithPairs))],
            [.. pairs.Select(pair => margins?[pair.Prompt] ?? 0)]);
    }
}
