using System.Buffers;
using System.IO.Compression;
using System.IO.Pipelines;
using System.Runtime.CompilerServices;

namespace Rlhf.Rows;

/// <summary>A file that cannot be read as text at all.</summary>
public sealed class UnreadableFileException(string file, string why) : Exception($"The file '{file}' {why}.")
{
    /// <summary>The file.</summary>
    public string File { get; } = file;
}

/// <summary>One line without its end.</summary>
/// <param name="Number">From 1.</param>
/// <param name="Bytes">UTF-8 as it stands in the file, valid or not; empty when the line is too long.</param>
/// <param name="IsTooLong">It exceeds <see cref="TextLines.MaxLength"/>.</param>
internal readonly record struct TextLine(int Number, byte[] Bytes, bool IsTooLong)
{
    public bool IsBlank => !IsTooLong && Bytes.AsSpan().Trim(" \t"u8).IsEmpty;
}

/// <summary>Cuts a stream into lines, in bounded memory however long a line may be.</summary>
internal static class TextLines
{
    /// <summary>The longest line in bytes.</summary>
    public const int MaxLength = 1024 * 1024;

    /// <summary>
    /// What a gzip file may become. A kilobyte can hold a megabyte of one letter (1032 to 1 is the format's end), and ten megabytes fill a
    /// disk; rows that repeat each other a lot pack 30 to 1.
    /// </summary>
    private const int MostRatio = 200;

    private const long AlwaysUnpacked = 64L * 1024 * 1024; // bytes

    private static readonly (byte[] Magic, string Why)[] Foreign =
    [
        ("PAR1"u8.ToArray(), "is Parquet; convert it to JSON lines"),
        ([0x50, 0x4B, 0x03, 0x04], "is a zip archive; unpack it, or use gzip"),
        ([0x28, 0xB5, 0x2F, 0xFD], "is compressed by zstd; unpack it, or use gzip"),
        ([0xFF, 0xFE], "is UTF-16; save it as UTF-8"),
        ([0xFE, 0xFF], "is UTF-16; save it as UTF-8"),
    ];

    /// <summary>The lines of a stream, plain or gzip, without a byte order mark.</summary>
    /// <exception cref="UnreadableFileException">The bytes are no text, or the gzip data is damaged or unpacks to far too much.</exception>
    public static async IAsyncEnumerable<TextLine> ReadAsync(
        string file, Stream content, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await using var packed = new CountingStream(content);
        PipeReader raw = PipeReader.Create(packed, new StreamPipeReaderOptions(leaveOpen: true));
        bool gzip = StartsWith(await PeekAsync(raw, cancellation), [0x1F, 0x8B]);
        await using Stream bytes = gzip ? new GZipStream(raw.AsStream(), CompressionMode.Decompress) : raw.AsStream();
        PipeReader reader = gzip ? PipeReader.Create(bytes, new StreamPipeReaderOptions(bufferSize: 64 * 1024)) : raw;

        byte[] head;
        try
        {
            head = await PeekAsync(reader, cancellation);
        }
        catch (InvalidDataException e)
        {
            throw new UnreadableFileException(file, $"is damaged: its gzip data cannot be unpacked ({e.Message.TrimEnd('.')})");
        }

        foreach ((byte[] magic, string why) in Foreign)
        {
            if (StartsWith(head, magic))
                throw new UnreadableFileException(file, why);
        }

        int number = 0;
        bool tooLong = false;
        bool first = true;
        long done = 0;
        while (true)
        {
            ReadResult read;
            try
            {
                read = await reader.ReadAsync(cancellation);
            }
            catch (InvalidDataException e)
            {
                throw new UnreadableFileException(
                    file, $"is damaged: its gzip data breaks off after line {number} ({e.Message.TrimEnd('.')})");
            }

            ReadOnlySequence<byte> buffer = read.Buffer;
            if (gzip && done + buffer.Length > AlwaysUnpacked && (done + buffer.Length) / MostRatio > packed.Count)
            {
                throw new UnreadableFileException(
                    file, $"unpacks to more than {MostRatio} times its size, which no text does; if it is meant so, give it unpacked");
            }

            if (first && StartsWith(head, [0xEF, 0xBB, 0xBF]))
                buffer = buffer.Slice(3);
            first = false;

            while (buffer.PositionOf((byte)'\n') is { } end)
            {
                yield return Line(buffer.Slice(0, end));
                buffer = buffer.Slice(buffer.GetPosition(1, end));
            }

            if (read.IsCompleted)
            {
                if (!buffer.IsEmpty || tooLong)
                    yield return Line(buffer);
                break;
            }

            if (buffer.Length > MaxLength)
            {
                tooLong = true;
                buffer = buffer.Slice(buffer.End);
            }

            done += read.Buffer.Slice(0, buffer.Start).Length;
            reader.AdvanceTo(buffer.Start, buffer.End);
        }

        await reader.CompleteAsync();

        TextLine Line(ReadOnlySequence<byte> line)
        {
            bool drop = tooLong || line.Length > MaxLength;
            tooLong = false;
            return new TextLine(++number, drop ? [] : line.ToArray().AsSpan().TrimEnd((byte)'\r').ToArray(), drop);
        }
    }

    /// <summary>The first bytes, which stay unread.</summary>
    private static async Task<byte[]> PeekAsync(PipeReader reader, CancellationToken cancellation)
    {
        ReadResult read = await reader.ReadAtLeastAsync(4, cancellation);
        byte[] head = read.Buffer.Slice(0, Math.Min(4, read.Buffer.Length)).ToArray();
        reader.AdvanceTo(read.Buffer.Start);
        return head;
    }

    private static bool StartsWith(byte[] head, ReadOnlySpan<byte> magic) => head.AsSpan().StartsWith(magic);
}
