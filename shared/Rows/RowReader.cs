using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Unicode;

namespace Rlhf.Rows;

/// <summary>What became of one line (or, in a .txt file, one paragraph): a row, or the reason why it is dropped.</summary>
/// <param name="Line">Its number, from 1; of a paragraph, that of its first line.</param>
/// <param name="Format">The format it was read as, one of <see cref="RowFormats"/>; null when that could not be told.</param>
/// <param name="Row">The normalised row; null when the line is dropped.</param>
/// <param name="Reason">Why it is dropped, for people; null when it is not.</param>
public sealed record RowResult(int Line, string? Format, Row? Row, string? Reason);

/// <summary>
/// Reads one file of rows, plain or gzip (told by its first bytes): JSON lines in any of <see cref="RowFormats"/>, also mixed, or,
/// where the name ends in <c>.txt</c> or <c>.txt.gz</c>, plain text with one document per paragraph (paragraphs are parted by blank
/// lines), or, where it ends in <c>.csv</c> or <c>.csv.gz</c>, comma-separated values whose first record names the fields. Streams: memory
/// holds one line. Nothing in a line makes it throw; what cannot be used comes back with its reason.
/// </summary>
/// <param name="file">The file's name, for messages and for <see cref="SubsetOf"/>.</param>
/// <param name="content">Its bytes; read to the end once, not closed.</param>
/// <param name="subset">
/// The <see cref="Row.Subset"/> of its rows; by default the <c>category</c> that a line names, or else that of the file's name.
/// </param>
public sealed class RowReader(string file, Stream content, string? subset = null)
{
    private readonly string otherwise = SubsetOf(file);
    private readonly Dictionary<string, int> formats = [];

    /// <summary>Lines read so far, blank ones included.</summary>
    public int Lines { get; private set; }

    /// <summary>
    /// The format of the usable rows so far, such as <c>hh-rlhf</c>; of a mixed file all of them with their counts, the most frequent
    /// first, such as <c>pair (90), ranking (3)</c>. Null while there is no usable row.
    /// </summary>
    public string? DetectedFormat => formats.Count switch
    {
        0 => null,
        1 => formats.Keys.Single(),
        _ => string.Join(", ",
            from format in formats
            orderby format.Value descending, format.Key
            select $"{format.Key} ({format.Value})"),
    };

    /// <summary>The name by which metrics report a file's rows: the file's name up to its first dot.</summary>
    public static string SubsetOf(string file)
    {
        string name = file[(file.LastIndexOf('/') + 1)..];
        int dot = name.IndexOf('.', 1);
        return dot < 0 ? name : name[..dot];
    }

    /// <summary>Reads one line of JSON. Never throws.</summary>
    public static RowResult Parse(string line, int number = 1, string subset = "all") =>
        Parse(Encoding.UTF8.GetBytes(line), number, null, subset);

    /// <summary>Reads one line of JSON that must be a preference: a row with ranked completions. Never throws.</summary>
    public static RowResult ParsePreference(string line, int number = 1, string subset = "all")
    {
        RowResult result = Parse(line, number, subset);
        if (result.Row is not { Ranks: null })
            return result;
        return result with
        {
            Row = null,
            Reason = $"is no preference but of the format '{result.Format}': give 'chosen' and 'rejected', or 'completions' with 'ranks'",
        };
    }

    /// <summary>All lines that are not blank, in their order.</summary>
    /// <exception cref="UnreadableFileException">The file as a whole is no such text, or its gzip data is damaged.</exception>
    public async IAsyncEnumerable<RowResult> ReadAsync([EnumeratorCancellation] CancellationToken cancellation = default)
    {
        IAsyncEnumerable<RowResult> results = EndsWith(".txt") ? ReadParagraphsAsync(cancellation)
            : EndsWith(".csv") ? ReadCsvAsync(cancellation)
            : ReadJsonLinesAsync(cancellation);
        await foreach (RowResult result in results)
        {
            if (result.Row is not null)
                formats[result.Format!] = formats.GetValueOrDefault(result.Format!) + 1;
            yield return result;
        }
    }

    private bool EndsWith(string extension) =>
        file.EndsWith(extension, StringComparison.OrdinalIgnoreCase)
        || file.EndsWith(extension + ".gz", StringComparison.OrdinalIgnoreCase);

    private async IAsyncEnumerable<RowResult> ReadJsonLinesAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        await foreach (TextLine line in TextLines.ReadAsync(file, content, cancellation))
        {
            Lines = line.Number;
            if (line.IsTooLong)
                yield return TooLong(line.Number);
            else if (!line.IsBlank)
                yield return Parse(line.Bytes, line.Number, subset, otherwise);
        }
    }

    private async IAsyncEnumerable<RowResult> ReadCsvAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        string[]? names = null;
        await foreach (CsvRecord record in CsvRecords.ReadAsync(TextLines.ReadAsync(file, content, cancellation), cancellation))
        {
            Lines = record.LastLine;
            if (record.Reason is { } reason)
                yield return new RowResult(record.Line, null, null, reason);
            else if (names is null)
                names = record.Fields;
            else if (record.Fields.Length != names.Length)
                yield return new RowResult(record.Line, null, null, $"has {record.Fields.Length} fields; the header has {names.Length}");
            else
                yield return Parse(AsJson(names, record.Fields), record.Line, subset, otherwise);
        }
    }

    /// <summary>A record as a line of JSON; empty cells are left out.</summary>
    private static byte[] AsJson(string[] names, string[] fields)
    {
        var line = new JsonObject();
        foreach ((string name, string field) in names.Zip(fields))
        {
            if (field.Length > 0)
                line[name] = field;
        }

        return JsonSerializer.SerializeToUtf8Bytes(line, RlhfJson.Compact);
    }

    private async IAsyncEnumerable<RowResult> ReadParagraphsAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        var paragraph = new StringBuilder();
        int first = 0;
        bool tooLong = false;
        bool valid = true;
        await foreach (TextLine line in TextLines.ReadAsync(file, content, cancellation))
        {
            Lines = line.Number;
            if (line.IsBlank)
            {
                if (first > 0)
                    yield return Paragraph();
                continue;
            }

            if (first == 0)
            {
                first = line.Number;
                paragraph.Clear();
                tooLong = false;
                valid = true;
            }

            valid &= Utf8.IsValid(line.Bytes);
            tooLong |= line.IsTooLong || paragraph.Length + line.Bytes.Length > TextLines.MaxLength;
            if (!tooLong)
                paragraph.Append(paragraph.Length == 0 ? string.Empty : "\n").Append(Encoding.UTF8.GetString(line.Bytes));
        }

        if (first > 0)
            yield return Paragraph();

        RowResult Paragraph()
        {
            int number = first;
            first = 0;
            if (tooLong)
                return TooLong(number);
            if (!valid)
                return NotUtf8(number);
            string[] document = [paragraph.ToString().TrimEnd()];
            var row = new Row { Id = Row.IdOf([], document), Completions = document, Subset = subset ?? otherwise };
            return new RowResult(number, RowFormats.PlainText, row, null);
        }
    }

    private static RowResult TooLong(int number) => new(number, null, null, $"is larger than {TextLines.MaxLength / 1024 / 1024} MiB");

    private static RowResult NotUtf8(int number) => new(number, null, null, "holds bytes that are not UTF-8");

    private static RowResult Parse(byte[] line, int number, string? subset, string otherwise)
    {
        if (line.Length > TextLines.MaxLength)
            return TooLong(number);
        if (!Utf8.IsValid(line))
            return NotUtf8(number);
        try
        {
            using var document = JsonDocument.Parse(line);
            (string format, Row row) = RowFormats.Read(document.RootElement, subset, otherwise);
            return new RowResult(number, format, row, null);
        }
        catch (UnusableRowException e)
        {
            return new RowResult(number, e.Format, null, e.Message);
        }
        catch (JsonException e)
        {
            string why = e.Message.Split(" LineNumber")[0];
            return new RowResult(number, null, null, $"is not valid JSON (column {e.BytePositionInLine + 1}): {why}");
        }
        catch (InvalidOperationException)
        {
            // JsonElement.GetString on an escaped half of a surrogate pair.
            return new RowResult(number, null, null, "holds half a character (an unpaired surrogate such as \\ud800)");
        }
    }
}
