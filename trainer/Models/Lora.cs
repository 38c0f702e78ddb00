using Rlhf.Trainer.Native;
using TorchSharp.Modules;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace Rlhf.Trainer.Models;

/// <summary>What an adapter is made of.</summary>
/// <param name="Rank">The inner dimension r of each pair of matrices.</param>
/// <param name="Alpha">The pair's product is scaled by alpha / r.</param>
/// <param name="Targets">
/// The matrices that get a pair, by module name as in PEFT: <c>q_proj</c>, <c>attn.c_proj</c>, ... match every module that ends so;
/// <see cref="AllLinear"/> is every matrix but the head. Empty: the projections of attention.
/// </param>
public sealed record LoraOptions(int Rank, double Alpha, IReadOnlyList<string> Targets)
{
    /// <summary>PEFT's name for every matrix but the head.</summary>
    public const string AllLinear = "all-linear";
}

/// <summary>An adapter does not fit the model that it is for.</summary>
public sealed class LoraTargetException(string message) : Exception(message);

/// <summary>
/// A low-rank adapter (LoRA; Hu et al. 2022, section 4.1): beside the frozen matrix W of a linear module learn A, (r, inputs), and B,
/// (outputs, r), and the module computes Wx + (alpha / r)·B(Ax). A starts as in PEFT, uniform within 1/sqrt(inputs) (Kaiming's bound
/// with a = sqrt(5)), B at zero: the adapted model starts as the model itself, to the last bit.
/// </summary>
public sealed class Lora : IDisposable
{
    private readonly Dictionary<string, LoraPair> pairs;

    /// <param name="options">Rank and scale.</param>
    /// <param name="modules">The matrices that get a pair, in the order of the network.</param>
    /// <param name="device">Where the model is.</param>
    /// <param name="seed">Decides A.</param>
    internal Lora(LoraOptions options, IReadOnlyList<(string Name, int Inputs, int Outputs)> modules, Device device, ulong seed)
    {
        Options = options;
        using IDisposable noGradient = no_grad();
        double scale = options.Alpha / options.Rank;
        var uniform = new UniformSource(seed);
        pairs = modules.ToDictionary(m => m.Name, m => new LoraPair(
            Drawn(options.Rank, m.Inputs, uniform, device), NewParameter(zeros([m.Outputs, options.Rank], device: device)), scale));
        Modules = [.. modules.Select(m => m.Name)];
    }

    /// <summary>Rank and alpha, and the targets as they were asked for.</summary>
    public LoraOptions Options { get; }

    /// <summary>The adapted modules by their full names, in the order of the network.</summary>
    public IReadOnlyList<string> Modules { get; }

    /// <summary>The matrices that learn: <c>{module}.lora_A.weight</c> (r, inputs) and <c>{module}.lora_B.weight</c> (outputs, r).</summary>
    public IReadOnlyList<(string Name, Parameter Value)> NamedWeights() =>
    [
        .. Modules.SelectMany(m => new[] { ($"{m}.lora_A.weight", pairs[m].A), ($"{m}.lora_B.weight", pairs[m].B) }),
    ];

    /// <summary>The pair of a module; null where it has none.</summary>
    internal LoraPair? Of(string module) => pairs.GetValueOrDefault(module);

    /// <summary>Which of a model's matrices the targets mean.</summary>
    /// <param name="targets">See <see cref="LoraOptions.Targets"/>.</param>
    /// <param name="modules">The full names of the model's matrices.</param>
    /// <param name="attention">What no targets mean: endings of the projections of attention.</param>
    /// <exception cref="LoraTargetException">A target is no module of the model.</exception>
    internal static IReadOnlySet<string> Select(
        IReadOnlyList<string> targets, IReadOnlyList<string> modules, IReadOnlyList<string> attention)
    {
        var selected = new HashSet<string>();
        foreach (string target in targets.Count > 0 ? targets : attention)
        {
            string[] matching = [.. modules.Where(m => target == LoraOptions.AllLinear || Ends(m, target))];
            if (matching.Length == 0)
            {
                throw new LoraTargetException(
                    $"LoRA target '{target}' is no linear module of the model. Its modules are {string.Join(", ", Endings(modules))}; "
                    + $"'{LoraOptions.AllLinear}' takes them all.");
            }

            selected.UnionWith(matching);
        }

        return selected;
    }

    /// <summary>Module names without what only numbers the layer, each once: <c>self_attn.q_proj</c>.</summary>
    internal static IReadOnlyList<string> Endings(IEnumerable<string> modules) =>
    [
        .. modules.Select(name => name.Split('.'))
            .Select(parts => string.Join('.', parts.Skip(Array.FindIndex(parts, part => part.All(char.IsAsciiDigit)) + 1)))
            .Distinct(),
    ];

    public void Dispose()
    {
        foreach (LoraPair pair in pairs.Values)
        {
            pair.A.Dispose();
            pair.B.Dispose();
        }
    }

    private static bool Ends(string module, string target) =>
        module == target || module.EndsWith($".{target}", StringComparison.Ordinal);

    private static Parameter Drawn(int rank, int inputs, UniformSource uniform, Device device)
    {
        double bound = 1 / Math.Sqrt(inputs);
        float[] values = [.. Enumerable.Range(0, rank * inputs).Select(_ => (float)((2 * uniform.Next() - 1) * bound))];
        return NewParameter(tensor(values, [rank, inputs], device: device));
    }

    /// <summary>Adapters outlive the dispose scope in which they happen to be built.</summary>
    private static Parameter NewParameter(Tensor value)
    {
        Parameter parameter = Parameter(value);
        parameter.DetachFromDisposeScope();
        return parameter;
    }
}

/// <summary>The adapter of one matrix.</summary>
/// <param name="A">(r, inputs).</param>
/// <param name="B">(outputs, r).</param>
/// <param name="Scale">alpha / r.</param>
internal sealed record LoraPair(Parameter A, Parameter B, double Scale)
{
    /// <summary>What the adapter adds to Wx: (..., inputs) to (..., outputs).</summary>
    public Tensor Apply(Tensor x, CastWeights casts) =>
        functional.linear(functional.linear(x, casts.Of(A, x.dtype)), casts.Of(B, x.dtype)).Times(Scale);

    /// <summary>The matrix that computes the same alone, in W's own layout: W + scale·BA.</summary>
    /// <param name="weight">(outputs, inputs), or (inputs, outputs) where <paramref name="transposed"/>.</param>
    /// <param name="transposed">GPT-2's Conv1D; PEFT calls it fan_in_fan_out.</param>
    public Tensor MergedWith(Tensor weight, bool transposed)
    {
        Tensor product = B.matmul(A).Times(Scale);
        return weight.Plus(transposed ? product.t() : product);
    }
}
