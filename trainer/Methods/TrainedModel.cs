using Rlhf.Spec;
using Rlhf.Trainer.Methods.Optimizers;
using Rlhf.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>A model in training with its optimizer: what an optimizer step changes and a checkpoint holds.</summary>
/// <param name="part">Names the checkpoint parts: "{part}" for the weights, "{part}.optimizer" for the moments.</param>
/// <param name="model">The model; stays the caller's.</param>
/// <param name="options">The optimizer's settings.</param>
internal sealed class TrainedModel(string part, Transformer model, AdamWOptions options) : IDisposable
{
    private readonly AdamW optimizer = new(model.NamedWeights().Select(weight => (weight.Name, (Tensor)weight.Value)), options);

    public TrainedModel(string part, Transformer model, OptimizationSpec spec)
        : this(part, model, new AdamWOptions(spec.Beta1, spec.Beta2, spec.AdamEpsilon, spec.WeightDecay))
    {
    }

    public Transformer Model => model;

    /// <summary>Optimizer steps done; part of the method's state.</summary>
    public int OptimizerSteps => optimizer.Steps;

    /// <summary>Back-propagates a loss and takes one optimizer step.</summary>
    /// <param name="loss">Scalar.</param>
    /// <param name="learningRate">The rate of this step.</param>
    /// <param name="maxGradientNorm">Clips the global gradient norm; 0 does not.</param>
    /// <param name="where">The step in words, for the error.</param>
    /// <returns>The loss and the gradient norm before clipping.</returns>
    /// <exception cref="DivergedException">One of them is not finite; the weights have not moved.</exception>
    public (double Loss, double GradientNorm) Descend(Tensor loss, double learningRate, double maxGradientNorm, string where)
    {
        double value = loss.ToDouble();
        if (!double.IsFinite(value))
            throw new DivergedException($"{where}: the loss of the {part} is {value}. Lower the learning rate, or look at the data.");
        loss.backward();
        double norm = optimizer.Step(learningRate, maxGradientNorm > 0 ? maxGradientNorm : double.PositiveInfinity);
        if (!double.IsFinite(norm))
            throw new DivergedException($"{where}: the gradient norm of the {part} is {norm}. Lower the learning rate.");
        return (value, norm);
    }

    public void Save(ICheckpointWriter checkpoint)
    {
        checkpoint.WriteTensors(part, model.NamedWeights().Select(weight => (weight.Name, (Tensor)weight.Value)));
        checkpoint.WriteTensors($"{part}.optimizer", optimizer.State());
    }

    public void Load(ICheckpointReader checkpoint, int optimizerSteps)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        IReadOnlyDictionary<string, Tensor> weights = checkpoint.ReadTensors(part);
        foreach ((string name, TorchSharp.Modules.Parameter weight) in model.NamedWeights())
        {
            if (!weights.TryGetValue(name, out Tensor? stored))
                throw new CheckpointMismatchException(part, $"it has no weight '{name}'");
            if (!stored.shape.SequenceEqual(weight.shape))
            {
                throw new CheckpointMismatchException(
                    part, $"'{name}' has shape [{string.Join(", ", stored.shape)}], the model [{string.Join(", ", weight.shape)}]");
            }

            weight.copy_(stored);
        }

        try
        {
            optimizer.Restore(checkpoint.ReadTensors($"{part}.optimizer"), optimizerSteps);
        }
        catch (ArgumentException e)
        {
            throw new CheckpointMismatchException($"{part}.optimizer", e.Message, e);
        }
    }

    public void Dispose() => optimizer.Dispose();
}
