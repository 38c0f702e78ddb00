using System.Buffers.Binary;
using System.Text;
using System.Text.Json;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Models;

/// <summary>
/// The safetensors format: an 8-byte little-endian header length, a JSON header, raw little-endian tensors
/// (https://huggingface.co/docs/safetensors). Writing the same tensors gives the same bytes.
/// </summary>
public static class Safetensors
{
    /// <summary>Headers beyond this size are refused, as by the reference implementation.</summary>
    internal const long MaxHeaderLength = 100_000_000;

    private static readonly Dictionary<string, ScalarType> TypesByName = new()
    {
        ["F64"] = ScalarType.Float64,
        ["F32"] = ScalarType.Float32,
        ["F16"] = ScalarType.Float16,
        ["BF16"] = ScalarType.BFloat16,
        ["I64"] = ScalarType.Int64,
        ["I32"] = ScalarType.Int32,
        ["I16"] = ScalarType.Int16,
        ["I8"] = ScalarType.Int8,
        ["U8"] = ScalarType.Byte,
        ["BOOL"] = ScalarType.Bool,
    };

    private static readonly Dictionary<ScalarType, string> NamesByType = TypesByName.ToDictionary(t => t.Value, t => t.Key);

    /// <summary>Opens a file and checks its header; tensors are read one by one from the result.</summary>
    /// <exception cref="ModelFormatException">Missing or damaged file.</exception>
    public static SafetensorsFile Open(string path) => new(path);

    /// <summary>Writes a file, sorted by name. The file appears under its name only once it is complete.</summary>
    public static void Write(
        string path, IEnumerable<(string Name, Tensor Value)> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        string temporary = $"{path}.{Environment.ProcessId}.tmp";
        using (var stream = new FileStream(temporary, FileMode.Create, FileAccess.Write, FileShare.None, 1 << 16))
            Write(stream, tensors, metadata);
        File.Move(temporary, path, overwrite: true);
    }

    /// <summary>Writes to a stream, sorted by name.</summary>
    public static void Write(
        Stream stream, IEnumerable<(string Name, Tensor Value)> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        (string Name, Tensor Value)[] sorted = [.. tensors.OrderBy(t => t.Name, StringComparer.Ordinal)];
        byte[] header = Header(sorted, metadata ?? new Dictionary<string, string> { ["format"] = "pt" });
        Span<byte> length = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(length, (ulong)header.Length);
        stream.Write(length);
        stream.Write(header);
        foreach ((_, Tensor value) in sorted)
        {
            using var scope = NewDisposeScope();
            using var noGradient = no_grad();
            Tensor plain = value.detach().cpu().contiguous();
            WriteBytes(stream, plain);
        }
    }

    internal static ScalarType? TypeOf(string name) => TypesByName.TryGetValue(name, out ScalarType type) ? type : null;

    internal static string SupportedTypes => string.Join(", ", TypesByName.Keys);

    private static byte[] Header((string Name, Tensor Value)[] tensors, IReadOnlyDictionary<string, string> metadata)
    {
        using var buffer = new MemoryStream();
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            json.WriteStartObject("__metadata__");
            foreach ((string key, string value) in metadata.OrderBy(m => m.Key, StringComparer.Ordinal)) json.WriteString(key, value);
            json.WriteEndObject();
            long offset = 0;
            foreach ((string name, Tensor value) in tensors)
            {
                if (!NamesByType.TryGetValue(value.dtype, out string? type))
                    throw new ArgumentException($"Tensor '{name}' has type {value.dtype}, which safetensors cannot hold.", nameof(tensors));
                json.WriteStartObject(name);
                json.WriteString("dtype", type);
                json.WriteStartArray("shape");
                foreach (long size in value.shape) json.WriteNumberValue(size);
                json.WriteEndArray();
                json.WriteStartArray("data_offsets");
                json.WriteNumberValue(offset);
                json.WriteNumberValue(offset += value.numel() * value.element_size());
                json.WriteEndArray();
                json.WriteEndObject();
            }

            json.WriteEndObject();
        }

        // Spaces up to a multiple of eight keep the tensors aligned.
        while (buffer.Length % 8 != 0) buffer.WriteByte((byte)' ');
        return buffer.ToArray();
    }

    /// <summary>Spans end at 2 GB; larger tensors go in slices of rows.</summary>
    private static void WriteBytes(Stream stream, Tensor plain)
    {
        long bytes = plain.numel() * plain.element_size();
        if (bytes == 0) return;
        if (bytes <= 1 << 30)
        {
            stream.Write(plain.bytes);
            return;
        }

        for (long row = 0; row < plain.shape[0]; row++)
        {
            using Tensor slice = plain[row];
            WriteBytes(stream, slice);
        }
    }
}

/// <summary>A safetensors file opened for reading.</summary>
public sealed class SafetensorsFile : IDisposable
{
    private readonly string path;
    private readonly FileStream stream;
    private readonly long dataStart;
    private readonly SortedDictionary<string, Entry> entries = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, string> metadata = new(StringComparer.Ordinal);

    internal SafetensorsFile(string path)
    {
        this.path = path;
        if (!File.Exists(path)) throw new ModelFormatException(path, "no such file.");
        stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16);
        try
        {
            dataStart = ReadHeader();
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    /// <summary>The tensors' names, sorted.</summary>
    public IReadOnlyCollection<string> Names => entries.Keys;

    public IReadOnlyDictionary<string, string> Metadata => metadata;

    public bool Contains(string name) => entries.ContainsKey(name);

    public long[] ShapeOf(string name) => (long[])Find(name).Shape.Clone();

    /// <summary>Reads one tensor, in the type it is stored in.</summary>
    public Tensor Read(string name)
    {
        Entry entry = Find(name);
        Tensor result = empty(entry.Shape, entry.Type);
        stream.Position = dataStart + entry.Start;
        Fill(result, name);
        return result;
    }

    /// <summary>Reads one tensor into an existing one of the same shape, converting its type.</summary>
    public void ReadInto(string name, Tensor destination)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        destination.copy_(Read(name));
    }

    public void Dispose() => stream.Dispose();

    private Entry Find(string name) =>
        entries.TryGetValue(name, out Entry? entry) ? entry : throw new ModelFormatException(path, $"tensor '{name}' is missing.");

    private void Fill(Tensor tensor, string name)
    {
        long bytes = tensor.numel() * tensor.element_size();
        if (bytes == 0) return;
        if (bytes > 1 << 30 && tensor.dim() > 0)
        {
            for (long row = 0; row < tensor.shape[0]; row++)
            {
                using Tensor slice = tensor[row];
                Fill(slice, name);
            }

            return;
        }

        try
        {
            stream.ReadExactly(tensor.bytes);
        }
        catch (EndOfStreamException e)
        {
            throw new ModelFormatException(path, $"the file ends within tensor '{name}'; copy it again.", e);
        }
    }

    private long ReadHeader()
    {
        Span<byte> prefix = stackalloc byte[8];
        if (stream.ReadAtLeast(prefix, 8, throwOnEndOfStream: false) < 8)
            throw new ModelFormatException(path, "not a safetensors file: shorter than its 8-byte header length.");
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (length > (ulong)Math.Min(Safetensors.MaxHeaderLength, stream.Length - 8))
            throw new ModelFormatException(path, $"not a safetensors file, or cut off: it announces a header of {length} bytes.");

        var header = new byte[length];
        stream.ReadExactly(header);
        long size = stream.Length - 8 - header.Length;
        try
        {
            using JsonDocument json = JsonDocument.Parse(Encoding.UTF8.GetString(header));
            foreach (JsonProperty property in json.RootElement.EnumerateObject())
            {
                if (property.Name == "__metadata__")
                {
                    foreach (JsonProperty item in property.Value.EnumerateObject()) metadata[item.Name] = item.Value.GetString() ?? "";
                }
                else if (!entries.TryAdd(property.Name, ReadEntry(property)))
                {
                    throw Damaged($"tensor '{property.Name}' is listed twice");
                }
            }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or KeyNotFoundException or FormatException)
        {
            throw new ModelFormatException(path, $"the safetensors header is damaged: {e.Message}", e);
        }

        long expected = 0;
        foreach ((string name, Entry entry) in entries.OrderBy(e => e.Value.Start).ThenBy(e => e.Value.End))
        {
            if (entry.Start != expected) throw Damaged($"tensor '{name}' starts at byte {entry.Start}, not at {expected}");
            expected = entry.End;
        }

        if (expected != size)
            throw new ModelFormatException(
                path, $"the tensors take {expected} bytes and the file has {size}: it is damaged or cut off; copy it again.");
        return 8 + header.Length;
    }

    private Entry ReadEntry(JsonProperty property)
    {
        string typeName = property.Value.GetProperty("dtype").GetString() ?? "";
        ScalarType type = Safetensors.TypeOf(typeName)
            ?? throw Damaged($"tensor '{property.Name}' has type {typeName}; supported are {Safetensors.SupportedTypes}");
        long[] shape = [.. property.Value.GetProperty("shape").EnumerateArray().Select(s => s.GetInt64())];
        long[] offsets = [.. property.Value.GetProperty("data_offsets").EnumerateArray().Select(o => o.GetInt64())];
        if (offsets.Length != 2 || offsets[0] < 0 || offsets[1] < offsets[0] || shape.Any(s => s < 0))
            throw Damaged($"tensor '{property.Name}' has an impossible place or shape");
        UInt128 bytes = (UInt128)type.ElementSize();
        foreach (long extent in shape)
        {
            bytes *= (ulong)extent;
            if (bytes > long.MaxValue) break;
        }

        if (bytes != (ulong)(offsets[1] - offsets[0]))
            throw Damaged(
                $"tensor '{property.Name}' of shape [{string.Join(", ", shape)}] does not fill its {offsets[1] - offsets[0]} bytes");
        return new Entry(type, shape, offsets[0], offsets[1]);
    }

    private ModelFormatException Damaged(string problem) => new(path, $"the safetensors header is damaged: {problem}.");

    private sealed record Entry(ScalarType Type, long[] Shape, long Start, long End);
}
