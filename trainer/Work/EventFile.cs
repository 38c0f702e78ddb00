using System.Buffers.Binary;
using System.Numerics;
using System.Text;
using Rlhf.Jobs;
using Rlhf.Storage;

namespace Rlhf.Trainer.Work;

/// <summary>
/// A stage's metrics as TensorBoard reads them: a TFRecord file of Event messages with scalar summaries. The wall time of an event is the
/// time that the stage had trained for, so the file is free of clocks and TensorBoard's relative axis shows training time.
/// </summary>
internal static class EventFile
{
    private const int Fixed64 = 1, LengthDelimited = 2, Varint = 0, Fixed32 = 5;

    /// <summary>
    /// Writes <c>events.out.tfevents.{stage}</c> from the metric rows of all of the stage's attempts. Where attempts have recomputed a
    /// step, the newest counts.
    /// </summary>
    public static async Task WriteAsync(IBlobStore blobs, string runId, string stage, string folder, CancellationToken cancellation)
    {
        IReadOnlyCollection<MetricRow> rows = await ReadRowsAsync(blobs, runId, stage, cancellation);
        if (rows.Count == 0)
            return;
        using FileStream file = File.Create(Path.Combine(folder, $"events.out.tfevents.{stage}"));
        Write(file, stage, rows);
    }

    /// <summary>Writes rows, which are in the order of their steps.</summary>
    internal static void Write(Stream file, string stage, IEnumerable<MetricRow> rows)
    {
        var version = new MemoryStream();
        WriteWallTime(version, 0);
        WriteBytes(version, 3, "brain.Event:2"u8);
        WriteRecord(file, version);

        double seconds = 0;
        foreach (MetricRow row in rows)
        {
            seconds += row.Seconds;
            var summary = new MemoryStream();
            foreach ((string name, double value) in row.Metrics)
                WriteScalar(summary, $"{stage}/{name}", (float)value);
            var message = new MemoryStream();
            WriteWallTime(message, seconds);
            WriteTag(message, 2, Varint);
            WriteVarint(message, (ulong)row.Step);
            WriteBytes(message, 5, summary.ToArray());
            WriteRecord(file, message);
        }
    }

    /// <summary>The checksum of TFRecord files: CRC-32C, rotated and offset so that a checksum of a checksum is not trivial.</summary>
    internal static uint MaskedCrc(ReadOnlySpan<byte> data)
    {
        uint crc = 0xFFFFFFFF;
        foreach (byte value in data)
            crc = BitOperations.Crc32C(crc, value);
        crc = ~crc;
        return BitOperations.RotateRight(crc, 15) + 0xA282EAD8;
    }

    private static async Task<IReadOnlyCollection<MetricRow>> ReadRowsAsync(
        IBlobStore blobs, string runId, string stage, CancellationToken cancellation)
    {
        var rows = new SortedDictionary<int, MetricRow>();
        // In the order of names, which begin with the fence: a newer attempt's row replaces an older one's.
        await foreach (BlobEntry entry in blobs.ListAsync(BlobLayout.Attempts(runId, stage), cancellation))
        {
            if (!entry.Path.EndsWith(BlobLayout.Metrics("/"), StringComparison.Ordinal)
                || await blobs.ReadAsync(entry.Path, cancellation) is not { } blob)
            {
                continue;
            }

            foreach (string line in blob.Content.ToString().Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                MetricRow row = CasDocument.Parse<MetricRow>(entry.Path, BinaryData.FromString(line));
                rows[row.Step] = row;
            }
        }

        return rows.Values;
    }

    /// <summary>Summary.value (field 1): tag (1) and simple_value (2).</summary>
    private static void WriteScalar(MemoryStream summary, string tag, float value)
    {
        var scalar = new MemoryStream();
        WriteBytes(scalar, 1, Encoding.UTF8.GetBytes(tag));
        WriteTag(scalar, 2, Fixed32);
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteSingleLittleEndian(bytes, value);
        scalar.Write(bytes);
        WriteBytes(summary, 1, scalar.ToArray());
    }

    private static void WriteWallTime(MemoryStream message, double seconds)
    {
        WriteTag(message, 1, Fixed64);
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteDoubleLittleEndian(bytes, seconds);
        message.Write(bytes);
    }

    private static void WriteBytes(MemoryStream message, int field, ReadOnlySpan<byte> bytes)
    {
        WriteTag(message, field, LengthDelimited);
        WriteVarint(message, (ulong)bytes.Length);
        message.Write(bytes);
    }

    private static void WriteTag(MemoryStream message, int field, int wireType) => WriteVarint(message, (ulong)(field << 3 | wireType));

    private static void WriteVarint(MemoryStream message, ulong value)
    {
        for (; value >= 0x80; value >>= 7)
            message.WriteByte((byte)(value | 0x80));
        message.WriteByte((byte)value);
    }

    private static void WriteRecord(Stream file, MemoryStream message)
    {
        byte[] data = message.ToArray();
        Span<byte> header = stackalloc byte[12];
        BinaryPrimitives.WriteUInt64LittleEndian(header, (ulong)data.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(header[8..], MaskedCrc(header[..8]));
        Span<byte> footer = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(footer, MaskedCrc(data));
        file.Write(header);
        file.Write(data);
        file.Write(footer);
    }
}
