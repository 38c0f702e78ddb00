namespace Rlhf.Trainer.Data;

/// <summary>Some of many rows, from all over the list.</summary>
internal static class Evenly
{
    /// <summary>
    /// At most <paramref name="count"/> rows at equal distances, in their order. Data sets hold file after file: the first so many rows
    /// would be those of one file.
    /// </summary>
    public static IReadOnlyList<T> Take<T>(IReadOnlyList<T> rows, int count) =>
        rows.Count <= count ? rows : [.. Enumerable.Range(0, count).Select(i => rows[(int)((long)i * rows.Count / count)])];
}
