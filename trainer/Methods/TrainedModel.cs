using Rlhf.Spec;
using Rlhf.Trainer.Methods.Optimizers;
using Rlhf.Trainer.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// A model in training with its optimizer: what an optimizer step changes and a checkpoint holds. With an adapter that is the adapter
/// (and score head) alone.
/// </summary>
/// <param name="part">Names the checkpoint parts: "{part}" for the weights, "{part}.optimizer" for the moments.</param>
/// <param name="model">The model; stays the caller's.</param>
/// <param name="options">The optimizer's settings.</param>
/// <param name="microBatches">How a step is divided; models that step together share it.</param>
internal sealed class TrainedModel(string part, Transformer model, AdamWOptions options, MicroBatches microBatches) : IDisposable
{
    private readonly AdamW optimizer = new(model.Trainable().Select(weight => (weight.Name, (Tensor)weight.Value)), options);

    public TrainedModel(string part, Transformer model, OptimizationSpec spec, MicroBatches microBatches)
        : this(part, model, new AdamWOptions(spec.Beta1, spec.Beta2, spec.AdamEpsilon, spec.WeightDecay), microBatches)
    {
    }

    public Transformer Model => model;

    /// <summary>Optimizer steps done; part of the method's state.</summary>
    public int OptimizerSteps => optimizer.Steps;

    /// <summary>Back-propagates the loss of a batch, micro-batch by micro-batch, and takes one optimizer step.</summary>
    /// <typeparam name="T">Figures of a micro-batch, for the metrics; no tensors.</typeparam>
    /// <param name="rows">Rows of the batch.</param>
    /// <param name="share">
    /// For some of the rows their share of the loss, a scalar divided by what the whole batch counts (never by the micro-batch's own tokens
    /// or pairs), with figures. May be called again for the same rows.
    /// </param>
    /// <param name="learningRate">The rate of this step.</param>
    /// <param name="maxGradientNorm">Clips the global gradient norm; 0 does not.</param>
    /// <param name="where">The step in words, for the error.</param>
    /// <returns>The loss, the gradient norm before clipping, and the figures of the micro-batches in the order of their rows.</returns>
    /// <exception cref="DivergedException">One of them is not finite; the weights have not moved.</exception>
    public (double Loss, double GradientNorm, IReadOnlyList<T> Figures) Descend<T>(
        int rows, Func<Range, (Tensor Loss, T Figures)> share, double learningRate, double maxGradientNorm, string where)
    {
        double loss = 0;
        List<T> figures = [];
        microBatches.Run(rows, BackPropagate, StartOver);
        double norm = optimizer.Step(learningRate, maxGradientNorm > 0 ? maxGradientNorm : double.PositiveInfinity);
        if (!double.IsFinite(norm))
            throw new DivergedException($"{where}: the gradient norm of the {part} is {norm}. Lower the learning rate.");
        return (loss, norm, figures);

        void StartOver()
        {
            optimizer.ClearGradients();
            figures.Clear();
            loss = 0;
        }

        void BackPropagate(Range microBatch)
        {
            using DisposeScope scope = NewDisposeScope();
            using GradientPass pass = model.BeginGradients();
            (Tensor tensor, T figure) = share(microBatch);
            double value = tensor.ToDouble();
            if (!double.IsFinite(value))
                throw new DivergedException($"{where}: the loss of the {part} is {value}. Lower the learning rate, or look at the data.");
            pass.Backward(tensor);
            loss += value;
            figures.Add(figure);
        }
    }

    public void Save(ICheckpointWriter checkpoint)
    {
        checkpoint.WriteTensors(part, model.Trainable().Select(weight => (weight.Name, (Tensor)weight.Value)));
        checkpoint.WriteTensors($"{part}.optimizer", optimizer.State());
    }

    public void Load(ICheckpointReader checkpoint, int optimizerSteps)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        IReadOnlyDictionary<string, Tensor> weights = checkpoint.ReadTensors(part);
        foreach ((string name, TorchSharp.Modules.Parameter weight) in model.Trainable())
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
