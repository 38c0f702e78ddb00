using System.Globalization;
using Rlhf.Spec;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Work;

/// <summary>What decides about a job's memory, known before a weight is loaded.</summary>
internal sealed record MemoryPlan
{
    /// <summary>Models whose weights stay as they are: read only, or below an adapter.</summary>
    public IReadOnlyList<ModelConfig> Frozen { get; init; } = [];

    /// <summary>Models that learn.</summary>
    public IReadOnlyList<ModelConfig> Trained { get; init; } = [];

    /// <summary>What they learn beside frozen weights; null where they learn all their weights.</summary>
    public LoraOptions? Adapter { get; init; }

    /// <summary>Sequences in one forward and backward pass.</summary>
    public int Sequences { get; init; }

    /// <summary>Tokens of a sequence at most.</summary>
    public required int Tokens { get; init; }

    /// <summary>How many of them a language-model head predicts; 0 where only rewards are read.</summary>
    public required int Predicted { get; init; }

    /// <summary>Sequences there are to be read without gradients: scored, or their log-probabilities taken.</summary>
    public int Read { get; init; }

    /// <summary>Whether answers are sampled.</summary>
    public bool Samples { get; init; }
}

/// <summary>
/// The memory a job takes beside the program itself, at its highest. Weights, gradients and moments are exact; passes are bounds for
/// sequences of the greatest length the spec allows, so a job on short rows takes less. Measured peaks on such sequences were from .6 to
/// .95 of the estimate (tests/Trainer.Tests/Work/MemoryEstimateTests.cs).
/// </summary>
/// <param name="Weights">float32 weights of all models, in bytes.</param>
/// <param name="Gradients">float32 gradients of those that learn.</param>
/// <param name="Moments">AdamW's two moments of those that learn.</param>
/// <param name="Training">A forward and backward pass over one micro-batch.</param>
/// <param name="Reading">A forward pass without gradients, as scores and log-probabilities are read.</param>
/// <param name="Sampling">Decoding a batch of answers: keys, values and copies of the weights.</param>
internal sealed record MemoryEstimate(long Weights, long Gradients, long Moments, long Training, long Reading, long Sampling)
{
    /// <summary>Tokens of a forward pass without gradients, as the methods bound them.</summary>
    private const long TokensPerPass = 16_384;

    /// <summary>Tensors as large as the logits that live at once: logits, log-softmax, what the entropy takes, gradients.</summary>
    private const long LogitTensors = 5;

    private const long Single = sizeof(float);

    /// <summary>libtorch's own buffers and what the allocators cannot give back, about as much on every job that was measured.</summary>
    private const long Workspace = 96 << 20;

    /// <summary>What no micro-batch makes smaller.</summary>
    public long Fixed => Weights + Gradients + Moments + Workspace;

    /// <summary>The passes follow each other, so only the largest counts.</summary>
    public long Total => Fixed + Math.Max(Training, Math.Max(Reading, Sampling));

    /// <summary>The estimate for a job.</summary>
    public static MemoryEstimate Of(MemoryPlan plan, TrainerSpec trainer)
    {
        long narrow = trainer.Precision == Precision.Bf16 ? 2 : Single;
        long learning = plan.Trained.Sum(model => Learning(model, plan.Adapter));
        IReadOnlyList<ModelConfig> all = [.. plan.Frozen, .. plan.Trained];
        return new MemoryEstimate(
            Single * (learning + plan.Frozen.Sum(Parameters)),
            Single * learning,
            2 * Single * learning,
            plan.Trained.Select(model => TrainingPass(model, plan, trainer, narrow)).DefaultIfEmpty().Max(),
            all.Max(model => ReadingPass(model, plan)),
            plan.Samples
                ? all.Where(model => model.Head == HeadKind.LanguageModel).Max(model => Decoding(model, plan, trainer, narrow))
                : 0);
    }

    /// <summary>For people: the sum and its parts.</summary>
    public override string ToString() =>
        $"{Text(Total)} (weights {Text(Weights)}, gradients {Text(Gradients)}, optimizer {Text(Moments)}, libtorch {Text(Workspace)}, and the "
        + $"largest of a training pass {Text(Training)}, a reading pass {Text(Reading)} and sampling {Text(Sampling)})";

    /// <summary>A number of bytes for people.</summary>
    public static string Text(long bytes) => bytes switch
    {
        < 1 << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:0} KB"),
        < 1 << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:0} MB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1073741824.0:0.0} GB"),
    };

    /// <summary>Weights of a model of this shape, counted without memory for them.</summary>
    private static long Parameters(ModelConfig config)
    {
        using var shape = new Transformer(config, new Device(TorchSharp.DeviceType.META));
        return shape.ParameterCount;
    }

    /// <summary>Numbers that learn.</summary>
    private static long Learning(ModelConfig config, LoraOptions? adapter)
    {
        if (adapter is null)
            return Parameters(config);
        using var trunk = new Transformer(config, new Device(TorchSharp.DeviceType.META));
        using Transformer adapted = trunk.WithAdapter(adapter, seed: 0);
        return adapted.Trainable().Sum(weight => weight.Value.numel());
    }

    private static long TrainingPass(ModelConfig model, MemoryPlan plan, TrainerSpec trainer, long narrow)
    {
        // Beside what all blocks keep, the block at work holds its temporaries, in either format, and their gradients.
        long layers = trainer.GradientCheckpointing
            ? model.LayerCount * model.HiddenSize * Single + 3 * KeptPerToken(model, Single)
            : model.LayerCount * KeptPerToken(model, narrow) + 2 * KeptPerToken(model, Single);
        return plan.Sequences * (plan.Tokens * layers + plan.Predicted * Logits(model)) + CastWeights(model, narrow);
    }

    private static long ReadingPass(ModelConfig model, MemoryPlan plan)
    {
        long rows = Math.Min(plan.Read, Math.Max(1, TokensPerPass / plan.Tokens));
        return rows * (plan.Tokens * 2 * KeptPerToken(model, Single) + plan.Predicted * Logits(model));
    }

    private static long Decoding(ModelConfig model, MemoryPlan plan, TrainerSpec trainer, long narrow)
    {
        long rows = new SamplingOptions { MaxNewTokens = 0, EosId = -1 }.BatchSize;
        long cache = 2 * narrow * model.LayerCount * model.KeyValueHeadCount * model.HeadDimension;
        // The decoder for small models on the CPU works on a copy of the weights in its own order.
        long copy = trainer.Device == ComputeDevice.Cpu && narrow == Single && Parameters(model) <= CpuDecoder.MaxParameters
            ? Single * Parameters(model)
            : CastWeights(model, narrow);
        return rows * (plan.Tokens * cache + Logits(model)) + copy;
    }

    private static long Logits(ModelConfig model) =>
        model.Head == HeadKind.LanguageModel ? LogitTensors * Single * model.VocabularySize : 0;

    private static long CastWeights(ModelConfig model, long narrow) => narrow == Single ? 0 : narrow * Parameters(model);

    /// <summary>
    /// Bytes of one token that one block keeps for the backward pass: what norms and matrix products take in, attention's query, key, value
    /// and result, the feed-forward layer before and after its activation.
    /// </summary>
    private static long KeptPerToken(ModelConfig model, long narrow)
    {
        long norms = (model.Norm == NormKind.RootMeanSquare ? 4 : 2) * model.HiddenSize;
        long attention = 5L * model.HeadCount * model.HeadDimension;
        long feedForward = (model.GatedFeedForward ? 4L : 2L) * model.IntermediateSize;
        return Single * norms + narrow * (2 * model.HiddenSize + attention + feedForward);
    }
}
