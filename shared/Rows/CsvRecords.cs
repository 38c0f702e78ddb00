using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Unicode;
using CsvHelper;
using CsvHelper.Configuration;

namespace Rlhf.Rows;

/// <summary>A record of a file of comma-separated values (RFC 4180).</summary>
/// <param name="Line">The number of its first line, from 1.</param>
/// <param name="LastLine">The number of its last line: a quoted field may hold line ends.</param>
/// <param name="Fields">Its fields; empty when it cannot be read.</param>
/// <param name="Reason">Why it cannot be read; null when it can.</param>
internal readonly record struct CsvRecord(int Line, int LastLine, string[] Fields, string? Reason);

/// <summary>Joins lines to records and cuts these into fields.</summary>
internal static class CsvRecords
{
    private static readonly CsvConfiguration Configuration = new(CultureInfo.InvariantCulture) { Mode = CsvMode.RFC4180 };

    /// <summary>The records of a file, blank lines left out. A record is over at the first line end outside quotes.</summary>
    public static async IAsyncEnumerable<CsvRecord> ReadAsync(
        IAsyncEnumerable<TextLine> lines, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var record = new MemoryStream();
        (int first, int last, int quotes, bool tooLong) = (0, 0, 0, false);
        await foreach (TextLine line in lines.WithCancellation(cancellation))
        {
            last = line.Number;
            if (first == 0 && line.IsBlank)
                continue;
            if (first == 0)
                (first, quotes, tooLong) = (line.Number, 0, false);
            else
                record.WriteByte((byte)'\n');
            tooLong |= line.IsTooLong || record.Length + line.Bytes.Length > TextLines.MaxLength;
            if (tooLong)
                record.SetLength(0);
            else
                record.Write(line.Bytes);
            quotes += line.Bytes.AsSpan().Count((byte)'"');
            if (quotes % 2 == 0)
                yield return Take();
        }

        if (first > 0)
            yield return Take() with { Fields = [], Reason = "begins a quoted field that never ends" };

        CsvRecord Take()
        {
            byte[] bytes = record.ToArray();
            record.SetLength(0);
            int start = first;
            first = 0;
            if (tooLong)
                return new CsvRecord(start, last, [], $"is larger than {TextLines.MaxLength / 1024 / 1024} MiB");
            return Utf8.IsValid(bytes)
                ? Cut(start, last, Encoding.UTF8.GetString(bytes))
                : new CsvRecord(start, last, [], "holds bytes that are not UTF-8");
        }
    }

    private static CsvRecord Cut(int first, int last, string record)
    {
        using var parser = new CsvParser(new StringReader(record), Configuration);
        try
        {
            return parser.Read()
                ? new CsvRecord(first, last, parser.Record!, null)
                : new CsvRecord(first, last, [], "has no fields");
        }
        catch (BadDataException)
        {
            return new CsvRecord(first, last, [], "has a quote in the middle of a field; quote the field and double the quote");
        }
    }
}
