using System.Text.Json;
using Rlhf.Trainer.Methods;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>A checkpoint in memory. States go through JSON and tensors through bytes, as on storage.</summary>
internal sealed class MemoryCheckpoint : ICheckpointWriter, ICheckpointReader
{
    private readonly Dictionary<string, Dictionary<string, (long[] Shape, ScalarType Type, byte[] Bytes)>> tensors = [];
    private readonly Dictionary<string, string> states = [];

    /// <summary>What a method would write now.</summary>
    public static MemoryCheckpoint Of(ITrainingMethod method)
    {
        var checkpoint = new MemoryCheckpoint();
        method.Save(checkpoint);
        return checkpoint;
    }

    public void WriteTensors(string part, IEnumerable<(string Name, Tensor Value)> tensors) => this.tensors.Add(
        part, tensors.ToDictionary(t => t.Name, t => (t.Value.shape, t.Value.dtype, t.Value.detach().contiguous().bytes.ToArray())));

    public void WriteState<T>(string part, T state)
        where T : class => states.Add(part, JsonSerializer.Serialize(state));

    public IReadOnlyDictionary<string, Tensor> ReadTensors(string part)
    {
        if (!tensors.TryGetValue(part, out var stored))
            throw new CheckpointMismatchException(part, "there is no such part");
        return stored.ToDictionary(pair => pair.Key, pair =>
        {
            Tensor tensor = empty(pair.Value.Shape, pair.Value.Type);
            pair.Value.Bytes.CopyTo(tensor.bytes);
            return tensor;
        });
    }

    public T ReadState<T>(string part)
        where T : class =>
        states.TryGetValue(part, out string? json)
            ? JsonSerializer.Deserialize<T>(json)!
            : throw new CheckpointMismatchException(part, "there is no such part");

    public void Remove(string part, string tensor) => tensors[part].Remove(tensor);

    /// <summary>Asserts that two checkpoints hold the same parts with the same bytes.</summary>
    public static void AssertEqual(MemoryCheckpoint expected, MemoryCheckpoint actual)
    {
        Assert.Equal(expected.states, actual.states);
        Assert.Equal(expected.tensors.Keys, actual.tensors.Keys);
        foreach ((string part, var tensors) in expected.tensors)
        {
            Assert.Equal(tensors.Keys, actual.tensors[part].Keys);
            foreach ((string name, var tensor) in tensors)
                Assert.True(tensor.Bytes.AsSpan().SequenceEqual(actual.tensors[part][name].Bytes), $"{part}/{name} differs");
        }
    }

    /// <summary>
    /// Takes six steps straight, and three steps, a checkpoint, and three more in a fresh object; asserts that both end in the same state,
    /// byte for byte, and measured the same.
    /// </summary>
    public static void AssertResumes(Func<ITrainingMethod> fresh)
    {
        using ITrainingMethod straight = fresh();
        var expected = Enumerable.Range(0, 6).Select(_ => straight.Advance()).ToList();

        using ITrainingMethod first = fresh();
        for (int i = 0; i < 3; i++)
            first.Advance();
        using ITrainingMethod second = fresh();
        second.Load(Of(first));
        Assert.Equal(3, second.Step);
        AssertEqual(Of(first), Of(second));
        for (int i = 3; i < 6; i++)
        {
            IReadOnlyDictionary<string, double> metrics = second.Advance();
            foreach ((string name, double value) in expected[i].Where(pair => !pair.Key.StartsWith("timing/", StringComparison.Ordinal)))
                Assert.True(value.Equals(metrics[name]), $"step {i}: {name} is {metrics[name]:R}, not {value:R}");
        }

        AssertEqual(Of(straight), Of(second));
        Assert.Equal(straight.Summary(), second.Summary());
    }
}
