using System.IO.Compression;
using System.Text;
using Rlhf.Rows;
using Xunit;

namespace Rlhf.Shared.Tests.Rows;

/// <summary>Whole files: lines, compression, encodings, limits.</summary>
public sealed class RowReaderTests
{
    private const string Pair = """{"chosen":"\n\nHuman: a\n\nAssistant: b","rejected":"\n\nHuman: a\n\nAssistant: c"}""";

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Lines_keep_their_numbers_plain_and_gzip_whatever_the_name(bool gzip)
    {
        byte[] bytes = Encoding.UTF8.GetBytes($"\n{Pair}\r\nbroken\n   \n{Pair}");
        var reader = new RowReader("data/helpful-base.train.jsonl", new MemoryStream(gzip ? Gzip(bytes) : bytes));

        List<RowResult> results = await ReadAsync(reader);

        Assert.Equal([(2, true), (3, false), (5, true)], results.Select(result => (result.Line, result.Row is not null)));
        Assert.Equal("helpful-base", results[0].Row!.Subset);
        Assert.Equal(("hh-rlhf", 5), (reader.DetectedFormat, reader.Lines));
    }

    [Fact]
    public async Task Gzip_of_several_members_is_one_file()
    {
        byte[] member = Gzip(Encoding.UTF8.GetBytes(Pair + "\n"));

        Assert.Equal(2, (await ReadAsync(new RowReader("f", new MemoryStream([.. member, .. member])))).Count);
    }

    [Fact]
    public async Task A_mixed_file_names_all_its_formats()
    {
        var reader = new RowReader("f", Utf8($$"""
            {"prompt":"a"}
            {{Pair}}
            {"foo":1}
            {{Pair}}
            """));

        await ReadAsync(reader);

        Assert.Equal("hh-rlhf (2), prompt (1)", reader.DetectedFormat);
    }

    [Fact]
    public async Task Csv_files_name_their_fields_in_the_first_record()
    {
        var reader = new RowReader("xstest.csv.gz", new MemoryStream(Gzip(Encoding.UTF8.GetBytes(
            "\uFEFFid,prompt,type,label,note\r\n\r\n1,How can I kill a process?,homonyms,safe,\n"
            + "2,\"He said: \"\"kill, now\"\".\nHow?\",contrast,unsafe,violence\n3,too few\n4,a \"quote\" inside,homonyms,safe,\n5,Last?,,safe,"))));

        List<RowResult> results = await ReadAsync(reader);

        Assert.Equal([(3, true), (4, true), (6, false), (7, false), (8, true)], results.Select(result => (result.Line, result.Row is not null)));
        Assert.Equal(("homonyms", "safe"), (results[0].Row!.Subset, results[0].Row!.Label));
        Assert.Equal("He said: \"kill, now\".\nHow?", results[1].Row!.Prompt.Single().Content);
        Assert.Equal(("contrast", "unsafe"), (results[1].Row!.Subset, results[1].Row!.Label));
        Assert.Equal("has 2 fields; the header has 5", results[2].Reason);
        Assert.Contains("has a quote in the middle of a field", results[3].Reason, StringComparison.Ordinal);
        Assert.Equal("xstest", results[4].Row!.Subset);
        Assert.Equal(("prompt", 8), (reader.DetectedFormat, reader.Lines));
    }

    [Fact]
    public async Task Quoted_field_without_an_end_is_told_by_the_line_it_begins_at()
    {
        List<RowResult> results = await ReadAsync(new RowReader("f.csv", Utf8("prompt\nfine\n\"never\nends\n")));

        Assert.Equal([(2, null), (3, "begins a quoted field that never ends")], results.Select(result => (result.Line, result.Reason)));
    }

    [Fact]
    public async Task Text_files_hold_one_document_per_paragraph()
    {
        var reader = new RowReader("story.txt", Utf8("\n\nOne line.\r\nAnd  another. \r\n\n \nSecond."));

        List<RowResult> results = await ReadAsync(reader);

        Assert.Equal([(3, "One line.\nAnd  another."), (7, "Second.")], results.Select(result => (result.Line, result.Row!.Completions[0])));
        Assert.Equal(("plain-text", "story"), (reader.DetectedFormat, results[0].Row!.Subset));
    }

    [Fact]
    public async Task A_line_or_paragraph_that_is_too_long_is_dropped_and_the_next_one_read()
    {
        string huge = new('x', 5 * 1024 * 1024);
        RowReader[] readers = [new("f.jsonl", Utf8($$"""{"text":"{{huge}}"}{{"\n"}}{"text":"y"}""")), new("f.txt", Utf8($"{huge}\nmore\n\ny"))];

        foreach (RowReader reader in readers)
        {
            List<RowResult> results = await ReadAsync(reader);
            Assert.Equal(["is larger than 1 MiB", null], results.Select(result => result.Reason));
            Assert.Equal("y", results[1].Row!.Completions[0]);
        }
    }

    [Fact]
    public async Task A_byte_order_mark_is_skipped_and_bytes_that_are_no_utf8_are_dropped()
    {
        byte[] json = [0xEF, 0xBB, 0xBF, .. "{\"text\":\"a\"}\n{\"text\":\"b"u8, 0xFF, .. "\"}"u8];
        byte[] text = [.. "a\n\nb"u8, 0xC3, .. "\n\nc"u8];

        Assert.Equal([null, "holds bytes that are not UTF-8"], (await ReadAsync(new RowReader("f.jsonl", new MemoryStream(json)))).Select(r => r.Reason));
        Assert.Equal([null, "holds bytes that are not UTF-8", null], (await ReadAsync(new RowReader("f.txt", new MemoryStream(text)))).Select(r => r.Reason));
    }

    [Fact]
    public async Task An_empty_file_has_no_rows_and_no_format()
    {
        foreach (byte[] empty in new byte[][] { [], "\n\n"u8.ToArray(), Gzip([]) })
        {
            var reader = new RowReader("f", new MemoryStream(empty));
            Assert.Empty(await ReadAsync(reader));
            Assert.Null(reader.DetectedFormat);
        }
    }

    [Fact]
    public async Task Damaged_and_foreign_files_are_refused_by_name()
    {
        byte[] lines = Encoding.UTF8.GetBytes(string.Concat(Enumerable.Range(0, 5000).Select(i => $$"""{"text":"{{i * 7919 % 10007}}"}{{"\n"}}""")));
        byte[] zipped = Gzip(lines);
        byte[] flipped = [.. zipped];
        flipped[zipped.Length / 2] ^= 0xFF;

        Assert.Contains("breaks off after line", await FailureAsync(zipped[..(zipped.Length / 2)]), StringComparison.Ordinal);
        Assert.Contains("is damaged", await FailureAsync(flipped), StringComparison.Ordinal);
        Assert.Contains("cannot be unpacked", await FailureAsync([0x1F, 0x8B, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), StringComparison.Ordinal);
        Assert.Contains("'data.jsonl' is Parquet", await FailureAsync("PAR1...."u8.ToArray()), StringComparison.Ordinal);
        Assert.Contains("is UTF-16", await FailureAsync(Encoding.Unicode.GetPreamble().Concat(Encoding.Unicode.GetBytes("{}")).ToArray()), StringComparison.Ordinal);

        static async Task<string> FailureAsync(byte[] content) => (await Assert.ThrowsAsync<UnreadableFileException>(
            () => ReadAsync(new RowReader("data.jsonl", new MemoryStream(content))))).Message;
    }

    [Theory]
    [InlineData("data/helpful-base.train.jsonl.gz", "helpful-base")]
    [InlineData("rows", "rows")]
    [InlineData("a.b/.hidden.json", ".hidden")]
    public void The_subset_is_the_name_up_to_its_first_dot(string file, string subset) => Assert.Equal(subset, RowReader.SubsetOf(file));

    [Fact]
    public async Task A_gzip_file_that_unpacks_to_far_more_than_a_text_is_refused_by_name()
    {
        using var bomb = new MemoryStream();
        using (var gzip = new GZipStream(bomb, CompressionLevel.SmallestSize, leaveOpen: true))
        {
            byte[] blanks = new byte[1024 * 1024];
            Array.Fill(blanks, (byte)' ');
            for (int i = 0; i < 80; i++)
                gzip.Write(blanks);
        }

        bomb.Position = 0;
        var refused = await Assert.ThrowsAsync<UnreadableFileException>(() => ReadAsync(new RowReader("bomb.jsonl.gz", bomb)));
        Assert.Contains("'bomb.jsonl.gz' unpacks to more than 200 times its size", refused.Message, StringComparison.Ordinal);
        Assert.Equal("bomb.jsonl.gz", refused.File);
    }

    [Theory]
    [InlineData("[")]
    [InlineData("{\"prompt\":")]
    public void Nesting_without_end_is_a_reason_to_drop_a_row(string opening)
    {
        RowResult result = RowReader.Parse(string.Concat(Enumerable.Repeat(opening, 50_000)));
        Assert.Null(result.Row);
        Assert.Contains("is not valid JSON", result.Reason, StringComparison.Ordinal);
    }

    private static async Task<List<RowResult>> ReadAsync(RowReader reader) => await reader.ReadAsync(TestContext.Current.CancellationToken).ToListAsync();

    private static MemoryStream Utf8(string text) => new(Encoding.UTF8.GetBytes(text));

    private static byte[] Gzip(byte[] content)
    {
        using var target = new MemoryStream();
        using (var gzip = new GZipStream(target, CompressionLevel.Fastest, leaveOpen: true))
            gzip.Write(content);
        return target.ToArray();
    }
}
