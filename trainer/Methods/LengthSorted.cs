namespace Rlhf.Trainer.Methods;

/// <summary>Grouping of rows for forward passes whose result does not depend on the grouping.</summary>
internal static class LengthSorted
{
    /// <summary>Rows by falling length, cut into passes of at most so many padded tokens (but at least one row).</summary>
    public static IEnumerable<int[]> Passes(IReadOnlyList<int> lengths, int tokensPerPass)
    {
        int[] order = [.. Enumerable.Range(0, lengths.Count).OrderByDescending(i => lengths[i])];
        for (int first = 0; first < order.Length;)
        {
            int rows = Math.Clamp(tokensPerPass / Math.Max(1, lengths[order[first]]), 1, order.Length - first);
            yield return order[first..(first + rows)];
            first += rows;
        }
    }
}
