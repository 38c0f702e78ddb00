using System.Globalization;
using System.Text.Json;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>The cases of fixtures/rl: inputs and outputs of the named functions of other code bases, run in float64.</summary>
internal static class Parity
{
    private static readonly AsyncLocal<List<ParityFigure>?> Recorded = new();
    private static readonly AsyncLocal<(string File, string Function)?> Current = new();

    /// <summary>Runs a check on every case of a function; fails if there is none. Tensors made inside are disposed of.</summary>
    public static void Each(string file, string function, Action<ParityCase> check)
    {
        string path = Path.Combine(AppContext.BaseDirectory, "fixtures", "rl", file);
        using JsonDocument document = JsonDocument.Parse(File.ReadAllText(path));
        int checkedCases = 0;
        foreach (JsonElement element in document.RootElement.GetProperty("cases").EnumerateArray())
        {
            if (element.GetProperty("fn").GetString() != function)
                continue;
            using DisposeScope scope = NewDisposeScope();
            Current.Value = (file, function);
            check(new ParityCase(element));
            Current.Value = null;
            checkedCases++;
        }

        Assert.True(checkedCases > 0, $"{file} has no case of {function}");
    }

    /// <summary>What the checks inside <paramref name="run"/> found, comparison by comparison.</summary>
    public static IReadOnlyList<ParityFigure> Record(Action run)
    {
        List<ParityFigure> figures = [];
        Recorded.Value = figures;
        run();
        Recorded.Value = null;
        return figures;
    }

    /// <summary>Asserts equality within a tolerance relative to max(1, |expected|), where the mask (if given) keeps.</summary>
    public static void Close(Tensor expected, Tensor actual, double tolerance, Tensor? mask = null)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor wide = actual.detach().to(ScalarType.Float64);
        Assert.Equal(expected.shape, wide.shape);
        Tensor error = (wide - expected).abs() / expected.abs().clamp(min: 1);
        if (mask is not null)
            error = where(mask > 0, error, zeros_like(error));
        double worst = error.max().item<double>();
        Note(worst, tolerance);
        Assert.True(worst <= tolerance, string.Create(CultureInfo.InvariantCulture,
            $"largest error {worst:g3} > {tolerance:g3}\nexpected {expected.cstr()}\nactual {wide.cstr()}"));
    }

    public static void Close(double expected, Tensor actual, double tolerance) => Close(tensor(expected), actual.reshape([]), tolerance);

    public static void Close(double expected, double actual, double tolerance)
    {
        double scale = Math.Max(1, Math.Abs(expected)), allowed = tolerance * scale;
        Note(Math.Abs(actual - expected) / scale, tolerance);
        Assert.InRange(actual, expected - allowed, expected + allowed);
    }

    private static void Note(double deviation, double tolerance)
    {
        if (Current.Value is { } at) Recorded.Value?.Add(new ParityFigure(at.File, at.Function, deviation, tolerance));
    }
}

/// <summary>One comparison: the largest deviation, relative to max(1, |expected|).</summary>
internal sealed record ParityFigure(string File, string Function, double Deviation, double Tolerance);

/// <summary>One case: paths such as "out.loss" name its values.</summary>
internal sealed class ParityCase(JsonElement element)
{
    public JsonElement this[string path] => path.Split('.').Aggregate(element, (at, name) => at.GetProperty(name));

    public bool Has(string path)
    {
        JsonElement at = element;
        foreach (string name in path.Split('.'))
        {
            if (at.ValueKind != JsonValueKind.Object || !at.TryGetProperty(name, out at))
                return false;
        }

        return at.ValueKind != JsonValueKind.Null;
    }

    public double Number(string path) => this[path].GetDouble();

    public string Text(string path) => this[path].GetString()!;

    public double[] Numbers(string path) => [.. this[path].EnumerateArray().Select(value => value.GetDouble())];

    public Tensor Tensor(string path, ScalarType type = ScalarType.Float64) => Tensor(this[path], type);

    /// <summary>A leaf that takes gradients.</summary>
    public Tensor Leaf(string path, ScalarType type = ScalarType.Float64) => Tensor(path, type).requires_grad_();

    public static Tensor Tensor(JsonElement value, ScalarType type)
    {
        List<long> shape = [];
        for (JsonElement at = value; at.ValueKind == JsonValueKind.Array; at = at[0])
            shape.Add(at.GetArrayLength());
        List<double> flat = [];
        Flatten(value, flat);
        return tensor(flat.ToArray(), [.. shape], dtype: ScalarType.Float64).to(type);
    }

    private static void Flatten(JsonElement value, List<double> into)
    {
        if (value.ValueKind == JsonValueKind.Array)
        {
            foreach (JsonElement item in value.EnumerateArray())
                Flatten(item, into);
        }
        else
        {
            into.Add(value.GetDouble());
        }
    }
}
