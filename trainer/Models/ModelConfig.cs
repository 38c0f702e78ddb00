using System.Text.Json;
using System.Text.Json.Nodes;

namespace Rlhf.Trainer.Models;

public enum NormKind
{
    /// <summary>Layer normalisation with weight and bias (Ba et al. 2016).</summary>
    Layer,

    /// <summary>Root mean square normalisation with a weight (Zhang and Sennrich 2019).</summary>
    RootMeanSquare,
}

public enum ActivationKind
{
    Silu,
    Gelu,

    /// <summary>The tanh approximation of GELU, called gelu_new by GPT-2.</summary>
    GeluTanh,
    Relu,
}

public enum HeadKind
{
    /// <summary>Logits over the vocabulary.</summary>
    LanguageModel,

    /// <summary>One score per position (Hugging Face: sequence classification with one label).</summary>
    Score,
}

/// <summary>Llama 3's stretching of low rotary frequencies (Dubey et al. 2024, section 3.2; "rope_type": "llama3").</summary>
public sealed record RotaryScaling(double Factor, double LowFrequencyFactor, double HighFrequencyFactor, int OriginalMaxPositions);

/// <summary>
/// The shape of a decoder-only transformer, read from and written to a Hugging Face <c>config.json</c>. One record describes every family:
/// what differs between GPT-2, GPT-NeoX, OPT and the Llama family is a property here, not a class.
/// </summary>
public sealed record ModelConfig
{
    /// <summary>
    /// Hugging Face's family name: llama, mistral, qwen2, qwen3, gpt2, gpt_neox or opt. It decides the names of weights and fields.
    /// </summary>
    public required string ModelType { get; init; }

    public required int VocabularySize { get; init; }

    /// <summary>Width D of the residual stream.</summary>
    public required int HiddenSize { get; init; }

    /// <summary>Inner width of the feed-forward block.</summary>
    public required int IntermediateSize { get; init; }

    public required int LayerCount { get; init; }
    public required int HeadCount { get; init; }

    /// <summary>Heads of keys and values; fewer than <see cref="HeadCount"/> for grouped-query attention.</summary>
    public required int KeyValueHeadCount { get; init; }

    /// <summary>Width of one attention head.</summary>
    public required int HeadDimension { get; init; }

    /// <summary>The longest sequence, in tokens.</summary>
    public required int MaxPositions { get; init; }

    /// <summary>Width of the token embedding; OPT-350m projects it to <see cref="HiddenSize"/>.</summary>
    public required int EmbeddingDimension { get; init; }

    public NormKind Norm { get; init; } = NormKind.RootMeanSquare;
    public double NormEpsilon { get; init; } = 1e-5;

    /// <summary>
    /// OPT-350m normalises after the residual addition and has no final norm; every other family normalises before the block.
    /// </summary>
    public bool PostNorm { get; init; }

    /// <summary>GPT-NeoX: attention and feed-forward read the same residual stream, each through its own norm.</summary>
    public bool ParallelResidual { get; init; }

    public ActivationKind Activation { get; init; } = ActivationKind.Silu;

    /// <summary>SwiGLU: the activation gates a second projection (Shazeer 2020).</summary>
    public bool GatedFeedForward { get; init; } = true;

    public bool QueryKeyValueBias { get; init; }
    public bool AttentionOutputBias { get; init; }
    public bool FeedForwardBias { get; init; }

    /// <summary>Qwen3: RMS norm over each head of query and key before the rotary embedding.</summary>
    public bool QueryKeyNorm { get; init; }

    /// <summary>Leading dimensions of each head that are rotated; 0 for learned absolute positions.</summary>
    public int RotaryDimension { get; init; }

    public double RotaryTheta { get; init; } = 10000;
    public RotaryScaling? RotaryScaling { get; init; }

    /// <summary>First row of the learned position table that stands for position 0 (2 for OPT).</summary>
    public int PositionOffset { get; init; }

    /// <summary>Tokens a position can look back, itself included; null for all (Mistral).</summary>
    public int? SlidingWindow { get; init; }

    /// <summary>The language-model head is the transposed token embedding.</summary>
    public bool TiedEmbeddings { get; init; }

    public HeadKind Head { get; init; } = HeadKind.LanguageModel;
    public int? BosId { get; init; }

    /// <summary>Tokens that end a text. Hugging Face allows several.</summary>
    public IReadOnlyList<int> EosIds { get; init; } = [];

    public int? PadId { get; init; }

    /// <summary>Standard deviation of freshly initialised weights.</summary>
    public double InitializerRange { get; init; } = 0.02;

    /// <summary>
    /// Mean raw score over the SFT demonstrations ("rlhf_reward_bias"): a reward is the raw score minus this, so that demonstrations have
    /// reward 0 on average (InstructGPT, appendix C.2).
    /// </summary>
    public double RewardBias { get; init; }

    /// <summary>Fields of the file that this record does not interpret; written back as they were.</summary>
    public JsonObject OtherFields { get; init; } = [];

    public bool UsesRotary => RotaryDimension > 0;

    /// <summary>A Llama-shaped configuration for a base made from scratch.</summary>
    public static ModelConfig Llama(
        int vocabularySize, int hiddenSize, int layers, int heads, int keyValueHeads, int intermediateSize, int maxPositions,
        bool tiedEmbeddings = true, int? bosId = null, int? eosId = null, int? padId = null)
    {
        var config = new ModelConfig
        {
            ModelType = "llama",
            VocabularySize = vocabularySize,
            HiddenSize = hiddenSize,
            IntermediateSize = intermediateSize,
            LayerCount = layers,
            HeadCount = heads,
            KeyValueHeadCount = keyValueHeads,
            HeadDimension = heads > 0 ? hiddenSize / heads : 0,
            MaxPositions = maxPositions,
            EmbeddingDimension = hiddenSize,
            RotaryDimension = heads > 0 ? hiddenSize / heads : 0,
            TiedEmbeddings = tiedEmbeddings,
            BosId = bosId,
            EosIds = eosId is { } eos ? [eos] : [],
            PadId = padId,
        };
        config.Validate("model configuration");
        return config;
    }

    /// <summary>Reads <c>config.json</c>.</summary>
    /// <exception cref="ModelFormatException">
    /// No such file, not JSON, an unknown family, or a field that is missing or out of range.
    /// </exception>
    public static ModelConfig Read(string file)
    {
        if (!File.Exists(file))
            throw new ModelFormatException(file, "no such file. A model folder in Hugging Face's format has a config.json.");
        ModelConfig config = ConfigFields.Read(JsonFile.ReadObject(file), file);
        config.Validate(file);
        return config;
    }

    /// <summary>Writes <c>config.json</c> in the fields of the family, so that Hugging Face loads it.</summary>
    public void Write(string file) => File.WriteAllText(file, ToJson().ToJsonString(IndentedJson) + "\n");

    /// <summary>The content of <c>config.json</c>.</summary>
    public JsonObject ToJson() => ConfigFields.Write(this);

    /// <summary>The rotary tables hold every position; longer contexts than this exist in no model of the supported families.</summary>
    private const int LargestMaxPositions = 1 << 21;

    private static readonly JsonSerializerOptions IndentedJson = new() { WriteIndented = true };

    /// <summary>Checks that the numbers fit together.</summary>
    /// <exception cref="ModelFormatException">Names <paramref name="file"/> and the field.</exception>
    public void Validate(string file)
    {
        Positive(VocabularySize, "vocabulary size");
        Positive(HiddenSize, "hidden size");
        Positive(IntermediateSize, "intermediate size");
        Positive(LayerCount, "number of layers");
        Positive(HeadCount, "number of attention heads");
        Positive(KeyValueHeadCount, "number of key/value heads");
        Positive(HeadDimension, "head dimension");
        Positive(MaxPositions, "number of positions");
        Positive(EmbeddingDimension, "embedding dimension");
        if (MaxPositions > LargestMaxPositions)
            throw new ModelFormatException(file, $"{MaxPositions} positions are more than the {LargestMaxPositions} that are supported.");
        if (HeadCount % KeyValueHeadCount != 0)
            throw new ModelFormatException(file, $"{HeadCount} attention heads are not a multiple of {KeyValueHeadCount} key/value heads.");
        if (RotaryDimension % 2 != 0 || RotaryDimension > HeadDimension)
            throw new ModelFormatException(
                file, $"rotary dimension {RotaryDimension} must be even and at most the head dimension {HeadDimension}.");

        void Positive(int value, string name)
        {
            if (value <= 0) throw new ModelFormatException(file, $"the {name} is {value}; it must be positive.");
        }
    }
}
