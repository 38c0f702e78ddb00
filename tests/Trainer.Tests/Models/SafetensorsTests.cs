using System.Buffers.Binary;
using System.Text;
using Rlhf.Trainer.Models;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Models;

public sealed class SafetensorsTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    private string File => Path.Combine(folder.Path, "tensors.safetensors");

    [Fact]
    public void Every_type_comes_back_as_it_was_written()
    {
        using var scope = NewDisposeScope();
        Tensor numbers = tensor(new[] { 1.5f, -2.25f, 0f, 3e-3f, 100f, -7f }, [2, 3]);
        (string Name, Tensor Value)[] written =
        [
            ("f32", numbers), ("f64", numbers.to(ScalarType.Float64)), ("f16", numbers.to(ScalarType.Float16)),
            ("bf16", numbers.to(ScalarType.BFloat16)), ("i64", tensor(new[] { long.MinValue, 0, long.MaxValue })),
            ("transposed", numbers.t()), ("scalar", tensor(4.5f)), ("none", empty([0, 3])),
        ];
        Safetensors.Write(File, written);
        using SafetensorsFile file = Safetensors.Open(File);
        Assert.Equal(written.Select(w => w.Name).Order(StringComparer.Ordinal), file.Names);
        foreach ((string name, Tensor value) in written)
        {
            Tensor read = file.Read(name);
            Assert.Equal(value.dtype, read.dtype);
            Assert.Equal(value.shape, read.shape);
            Assert.True(value.contiguous().bytes.SequenceEqual(read.bytes), name);
        }
    }

    [Fact]
    public void Equal_tensors_give_equal_bytes_in_whatever_order_they_are_given()
    {
        using var scope = NewDisposeScope();
        Tensor a = arange(6).to(ScalarType.Float32), b = ones(2, 2);
        using var first = new MemoryStream();
        using var second = new MemoryStream();
        Safetensors.Write(first, [("b", b), ("a", a)]);
        Safetensors.Write(second, [("a", a.clone()), ("b", b.clone())]);
        Assert.Equal(first.ToArray(), second.ToArray());
        Assert.Equal(0UL, BinaryPrimitives.ReadUInt64LittleEndian(first.ToArray()) % 8);
    }

    [Fact]
    public void Metadata_comes_back()
    {
        using Tensor a = ones(1);
        Safetensors.Write(File, [("a", a)], new Dictionary<string, string> { ["format"] = "pt", ["step"] = "12" });
        using SafetensorsFile file = Safetensors.Open(File);
        Assert.Equal("12", file.Metadata["step"]);
    }

    public static TheoryData<string, string> DamagedHeaders => new()
    {
        { """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}""", "does not fill" },
        { """{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""", "starts at byte 4" },
        { """{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}""", "at byte 0" },
        { """{"a":{"dtype":"F8","shape":[4],"data_offsets":[0,4]}}""", "type F8" },
        { """{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}""", "impossible" },
        { """{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}""", "does not fill" },
        { """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", "take 8 bytes and the file has 4" },
        { """{"a":{"shape":[1],"data_offsets":[0,4]}}""", "damaged" },
        { """{"a":3}""", "damaged" },
        { """["a"]""", "damaged" },
        { """{"a":""", "damaged" },
    };

    [Theory]
    [MemberData(nameof(DamagedHeaders))]
    public void A_damaged_header_is_refused_with_the_reason(string header, string reason)
    {
        WriteRaw((ulong)header.Length, header, new byte[4]);
        ModelFormatException e = Assert.Throws<ModelFormatException>(() => Safetensors.Open(File));
        Assert.Contains(File, e.Message, StringComparison.Ordinal);
        Assert.Contains(reason, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_is_none_is_refused()
    {
        WriteRaw(ulong.MaxValue, "{}", []);
        Assert.Contains(
            "not a safetensors file", Assert.Throws<ModelFormatException>(() => Safetensors.Open(File)).Message, StringComparison.Ordinal);
        System.IO.File.WriteAllBytes(File, [1, 2, 3]);
        Assert.Contains(
            "not a safetensors file", Assert.Throws<ModelFormatException>(() => Safetensors.Open(File)).Message, StringComparison.Ordinal);
        System.IO.File.Delete(File);
        Assert.Contains(
            "no such file", Assert.Throws<ModelFormatException>(() => Safetensors.Open(File)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_was_cut_off_is_refused()
    {
        using (Tensor a = ones(100)) Safetensors.Write(File, [("a", a)]);
        byte[] whole = System.IO.File.ReadAllBytes(File);
        foreach (int length in (int[])[0, 7, 20, whole.Length - 1])
        {
            System.IO.File.WriteAllBytes(File, whole[..length]);
            Assert.Throws<ModelFormatException>(() => Safetensors.Open(File));
        }
    }

    public void Dispose() => folder.Dispose();

    private void WriteRaw(ulong length, string header, byte[] data)
    {
        byte[] prefix = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(prefix, length);
        System.IO.File.WriteAllBytes(File, [.. prefix, .. Encoding.UTF8.GetBytes(header), .. data]);
    }
}
