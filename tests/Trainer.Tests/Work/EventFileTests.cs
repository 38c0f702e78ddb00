using System.Buffers.Binary;
using System.Numerics;
using System.Text;
using Rlhf.Trainer.Work;
using Xunit;

namespace Rlhf.Trainer.Tests.Work;

public sealed class EventFileTests
{
    [Fact]
    public void ChecksumIsMaskedCrc32C()
    {
        // CRC-32C of "123456789" is 0xE3069283 (RFC 3720, appendix B.4 gives the polynomial); TFRecord rotates and offsets it.
        uint expected = BitOperations.RotateRight(0xE3069283u, 15) + 0xA282EAD8u;

        Assert.Equal(expected, EventFile.MaskedCrc("123456789"u8));
    }

    [Fact]
    public void RecordsHoldVersionAndScalars()
    {
        using var file = new MemoryStream();
        EventFile.Write(file, "sft", [new MetricRow("sft", 1, 0.5, new Dictionary<string, double> { ["loss"] = 2 })]);

        byte[][] records = [.. Records(file.ToArray())];

        Assert.Equal(2, records.Length);
        Assert.Contains("brain.Event:2", Encoding.UTF8.GetString(records[0]), StringComparison.Ordinal);
        // wall_time (1, double) .5; step (2, varint) 1; summary (5) { value (1) { tag (1) "sft/loss", simple_value (2, float) 2 } }
        byte[] scalar = [0x0A, 8, .. "sft/loss"u8, 0x15, 0, 0, 0, 0x40];
        byte[] summary = [0x0A, (byte)scalar.Length, .. scalar];
        Assert.Equal([0x09, 0, 0, 0, 0, 0, 0, 0xE0, 0x3F, 0x10, 1, 0x2A, (byte)summary.Length, .. summary], records[1]);
    }

    private static IEnumerable<byte[]> Records(byte[] file)
    {
        for (int at = 0; at < file.Length;)
        {
            int length = (int)BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(at));
            Assert.Equal(EventFile.MaskedCrc(file.AsSpan(at, 8)), BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(at + 8)));
            byte[] record = file[(at + 12)..(at + 12 + length)];
            Assert.Equal(EventFile.MaskedCrc(record), BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(at + 12 + length)));
            yield return record;
            at += 16 + length;
        }
    }
}
