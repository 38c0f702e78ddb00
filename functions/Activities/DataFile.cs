using Rlhf.Rows;
using Rlhf.Spec;

namespace Rlhf.Functions.Activities;

/// <summary>One file of the spec's data, with the list that it stands in.</summary>
/// <param name="Dataset">One of <see cref="DatasetNames"/>.</param>
/// <param name="Index">Its place in the list.</param>
/// <param name="Spec">The file.</param>
public sealed record DataFile(string Dataset, int Index, DataFileSpec Spec)
{
    /// <summary>All files of a run, list by list.</summary>
    public static IEnumerable<DataFile> Of(DataSpec data) =>
        new[]
        {
            (DatasetNames.Text, data.Text), (DatasetNames.Demonstrations, data.Demonstrations),
            (DatasetNames.Preferences, data.Preferences),
            (DatasetNames.Prompts, data.Prompts), (DatasetNames.Evaluation, data.Evaluation),
            (DatasetNames.Comparisons, data.Comparisons), (DatasetNames.Safety, data.Safety),
        }
        .SelectMany(list => list.Item2.Select((file, index) => new DataFile(list.Item1, index, file)));

    /// <summary>The row as its list needs it.</summary>
    /// <param name="row">A row of any kind.</param>
    /// <param name="reason">Why the row does not fit, where it does not.</param>
    /// <returns>The row; null when it does not fit.</returns>
    public Row? Fit(Row row, out string? reason)
    {
        Row? fit = Dataset switch
        {
            DatasetNames.Text when row.Completions.Count == 1 => row,
            DatasetNames.Demonstrations when row.Prompt.Count > 0 => DatasetRows.Demonstration(row),
            DatasetNames.Preferences or DatasetNames.Comparisons when row.Ranks is not null => row,
            DatasetNames.Safety when row.Prompt.Count > 0 && row.Label is not null => DatasetRows.Prompt(row),
            DatasetNames.Prompts or DatasetNames.Evaluation when row.Prompt.Count > 0 => DatasetRows.Prompt(row),
            _ => null,
        };
        reason = fit is not null ? null : Dataset switch
        {
            DatasetNames.Text => "is no text: give a field 'text'",
            DatasetNames.Demonstrations => "is no demonstration: give a prompt and a completion",
            DatasetNames.Preferences => "is no preference: give 'chosen' and 'rejected', or 'completions' with 'ranks'",
            DatasetNames.Comparisons => "compares nothing: give 'chosen' and 'rejected', or 'input' with 'target_scores'",
            DatasetNames.Safety when row.Prompt.Count > 0 => "has no 'label' that is 'safe' or 'unsafe'",
            _ => "has no prompt",
        };
        return fit;
    }
}

/// <summary>How rows of one kind serve as rows of another.</summary>
internal static class DatasetRows
{
    /// <summary>A demonstration: of a preference the best completion; null without one.</summary>
    public static Row? Demonstration(Row row)
    {
        if (row.Completions.Count == 0)
            return null;
        string[] best = [row.Ranks is { } ranks ? row.Completions[IndexOfBest(ranks)] : row.Completions[0]];
        return row with { Id = Row.IdOf(row.Prompt, best), Completions = best, Ranks = null, Labeller = null };
    }

    /// <summary>The prompt alone; the answer of a demonstration stays beside it as the reference answer.</summary>
    public static Row Prompt(Row row) => row with
    {
        Id = Row.IdOf(row.Prompt, []),
        Completions = [],
        Ranks = null,
        Labeller = null,
        Reference = row.Reference ?? (row is { Ranks: null, Completions: [string answer] } ? answer : null),
    };

    /// <summary>What makes two rows of one data set the same: two people's rankings of the same answers are two rows.</summary>
    public static string Identity(Row row) => row.Ranks is { } ranks ? $"{row.Id}|{string.Join(',', ranks)}|{row.Labeller}" : row.Id;

    /// <summary>Words in the prompt and in the longest completion.</summary>
    public static int Words(Row row) => row.Prompt.Sum(turn => Words(turn.Content)) + row.Completions.Select(Words).DefaultIfEmpty().Max();

    private static int Words(string text)
    {
        int words = 0;
        bool inWord = false;
        foreach (char character in text)
        {
            bool letter = !char.IsWhiteSpace(character);
            words += letter && !inWord ? 1 : 0;
            inWord = letter;
        }

        return words;
    }

    private static int IndexOfBest(IReadOnlyList<int> ranks)
    {
        int best = 0;
        for (int i = 1; i < ranks.Count; i++)
            best = ranks[i] < ranks[best] ? i : best;
        return best;
    }
}
