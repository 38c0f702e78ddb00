using Rlhf.Spec;
using Rlhf.Trainer.Native;
using TorchSharp.Modules;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace Rlhf.Trainer.Models;

/// <summary>
/// A decoder-only transformer that covers the GPT-2, GPT-NeoX, OPT and Llama families by configuration. Weights keep the names, shapes and
/// layout of Hugging Face's checkpoints. There is no dropout: training and inference compute the same function.
/// With an adapter (<see cref="WithAdapter"/>) it shares the weights of another model, which stay as they are.
/// </summary>
/// <remarks>
/// Shapes: B rows, T new tokens, S tokens seen in all, D hidden size, H heads, K key/value heads, d head dimension, V vocabulary.
/// </remarks>
public sealed class Transformer : IDisposable
{
    private readonly List<(string Name, Parameter Value)> weights = [];
    private readonly CastWeights casts = new();
    private readonly List<Parameter> owned = [];
    private readonly List<Linear> linears = [];
    private readonly Transformer? trunk;
    private readonly WeightNames names;
    private readonly Parameter embedding;
    private readonly Embedding lookUp;
    private readonly Parameter? positionEmbedding;
    private readonly Linear? projectIn;
    private readonly Linear? projectOut;
    private readonly Block[] blocks;
    private readonly Norm? finalNorm;
    private readonly Parameter? head;
    private readonly RotaryEmbedding? rotary;
    private GradientPass? checkpointed;

    /// <summary>A model with unset weights: fill them with <see cref="InitialiseWeights"/> or from a checkpoint.</summary>
    public Transformer(ModelConfig config, Device? device = null)
        : this(config, device ?? CPU, trunk: null, adapter: null)
    {
    }

    /// <param name="config">The configuration.</param>
    /// <param name="device">Where the weights are.</param>
    /// <param name="trunk">The model whose weights this one shares, all but a score head.</param>
    /// <param name="adapter">Computes beside them; becomes this model's.</param>
    private Transformer(ModelConfig config, Device device, Transformer? trunk, Lora? adapter)
    {
        Config = config;
        Device = device;
        Adapter = adapter;
        this.trunk = trunk;
        names = WeightNames.For(config.ModelType);
        int width = config.HiddenSize;

        embedding = Add($"{names.Embedding}.weight", config.VocabularySize, config.EmbeddingDimension);
        // torch.embedding is only to be had as a module; its own table is replaced by ours. Its gradient is deterministic.
        lookUp = trunk?.lookUp ?? Embedding(1, 1);
        if (trunk is null) lookUp.weight = embedding;
        if (names.Positions is not null)
            positionEmbedding = Add($"{names.Positions}.weight", config.MaxPositions + config.PositionOffset, width);
        if (config.EmbeddingDimension != width)
        {
            projectIn = AddLinear(names.ProjectIn ?? throw NoProjection(), config.EmbeddingDimension, width, bias: false);
            projectOut = AddLinear(names.ProjectOut ?? throw NoProjection(), width, config.EmbeddingDimension, bias: false);
        }

        blocks = new Block[config.LayerCount];
        for (int layer = 0; layer < blocks.Length; layer++) blocks[layer] = AddBlock($"{names.Layer}{layer}.");
        if (!config.PostNorm) finalNorm = AddNorm(names.FinalNorm, width);
        if (config.Head == HeadKind.Score)
            head = Add(ScoreName, 1, config.EmbeddingDimension);
        else if (!config.TiedEmbeddings)
            head = Add($"{names.Head}.weight", config.VocabularySize, config.EmbeddingDimension);
        // On the meta device a model has shapes only; its weights can be counted and nothing computed.
        if (config.UsesRotary && Device.type != TorchSharp.DeviceType.META) rotary = new RotaryEmbedding(config, Device);

        ModelFormatException NoProjection() => new("model configuration", $"{config.ModelType} has no projected embeddings.");
    }

    public ModelConfig Config { get; }

    public Device Device { get; }

    /// <summary>
    /// The number format of matrix products and attention. Weights, gradients, the residual stream, norms, rotations, softmax and scores
    /// are float32 in any case, and so are the logits that come out (from bfloat16 products, with 8 bits of precision).
    /// </summary>
    public Precision Precision { get; set; }

    /// <summary>The type that <see cref="Precision"/> stands for.</summary>
    internal ScalarType ComputeType => Precision == Precision.Bf16 ? ScalarType.BFloat16 : ScalarType.Float32;

    /// <summary>
    /// Whether a <see cref="GradientPass"/> keeps the inputs of the blocks only and computes each block twice: a fraction of the memory for
    /// about a third more time.
    /// </summary>
    public bool GradientCheckpointing { get; set; }

    private string ScoreName => $"{names.Score}.weight";

    /// <summary>The adapter beside the weights; null for a model whose weights are its own.</summary>
    public Lora? Adapter { get; }

    /// <summary>Numbers in all weights, an adapter not counted; a tied head counts once.</summary>
    public long ParameterCount => weights.Sum(w => w.Value.numel());

    /// <summary>All weights under their Hugging Face names, in the order of the network. An adapter is not among them.</summary>
    public IReadOnlyList<(string Name, Parameter Value)> NamedWeights() => weights;

    /// <summary>What training moves: all weights, or with an adapter its matrices and the score head.</summary>
    public IReadOnlyList<(string Name, Parameter Value)> Trainable() =>
        Adapter is null ? weights
        : Config.Head == HeadKind.Score ? [.. Adapter.NamedWeights(), (ScoreName, head!)]
        : Adapter.NamedWeights();

    /// <summary>
    /// The weights of the same function without an adapter: W + (alpha / r)·BA where there is one, else the weights themselves. The sums
    /// are new tensors; call it inside a dispose scope.
    /// </summary>
    public IReadOnlyList<(string Name, Tensor Value)> MergedWeights()
    {
        using var noGradient = no_grad();
        Dictionary<string, LoraPair?> pairs = linears.ToDictionary(l => $"{l.Name}.weight", l => l.Pair);
        return
        [
            .. weights.Select(w => (
                w.Name, pairs.GetValueOrDefault(w.Name) is { } pair ? pair.MergedWith(w.Value, names.Transposed) : (Tensor)w.Value)),
        ];
    }

    /// <summary>
    /// The hidden states after the final norm, (B, T, D).
    /// </summary>
    /// <param name="inputIds">Tokens (B, T), int64.</param>
    /// <param name="attentionMask">
    /// 1 for tokens, 0 for padding, (B, S) with S = cached + T; positions are then cumsum(mask) - 1, clipped at 0. Null means that no
    /// padding has to be kept apart: also right for right-padded rows, whose tokens never look at the padding behind them.
    /// </param>
    /// <param name="cache">Keys and values of earlier tokens; the new ones are added. Not for training.</param>
    public Tensor Hidden(Tensor inputIds, Tensor? attentionMask = null, KvCache? cache = null)
    {
        using var scope = NewDisposeScope();
        long past = cache?.Length ?? 0, count = inputIds.shape[1];
        if (attentionMask is null && past + count > Config.MaxPositions)
            throw new ArgumentException($"{past + count} tokens exceed the model's {Config.MaxPositions} positions.", nameof(inputIds));

        Tensor? positions = attentionMask is null ? null : Positions(attentionMask).narrow(1, past, count);
        Tensor x = lookUp.forward(inputIds);
        if (projectIn is { } into) x = Widened(into.Apply(Narrowed(x)));
        if (positionEmbedding is not null)
        {
            x = x.Plus(positions is null
                ? positionEmbedding.narrow(0, past + Config.PositionOffset, count)
                : positionEmbedding.index_select(0, positions.flatten().Plus(Config.PositionOffset)).view(x.shape));
        }

        var attention = new Attention
        {
            Rotation = rotary is null ? null : positions is null ? rotary.Range(past, count) : rotary.At(positions),
            Mask = AttentionMask(attentionMask, past, count),
            Cache = cache,
        };
        if (checkpointed is { } pass && is_grad_enabled())
        {
            x = CheckpointedBlocks(pass, x, attention);
        }
        else
        {
            for (int layer = 0; layer < blocks.Length; layer++)
            {
                // Intermediate results live on in the autograd graph where they are needed; here their handles can go.
                using var blockScope = NewDisposeScope();
                x = Forward(blocks[layer], layer, x, attention).MoveToOuterDisposeScope();
            }
        }

        if (finalNorm is { } norm) x = norm.Apply(x);
        if (projectOut is { } outOf) x = Widened(outOf.Apply(Narrowed(x)));
        cache?.Advance(count);
        return x.MoveToOuterDisposeScope();
    }

    /// <summary>Begins a pass with gradients; the model's forward passes belong to it until it is disposed of.</summary>
    public GradientPass BeginGradients()
    {
        var pass = new GradientPass(() => checkpointed = null);
        if (GradientCheckpointing) checkpointed = pass;
        return pass;
    }

    /// <summary>
    /// Until the result is disposed of, the weights are cast to <see cref="Precision"/> at most once: for decoding token by token. They must
    /// not change meanwhile.
    /// </summary>
    public IDisposable HoldWeights() => casts.Hold();

    /// <summary>Logits over the vocabulary, (..., D) to (..., V), float32.</summary>
    public Tensor Logits(Tensor hidden)
    {
        if (Config.Head != HeadKind.LanguageModel) throw new InvalidOperationException("This model has a score head and no logits.");
        return Widened(functional.linear(Narrowed(hidden), casts.Of(head ?? embedding, ComputeType)));
    }

    /// <summary>
    /// Raw scores of each position, (..., D) to (...): without <see cref="ModelConfig.RewardBias"/>. A reward is the score of the last
    /// real token minus that bias.
    /// </summary>
    public Tensor Scores(Tensor hidden)
    {
        if (Config.Head != HeadKind.Score) throw new InvalidOperationException("This model has no score head.");
        using Tensor scores = functional.linear(hidden, head!);
        return scores.squeeze(-1);
    }

    /// <summary>
    /// A reward model or critic: the trunk of a language model with a new head, N(0, 1/sqrt(D+1)) (Stiennon et al. 2020).
    /// </summary>
    public static Transformer WithScoreHead(Transformer languageModel, ulong seed)
    {
        ModelConfig config = languageModel.Config with { Head = HeadKind.Score, RewardBias = 0 };
        Transformer model = languageModel.Like(config);
        model.CopyFrom(languageModel, except: model.head);
        model.InitialiseScoreHead(seed);
        return model;
    }

    /// <summary>
    /// A model over this one's weights with a fresh adapter (and, if it scores, a copy of the head): as long as the adapter has not
    /// learned, it computes what this one computes, to the last bit. The shared weights take no gradient any more and never change; so
    /// this model is the adapted one with the adapter off, for instance PPO's reference. It must outlive the adapted one.
    /// </summary>
    /// <param name="options">The adapter.</param>
    /// <param name="seed">Decides its start.</param>
    /// <exception cref="LoraTargetException">A target is no module of this model.</exception>
    public Transformer WithAdapter(LoraOptions options, ulong seed)
    {
        Transformer model = Adapted(Config, options, seed);
        using var noGradient = no_grad();
        if (Config.Head == HeadKind.Score) model.head!.copy_(head!);
        return model;
    }

    /// <summary>
    /// As <see cref="WithAdapter"/>, but a reward model: with a score head of its own, begun as by <see cref="WithScoreHead"/>.
    /// </summary>
    public Transformer WithAdapterAndScoreHead(LoraOptions options, ulong adapterSeed, ulong headSeed)
    {
        Transformer model = Adapted(Config with { Head = HeadKind.Score, RewardBias = 0 }, options, adapterSeed);
        model.InitialiseScoreHead(headSeed);
        return model;
    }

    /// <summary>A model to train that begins as this one: over its weights with an adapter, or a copy where there is none.</summary>
    public Transformer ForTraining(LoraOptions? adapter, ulong seed) => adapter is null ? Clone() : WithAdapter(adapter, seed);

    /// <summary>A reward model or critic to train, with a fresh head: over this one's weights with an adapter, or over a copy.</summary>
    public Transformer ForScoring(LoraOptions? adapter, ulong adapterSeed, ulong headSeed) =>
        adapter is null ? WithScoreHead(this, headSeed) : WithAdapterAndScoreHead(adapter, adapterSeed, headSeed);

    /// <summary>A copy with weights of its own; an adapter is merged into them.</summary>
    public Transformer Clone() => WithConfig(Config);

    /// <summary>A copy under another configuration of the same shape (for example with a reward bias).</summary>
    public Transformer WithConfig(ModelConfig config)
    {
        Transformer model = Like(config);
        model.CopyFrom(this, except: null);
        return model;
    }

    /// <summary>
    /// Fresh weights for a base made from scratch: N(0, <see cref="ModelConfig.InitializerRange"/>), the projections into the residual
    /// stream scaled by 1/sqrt(2·layers) (Radford et al. 2019, section 2.3), norms 1, biases 0.
    /// </summary>
    public void InitialiseWeights(ulong seed)
    {
        using var noGradient = no_grad();
        var normal = new NormalSource(seed);
        double deviation = Config.InitializerRange;
        double residual = deviation / Math.Sqrt(2.0 * Config.LayerCount);
        foreach ((string name, Parameter weight) in weights)
        {
            bool intoResidual = name.EndsWith($"{names.AttentionOutput}.weight", StringComparison.Ordinal)
                || name.EndsWith($"{names.Down}.weight", StringComparison.Ordinal);
            if (name.EndsWith(".bias", StringComparison.Ordinal)) weight.FillWith(0);
            else if (weight.dim() == 1) weight.FillWith(1);
            else Fill(weight, normal, intoResidual ? residual : deviation);
        }
    }

    public void Dispose()
    {
        foreach (Parameter weight in owned) weight.Dispose();
        if (trunk is null) lookUp.Dispose();
        Adapter?.Dispose();
        rotary?.Dispose();
    }

    /// <summary>All blocks, without their graphs.</summary>
    private Tensor CheckpointedBlocks(GradientPass pass, Tensor x, Attention attention)
    {
        if (attention.Rotation is { } rotation)
            attention = attention with { Rotation = (pass.Keep(rotation.Cosine), pass.Keep(rotation.Sine)) };
        if (attention.Mask is { } mask) pass.Keep(mask);
        if (x.requires_grad)
        {
            Tensor embedded = pass.Keep(x);
            x = pass.Cut(() => embedded, embedded);
        }
        else
        {
            x = pass.Keep(x);
        }

        for (int layer = 0; layer < blocks.Length; layer++)
        {
            using var blockScope = NewDisposeScope();
            (int at, Tensor input, Tensor output) = (layer, x, Without(blocks[layer], layer, x));
            x = pass.Cut(() => Forward(blocks[at], at, input, attention), output);
        }

        return x;

        Tensor Without(Block block, int layer, Tensor input)
        {
            using var noGradient = no_grad();
            return Forward(block, layer, input, attention);
        }
    }

    // ---- one layer ------------------------------------------------------------------------------------------------------------------

    private Tensor Forward(Block block, int layer, Tensor x, Attention attention)
    {
        if (Config.PostNorm)
        {
            x = block.AttentionNorm.Apply(x.Plus(Attend(block, layer, Narrowed(x), attention)));
            return block.FeedForwardNorm.Apply(x.Plus(FeedForward(block, Narrowed(x))));
        }

        Tensor attended = Attend(block, layer, Narrowed(block.AttentionNorm.Apply(x)), attention);
        if (Config.ParallelResidual) return x.Plus(attended).Plus(FeedForward(block, Narrowed(block.FeedForwardNorm.Apply(x))));
        x = x.Plus(attended);
        return x.Plus(FeedForward(block, Narrowed(block.FeedForwardNorm.Apply(x))));
    }

    /// <summary>What goes into matrix products, in their number format; the sums of the residual stream stay float32.</summary>
    private Tensor Narrowed(Tensor x) => Precision == Precision.Fp32 ? x : x.to(ComputeType);

    private Tensor Widened(Tensor x) => Precision == Precision.Fp32 ? x : x.to(ScalarType.Float32);

    private Tensor Attend(Block block, int layer, Tensor x, Attention attention)
    {
        long rows = x.shape[0], count = x.shape[1];
        int groups = Config.HeadCount / Config.KeyValueHeadCount;
        (Tensor query, Tensor key, Tensor value) = Project(block, x); // (B, T, H or K, d)
        (query, key) = (Widened(query), Widened(key));
        if (block.QueryNorm is { } queryNorm) query = queryNorm.Apply(query);
        if (block.KeyNorm is { } keyNorm) key = keyNorm.Apply(key);
        if (attention.Rotation is { } rotation)
        {
            query = rotary!.Rotate(query, rotation);
            key = rotary.Rotate(key, rotation);
        }

        query = Narrowed(query).transpose(1, 2);
        key = Narrowed(key).transpose(1, 2);
        value = value.transpose(1, 2);
        if (attention.Cache is { } cache) (key, value) = cache.Append(layer, key, value);
        bool oneToken = count == 1;
        if (groups > 1 && oneToken)
        {
            // The heads of a group become query rows of their shared key/value head: nothing of the cache is copied.
            query = query.reshape(rows, Config.KeyValueHeadCount, groups, Config.HeadDimension);
        }
        else if (groups > 1)
        {
            key = RepeatHeads(key, groups);
            value = RepeatHeads(value, groups);
        }

        Tensor mixed = functional.scaled_dot_product_attention(
            query, key, value, attention.Mask, is_casual: attention.Mask is null && !oneToken); // (B, H, T, d)
        return block.AttentionOutput.Apply(
            mixed.transpose(1, oneToken ? 1 : 2).reshape(rows, count, Config.HeadCount * Config.HeadDimension));
    }

    private (Tensor Query, Tensor Key, Tensor Value) Project(Block block, Tensor x)
    {
        long rows = x.shape[0], count = x.shape[1];
        int heads = Config.HeadCount, size = Config.HeadDimension;
        Tensor first = block.QueryKeyValue[0].Apply(x);
        switch (names.Layout)
        {
            case QueryKeyValueLayout.Stacked:
                Tensor stacked = first.view(rows, count, 3, heads, size);
                return (stacked.select(2, 0), stacked.select(2, 1), stacked.select(2, 2));
            case QueryKeyValueLayout.PerHead:
                Tensor perHead = first.view(rows, count, heads, 3, size);
                return (perHead.select(3, 0), perHead.select(3, 1), perHead.select(3, 2));
            default:
                Tensor key = block.QueryKeyValue[1].Apply(x), value = block.QueryKeyValue[2].Apply(x);
                return (first.view(rows, count, heads, size), key.view(rows, count, -1, size), value.view(rows, count, -1, size));
        }
    }

    private Tensor FeedForward(Block block, Tensor x)
    {
        Tensor inner = block.Up.Apply(x);
        inner = block.Gate is { } gate ? Activate(gate.Apply(x)) * inner : Activate(inner);
        return block.Down.Apply(inner);
    }

    private Tensor Activate(Tensor x) => Config.Activation switch
    {
        ActivationKind.Silu => functional.silu(x),
        ActivationKind.Gelu => functional.gelu(x),
        ActivationKind.GeluTanh => functional.gelu(x, TorchSharp.Modules.GELU.Approximate.tanh),
        _ => functional.relu(x),
    };

    /// <summary>(B, K, S, d) to (B, K·groups, S, d): each key/value head serves a group of query heads.</summary>
    private static Tensor RepeatHeads(Tensor x, int groups)
    {
        long[] s = x.shape;
        return x.unsqueeze(2).expand(s[0], s[1], groups, s[2], s[3]).reshape(s[0], s[1] * groups, s[2], s[3]);
    }

    // ---- positions and masks --------------------------------------------------------------------------------------------------------

    private static Tensor Positions(Tensor attentionMask) => attentionMask.to(ScalarType.Int64).cumsum(1).Minus(1).AtLeast(0);

    /// <summary>
    /// Where each of the T new tokens may look among the S tokens: a boolean (B or 1, 1, T, S), or null for plain causal.
    /// </summary>
    private Tensor? AttentionMask(Tensor? padding, long past, long count)
    {
        long seen = past + count;
        bool windowed = Config.SlidingWindow is { } w && seen > w;
        if (padding is null && !windowed && (past == 0 || count == 1)) return null;

        Tensor to = TensorArithmetic.Range(0, seen, ScalarType.Int64, Device).unsqueeze(0);
        Tensor from = TensorArithmetic.Range(past, seen, ScalarType.Int64, Device).unsqueeze(1);
        Tensor allowed = to.le(from); // (T, S)
        if (windowed) allowed = allowed.logical_and(to.gt(from.Minus(Config.SlidingWindow!.Value)));
        if (padding is null) return allowed.view(1, 1, count, seen);

        // A padding token sees itself, so that no row of the softmax is empty; nothing looks at what comes out of it.
        Tensor key = padding.to(ScalarType.Bool).unsqueeze(1); // (B, 1, S)
        return allowed.logical_and(key.logical_or(to.eq(from))).unsqueeze(1);
    }

    // ---- weights --------------------------------------------------------------------------------------------------------------------

    private Block AddBlock(string prefix)
    {
        ModelConfig c = Config;
        int attention = c.HeadCount * c.HeadDimension, keyValue = c.KeyValueHeadCount * c.HeadDimension;
        Linear[] queryKeyValue = names.Layout == QueryKeyValueLayout.Separate
            ? [.. names.QueryKeyValue.Zip([attention, keyValue, keyValue],
                (name, outputs) => AddLinear(prefix + name, c.HiddenSize, outputs, c.QueryKeyValueBias))]
            : [AddLinear(prefix + names.QueryKeyValue[0], c.HiddenSize, 3 * attention, c.QueryKeyValueBias)];
        return new Block
        {
            QueryKeyValue = queryKeyValue,
            QueryNorm = c.QueryKeyNorm ? AddNorm(prefix + names.QueryNorm, c.HeadDimension) : null,
            KeyNorm = c.QueryKeyNorm ? AddNorm(prefix + names.KeyNorm, c.HeadDimension) : null,
            AttentionOutput = AddLinear(prefix + names.AttentionOutput, attention, c.HiddenSize, c.AttentionOutputBias),
            Gate = c.GatedFeedForward ? AddLinear(prefix + names.Gate, c.HiddenSize, c.IntermediateSize, c.FeedForwardBias) : null,
            Up = AddLinear(prefix + names.Up, c.HiddenSize, c.IntermediateSize, c.FeedForwardBias),
            Down = AddLinear(prefix + names.Down, c.IntermediateSize, c.HiddenSize, c.FeedForwardBias),
            AttentionNorm = AddNorm(prefix + names.AttentionNorm, c.HiddenSize),
            FeedForwardNorm = AddNorm(prefix + names.FeedForwardNorm, c.HiddenSize),
        };
    }

    private Linear AddLinear(string name, int inputs, int outputs, bool bias)
    {
        bool transposed = names.Transposed;
        Parameter weight = transposed ? Add($"{name}.weight", inputs, outputs) : Add($"{name}.weight", outputs, inputs);
        Parameter? biases = bias ? Add($"{name}.bias", outputs) : null;
        var linear = new Linear(name, inputs, outputs, casts, weight, biases, transposed, Adapter?.Of(name));
        linears.Add(linear);
        return linear;
    }

    private Norm AddNorm(string name, int width) =>
        new(Add($"{name}.weight", width), Config.Norm == NormKind.Layer ? Add($"{name}.bias", width) : null, Config.NormEpsilon);

    private Parameter Add(string name, params long[] shape)
    {
        Parameter weight;
        if (trunk is not null && name != ScoreName)
        {
            weight = trunk.weights.First(w => w.Name == name).Value;
        }
        else
        {
            // Weights outlive the dispose scope in which the model happens to be built.
            weight = Parameter(empty(shape, ScalarType.Float32, Device));
            weight.DetachFromDisposeScope();
            owned.Add(weight);
        }

        weights.Add((name, weight));
        return weight;
    }

    /// <summary>A model with unset weights that computes where and as this one does.</summary>
    private Transformer Like(ModelConfig config, Transformer? trunk = null, Lora? adapter = null) =>
        new(config, Device, trunk, adapter) { Precision = Precision, GradientCheckpointing = GradientCheckpointing };

    /// <summary>A model over this one's weights with a fresh adapter; a score head is not set.</summary>
    private Transformer Adapted(ModelConfig config, LoraOptions options, ulong seed)
    {
        if (Adapter is not null) throw new InvalidOperationException("The model has an adapter already; merge it first (Clone).");
        string[] attention = [.. names.QueryKeyValue, names.AttentionOutput];
        IReadOnlySet<string> targets = Lora.Select(options.Targets, [.. linears.Select(l => l.Name)], attention);
        foreach (Parameter weight in owned) weight.requires_grad = false;
        (string, int, int)[] modules = [.. linears.Where(l => targets.Contains(l.Name)).Select(l => (l.Name, l.Inputs, l.Outputs))];
        return Like(config, trunk: this, new Lora(options, modules, Device, seed));
    }

    private void InitialiseScoreHead(ulong seed)
    {
        using var noGradient = no_grad();
        Fill(head!, new NormalSource(seed), 1 / Math.Sqrt(Config.EmbeddingDimension + 1.0));
    }

    private void CopyFrom(Transformer other, Parameter? except)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        Dictionary<string, Tensor> source = other.MergedWeights().ToDictionary(w => w.Name, w => w.Value);
        foreach ((string name, Parameter weight) in weights)
        {
            if (!ReferenceEquals(weight, except)) weight.copy_(source[name]);
        }
    }

    private static void Fill(Parameter weight, NormalSource normal, double deviation)
    {
        var values = new float[weight.numel()];
        foreach (ref float value in values.AsSpan()) value = (float)(deviation * normal.Next());
        using Tensor filled = tensor(values, weight.shape);
        weight.copy_(filled);
    }

    private sealed record Block
    {
        public required Norm AttentionNorm { get; init; }
        public required Linear[] QueryKeyValue { get; init; }
        public Norm? QueryNorm { get; init; }
        public Norm? KeyNorm { get; init; }
        public required Linear AttentionOutput { get; init; }
        public required Norm FeedForwardNorm { get; init; }
        public Linear? Gate { get; init; }
        public required Linear Up { get; init; }
        public required Linear Down { get; init; }
    }

    /// <summary>What all layers of one forward pass share.</summary>
    private sealed record Attention
    {
        public (Tensor Cosine, Tensor Sine)? Rotation { get; init; }
        public Tensor? Mask { get; init; }
        public KvCache? Cache { get; init; }
    }

    private sealed record Linear(
        string Name, int Inputs, int Outputs, CastWeights Casts, Parameter Weight, Parameter? Bias, bool Transposed, LoraPair? Pair)
    {
        public Tensor Apply(Tensor x)
        {
            Tensor weight = Casts.Of(Weight, x.dtype);
            Tensor y = functional.linear(x, Transposed ? weight.t() : weight, Bias is null ? null : Casts.Of(Bias, x.dtype));
            return Pair is null ? y : y.Plus(Pair.Apply(x, Casts));
        }
    }

    private sealed record Norm(Parameter Weight, Parameter? Bias, double Epsilon)
    {
        public Tensor Apply(Tensor x) => Bias is null
            ? x * x.Squared().mean([-1], keepdim: true).Plus(Epsilon).rsqrt() * Weight
            : functional.layer_norm(x, Weight.shape, Weight, Bias, Epsilon);
    }
}
