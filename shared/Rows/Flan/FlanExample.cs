using System.Runtime.CompilerServices;
using System.Text;
using System.Text.RegularExpressions;
using System.Text.Unicode;

namespace Rlhf.Rows.Flan;

/// <summary>One example of a task that is answered by choosing among options.</summary>
/// <param name="Question">The question, without its options.</param>
/// <param name="Options">At least two, all different.</param>
/// <param name="Answer">The index of the right one.</param>
/// <param name="Rationale">Why, in prose; empty where the file has none.</param>
public sealed record FlanExample(string Question, IReadOnlyList<string> Options, int Answer, string Rationale);

/// <summary>What became of one line of a task's file.</summary>
/// <param name="Line">Its number, from 1.</param>
/// <param name="Example">The example; null when the line is dropped.</param>
/// <param name="Reason">Why it is dropped, for people; null when it is not.</param>
public sealed record FlanResult(int Line, FlanExample? Example, string? Reason);

/// <summary>
/// Reads the files of FLAN's collection (google-research/FLAN, flan/v2/cot_data): a line is question, answer and rationale, parted by
/// tabs, with <c>\n</c> for line ends. A question that ends with <c>Options:</c> and a list gives the options; they are taken without
/// their labels, and an answer that is a label, such as <c>(C)</c> or <c>Sentence A</c>, becomes the option it names: what is chosen is
/// a text, as in FLAN's classification tasks, not a letter.
/// </summary>
public static partial class FlanTaskFile
{
    /// <summary>All lines of a file, plain or gzip, that are not blank.</summary>
    /// <param name="file">The file's name, for messages.</param>
    /// <param name="content">Its bytes.</param>
    /// <param name="labels">The options of questions that list none, such as yes and no; may be empty.</param>
    /// <param name="cancellation">Cancels.</param>
    /// <exception cref="UnreadableFileException">The file as a whole is no text, or its gzip data is damaged.</exception>
    public static async IAsyncEnumerable<FlanResult> ReadAsync(
        string file, Stream content, IReadOnlyList<string> labels, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        await foreach (TextLine line in TextLines.ReadAsync(file, content, cancellation))
        {
            if (line.IsTooLong)
                yield return new FlanResult(line.Number, null, $"is larger than {TextLines.MaxLength / 1024 / 1024} MiB");
            else if (!Utf8.IsValid(line.Bytes))
                yield return new FlanResult(line.Number, null, "holds bytes that are not UTF-8");
            else if (!line.IsBlank)
                yield return Parse(Encoding.UTF8.GetString(line.Bytes), line.Number, labels);
        }
    }

    /// <summary>Reads one line. Never throws.</summary>
    public static FlanResult Parse(string line, int number = 1, params IReadOnlyList<string> labels)
    {
        string[] fields = line.Split('\t');
        if (fields.Length is not (2 or 3))
            return Dropped($"has {fields.Length} fields; question, answer and perhaps rationale are expected, parted by tabs");
        string[] texts = [.. fields.Select(field => field.Replace("\\n", "\n", StringComparison.Ordinal).Trim())];
        (string question, string answer, string rationale) = (texts[0], texts[1], texts.Length > 2 ? texts[2] : string.Empty);
        string[] items = [.. labels];
        if (OptionList().Match(question) is { Success: true } list)
        {
            items = [.. list.Groups["items"].Value.Split('\n').Select(WithoutDash).Where(item => item.Length > 0)];
            question = question[..list.Index].TrimEnd();
        }

        if (question.Length == 0)
            return Dropped("has no question");
        if (items.Length < 2)
            return Dropped("lists no options, and the task has no labels");
        int right = Array.IndexOf(items, answer);
        if (right < 0)
        {
            Match[] labelled = [.. items.Select(item => Labelled().Match(item))];
            if (!labelled.All(item => item.Success))
                return Dropped($"has the answer '{answer}', which is none of its options");
            right = Array.FindIndex(labelled, item => item.Groups["label"].Value == answer);
            if (right < 0)
                return Dropped($"has the answer '{answer}', which is none of its options");
            items = [.. labelled.Select(item => item.Groups["text"].Value.Trim().Trim('"').Trim())];
        }

        if (items.Any(item => item.Length == 0))
            return Dropped("has an empty option");
        if (items.Distinct(StringComparer.Ordinal).Count() < items.Length)
            return Dropped("has two equal options");
        return new FlanResult(number, new FlanExample(question, items, right, rationale), null);

        FlanResult Dropped(string reason) => new(number, null, reason);
    }

    private static string WithoutDash(string item)
    {
        string text = item.Trim();
        return text.StartsWith("- ", StringComparison.Ordinal) ? text[2..].Trim() : text;
    }

    [GeneratedRegex(@"(^|\n)Options:\n(?<items>.*)$", RegexOptions.Singleline | RegexOptions.CultureInvariant)]
    private static partial Regex OptionList();

    /// <summary>(A) text, or Sentence A: text.</summary>
    [GeneratedRegex(
        @"^(?:(?<label>\([A-Z]\))\s+|(?<label>[^:""]{1,30}):\s+)(?<text>.*)$", RegexOptions.Singleline | RegexOptions.CultureInvariant)]
    private static partial Regex Labelled();
}
