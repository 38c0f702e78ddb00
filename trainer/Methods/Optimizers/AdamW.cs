using Rlhf.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods.Optimizers;

/// <summary>Settings of <see cref="AdamW"/>.</summary>
/// <param name="Beta1">Decay of the first moment.</param>
/// <param name="Beta2">Decay of the second moment: .999 in PyTorch, .95 in InstructGPT.</param>
/// <param name="Epsilon">Added to sqrt(v): 1e-8 in general, 1e-5 for PPO (N+, detail 9).</param>
/// <param name="WeightDecay">Decoupled decay of matrices; vectors (norms, biases) never decay.</param>
public sealed record AdamWOptions(double Beta1 = 0.9, double Beta2 = 0.999, double Epsilon = 1e-8, double WeightDecay = 0);

/// <summary>
/// AdamW (Loshchilov and Hutter 2019) over named parameters, with libtorch's fused kernel: one pass over weights, gradients and both
/// moments, where TorchSharp's own optimizer takes a dozen. Its whole state is two tensors a parameter and one step count, in the
/// caller's reach.
/// </summary>
/// <remarks>Gradients are dropped after every step, so the next backward pass starts from none, on a fresh start and on resume
/// alike.</remarks>
public sealed class AdamW : IDisposable
{
    // TorchSharp has no fused optimizer; TorchScript reaches the kernels. No arithmetic of its own is in the script, so that the just-in-time
    // compiler has nothing to fuse and a young process computes the same bits as an old one. One step tensor serves all parameters.
    private const string Source =
        """
        def norm(grads: List[Tensor]) -> Tensor:
            return torch.linalg_vector_norm(torch.stack(torch._foreach_norm(grads, 2)), 2)

        def scale(grads: List[Tensor], factor: float):
            torch._foreach_mul_(grads, factor)

        def step(params: List[Tensor], grads: List[Tensor], m: List[Tensor], v: List[Tensor], steps: List[Tensor],
                 lr: float, beta1: float, beta2: float, eps: float, decay: float):
            torch._fused_adamw_(params, grads, m, v, [], steps, lr=lr, beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps,
                                amsgrad=False, maximize=False)

        """;

    /// <summary>Keeps the clipping factor finite, as in PyTorch's clip_grad_norm_.</summary>
    private const double ClipEpsilon = 1e-6;

    private static readonly Lazy<jit.CompilationUnit> Kernels = new(() => jit.compile(Source));

    private readonly AdamWOptions options;
    private readonly List<Slot> slots;
    private readonly Tensor stepTensor;

    private sealed record Slot(string Name, Tensor Parameter, Tensor First, Tensor Second);

    /// <summary>Starts with zero moments.</summary>
    /// <param name="parameters">The parameters to train, with unique names.</param>
    /// <param name="options">The settings.</param>
    public AdamW(IEnumerable<(string Name, Tensor Parameter)> parameters, AdamWOptions options)
    {
        this.options = options;
        using IDisposable _ = no_grad();
        slots = [.. parameters.Select(p => new Slot(
            p.Name, p.Parameter, zeros_like(p.Parameter).DetachFromDisposeScope(), zeros_like(p.Parameter).DetachFromDisposeScope()))];
        Device device = slots.Count == 0 ? CPU : slots[0].Parameter.device;
        stepTensor = zeros(1, dtype: ScalarType.Float32, device: device).DetachFromDisposeScope();
    }

    /// <summary>Optimizer steps done.</summary>
    public int Steps { get; private set; }

    /// <summary>
    /// Clips the gradients by their global norm and moves the parameters.
    /// </summary>
    /// <param name="learningRate">The rate of this step.</param>
    /// <param name="maxGradientNorm">Largest global gradient norm; infinity for no clipping.</param>
    /// <returns>The global gradient norm before clipping. Where it is not finite, nothing has moved.</returns>
    /// <exception cref="InvalidOperationException">A parameter has no gradient.</exception>
    public double Step(double learningRate, double maxGradientNorm = double.PositiveInfinity)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable _ = no_grad();
        Tensor[] gradients = [.. slots.Select(slot => slot.Parameter.grad ?? throw new InvalidOperationException(
            $"parameter '{slot.Name}' has no gradient; leave it out of the optimizer or use it in the loss"))];

        double norm = ((Tensor)Invoke("norm", [gradients])).ToDouble();
        if (double.IsFinite(norm))
        {
            double factor = maxGradientNorm / (norm + ClipEpsilon);
            if (factor < 1)
                Invoke("scale", [gradients], factor);
            Steps++;
            stepTensor.FillWith(Steps);
            Update(gradients, learningRate, slot => slot.Parameter.dim() >= 2, options.WeightDecay);
            Update(gradients, learningRate, slot => slot.Parameter.dim() < 2, 0);
        }

        ClearGradients();
        return norm;
    }

    /// <summary>Drops all gradients.</summary>
    public void ClearGradients()
    {
        foreach (Slot slot in slots)
            slot.Parameter.grad = null;
    }

    /// <summary>The moments: "{parameter}.m" and "{parameter}.v" for each parameter. The tensors are the live ones; together with
    /// <see cref="Steps"/> they are the whole state.</summary>
    public IReadOnlyList<(string Name, Tensor Value)> State() =>
        [.. slots.SelectMany(slot => new[] { (slot.Name + ".m", slot.First), (slot.Name + ".v", slot.Second) })];

    /// <summary>Takes over moments and step count as <see cref="State"/> and <see cref="Steps"/> gave them, bit for bit.</summary>
    /// <exception cref="ArgumentException">A moment is missing or has another shape.</exception>
    public void Restore(IReadOnlyDictionary<string, Tensor> state, int steps)
    {
        using IDisposable _ = no_grad();
        foreach ((string name, Tensor value) in State())
        {
            if (!state.TryGetValue(name, out Tensor? stored))
                throw new ArgumentException($"the optimizer state has no tensor '{name}'", nameof(state));
            if (!stored.shape.SequenceEqual(value.shape))
            {
                throw new ArgumentException(
                    $"optimizer tensor '{name}' has shape [{string.Join(", ", stored.shape)}], "
                    + $"the parameter [{string.Join(", ", value.shape)}]",
                    nameof(state));
            }

            value.copy_(stored);
        }

        Steps = steps;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Slot slot in slots)
        {
            slot.First.Dispose();
            slot.Second.Dispose();
        }

        stepTensor.Dispose();
    }

    private void Update(Tensor[] gradients, double learningRate, Func<Slot, bool> belongs, double weightDecay)
    {
        int[] chosen = [.. Enumerable.Range(0, slots.Count).Where(i => belongs(slots[i]))];
        if (chosen.Length == 0)
            return;
        Invoke(
            "step",
            [
                [.. chosen.Select(i => slots[i].Parameter)],
                [.. chosen.Select(i => gradients[i])],
                [.. chosen.Select(i => slots[i].First)],
                [.. chosen.Select(i => slots[i].Second)],
                [.. Enumerable.Repeat(stepTensor, chosen.Length)],
            ],
            learningRate, options.Beta1, options.Beta2, options.Epsilon, weightDecay);
    }

    /// <summary>
    /// Runs a kernel with numbers that outlive the call: TorchSharp keeps no reference to those that it converts itself, see
    /// <see cref="TensorArithmetic"/>.
    /// </summary>
    private static object Invoke(string kernel, Tensor[][] tensors, params double[] numbers)
    {
        Scalar[] scalars = [.. numbers.Select(number => number.ToScalar())];
        object result = Kernels.Value.invoke(kernel, [.. tensors, .. scalars]);
        foreach (Scalar scalar in scalars)
            scalar.Dispose();
        GC.KeepAlive(tensors);
        return result;
    }
}
