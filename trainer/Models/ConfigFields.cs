using System.Text.Json.Nodes;

namespace Rlhf.Trainer.Models;

/// <summary>
/// Hugging Face's field names of each model family, both ways. Defaults are those of transformers' configuration classes.
/// </summary>
internal static class ConfigFields
{
    public static readonly string[] Families = ["llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "opt"];

    private static readonly Dictionary<string, string> ClassPrefixes = new()
    {
        ["llama"] = "Llama",
        ["mistral"] = "Mistral",
        ["qwen2"] = "Qwen2",
        ["qwen3"] = "Qwen3",
        ["gpt2"] = "GPT2",
        ["gpt_neox"] = "GPTNeoX",
        ["opt"] = "OPT",
    };

    public static ModelConfig Read(JsonObject json, string file)
    {
        var f = new Fields(json, file);
        string family = f.Text("model_type")
            ?? throw new ModelFormatException(file, "field 'model_type' is missing; this is not a model's config.json.");
        ModelConfig config = family switch
        {
            "llama" or "mistral" or "qwen2" or "qwen3" => LlamaFamily(f, family),
            "gpt2" => Gpt2(f),
            "gpt_neox" => GptNeoX(f),
            "opt" => Opt(f),
            _ => throw new ModelFormatException(
                file, $"model_type '{family}' is not supported; supported are {string.Join(", ", Families)}."),
        };
        return config with
        {
            Head = HeadOf(f),
            BosId = f.OptionalInteger("bos_token_id"),
            EosIds = f.Integers("eos_token_id"),
            PadId = f.OptionalInteger("pad_token_id"),
            RewardBias = f.Number("rlhf_reward_bias", 0),
            OtherFields = f.Unread(),
        };
    }

    public static JsonObject Write(ModelConfig c)
    {
        var json = new JsonObject
        {
            ["architectures"] = new JsonArray(Architecture(c)),
            ["model_type"] = c.ModelType,
            ["vocab_size"] = c.VocabularySize,
        };
        switch (c.ModelType)
        {
            case "gpt2":
                json["n_embd"] = c.HiddenSize;
                json["n_inner"] = c.IntermediateSize;
                json["n_layer"] = c.LayerCount;
                json["n_head"] = c.HeadCount;
                json["n_positions"] = c.MaxPositions;
                json["layer_norm_epsilon"] = c.NormEpsilon;
                json["activation_function"] = Name(c.Activation);
                json["initializer_range"] = c.InitializerRange;
                break;
            case "opt":
                json["hidden_size"] = c.HiddenSize;
                json["ffn_dim"] = c.IntermediateSize;
                json["num_hidden_layers"] = c.LayerCount;
                json["num_attention_heads"] = c.HeadCount;
                json["max_position_embeddings"] = c.MaxPositions;
                json["word_embed_proj_dim"] = c.EmbeddingDimension;
                json["do_layer_norm_before"] = !c.PostNorm;
                json["activation_function"] = Name(c.Activation);
                json["init_std"] = c.InitializerRange;
                break;
            case "gpt_neox":
                json["hidden_size"] = c.HiddenSize;
                json["intermediate_size"] = c.IntermediateSize;
                json["num_hidden_layers"] = c.LayerCount;
                json["num_attention_heads"] = c.HeadCount;
                json["max_position_embeddings"] = c.MaxPositions;
                json["layer_norm_eps"] = c.NormEpsilon;
                json["hidden_act"] = Name(c.Activation);
                json["rotary_pct"] = (double)c.RotaryDimension / c.HeadDimension;
                json["rotary_emb_base"] = c.RotaryTheta;
                json["use_parallel_residual"] = c.ParallelResidual;
                json["attention_bias"] = c.QueryKeyValueBias;
                json["initializer_range"] = c.InitializerRange;
                break;
            default:
                json["hidden_size"] = c.HiddenSize;
                json["intermediate_size"] = c.IntermediateSize;
                json["num_hidden_layers"] = c.LayerCount;
                json["num_attention_heads"] = c.HeadCount;
                json["num_key_value_heads"] = c.KeyValueHeadCount;
                json["head_dim"] = c.HeadDimension;
                json["max_position_embeddings"] = c.MaxPositions;
                json["rms_norm_eps"] = c.NormEpsilon;
                json["hidden_act"] = Name(c.Activation);
                json["rope_theta"] = c.RotaryTheta;
                json["rope_scaling"] = c.RotaryScaling is not { } scaling ? null : new JsonObject
                {
                    ["rope_type"] = "llama3",
                    ["factor"] = scaling.Factor,
                    ["low_freq_factor"] = scaling.LowFrequencyFactor,
                    ["high_freq_factor"] = scaling.HighFrequencyFactor,
                    ["original_max_position_embeddings"] = scaling.OriginalMaxPositions,
                };
                if (c.ModelType is "llama" or "qwen3") json["attention_bias"] = c.QueryKeyValueBias;
                if (c.ModelType == "llama") json["mlp_bias"] = c.FeedForwardBias;
                if (c.ModelType != "llama") json["sliding_window"] = c.SlidingWindow;
                if (c.ModelType is "qwen2" or "qwen3") json["use_sliding_window"] = c.SlidingWindow is not null;
                json["initializer_range"] = c.InitializerRange;
                break;
        }

        json["tie_word_embeddings"] = c.TiedEmbeddings;
        json["bos_token_id"] = c.BosId;
        json["eos_token_id"] = c.EosIds.Count switch
        {
            0 => null,
            1 => c.EosIds[0],
            _ => new JsonArray([.. c.EosIds.Select(id => JsonValue.Create(id))]),
        };
        json["pad_token_id"] = c.PadId;
        json["torch_dtype"] = "float32";
        if (c.Head == HeadKind.Score)
        {
            // Hugging Face derives the number of labels from this map.
            json["id2label"] = new JsonObject { ["0"] = "LABEL_0" };
            json["label2id"] = new JsonObject { ["LABEL_0"] = 0 };
            json["rlhf_reward_bias"] = c.RewardBias;
        }

        foreach ((string key, JsonNode? value) in c.OtherFields)
        {
            if (!json.ContainsKey(key)) json[key] = value?.DeepClone();
        }

        return json;
    }

    private static ModelConfig LlamaFamily(Fields f, string family)
    {
        int heads = f.Required("num_attention_heads"), hidden = f.Required("hidden_size");
        int headDimension = f.OptionalInteger("head_dim") ?? hidden / Math.Max(heads, 1);
        bool qwen = family is "qwen2" or "qwen3";
        bool attentionBias = f.Boolean("attention_bias", false);
        bool feedForwardBias = f.Boolean("mlp_bias", false);
        int? window = f.OptionalInteger("sliding_window");
        bool useWindow = f.Boolean("use_sliding_window", false);
        int maxWindowLayers = f.Integer("max_window_layers", 28);
        int layers = f.Required("num_hidden_layers");
        // Qwen applies the window from layer max_window_layers on; only the whole or none of it is supported here.
        if (qwen && (!useWindow || maxWindowLayers >= layers)) window = null;
        else if (qwen && window is not null && maxWindowLayers > 0)
            f.Fail("max_window_layers", "a window for some layers only is not supported");
        if (qwen) f.Keep("max_window_layers");
        if (family == "llama") window = null;

        RotaryScaling? scaling = null;
        // transformers 5 moved rope_theta and rope_scaling into one object, rope_parameters.
        Fields? rope = f.Object("rope_scaling") ?? f.Object("rope_parameters");
        double theta = f.Number("rope_theta", rope?.Number("rope_theta", 10000) ?? 10000);
        string? ropeType = rope?.Text("rope_type") ?? rope?.Text("type");
        if (rope is not null && ropeType is not (null or "default"))
        {
            if (ropeType != "llama3") rope.Fail("rope_type", $"'{ropeType}' is not supported (supported: default, llama3)");
            scaling = new RotaryScaling(
                rope.Number("factor", 8), rope.Number("low_freq_factor", 1), rope.Number("high_freq_factor", 4),
                rope.Integer("original_max_position_embeddings", 8192));
        }

        return new ModelConfig
        {
            ModelType = family,
            VocabularySize = f.Required("vocab_size"),
            HiddenSize = hidden,
            EmbeddingDimension = hidden,
            IntermediateSize = f.Required("intermediate_size"),
            LayerCount = layers,
            HeadCount = heads,
            KeyValueHeadCount = f.Integer("num_key_value_heads", heads),
            HeadDimension = headDimension,
            MaxPositions = f.Integer("max_position_embeddings", 2048),
            NormEpsilon = f.Number("rms_norm_eps", 1e-6),
            Activation = f.Activation("hidden_act", ActivationKind.Silu),
            QueryKeyValueBias = family == "qwen2" || attentionBias,
            AttentionOutputBias = family != "qwen2" && attentionBias,
            FeedForwardBias = feedForwardBias,
            QueryKeyNorm = family == "qwen3",
            RotaryDimension = headDimension,
            RotaryTheta = theta,
            RotaryScaling = scaling,
            SlidingWindow = window,
            TiedEmbeddings = f.Boolean("tie_word_embeddings", false),
            InitializerRange = f.Number("initializer_range", 0.02),
        };
    }

    private static ModelConfig Gpt2(Fields f)
    {
        int hidden = f.Required("n_embd"), heads = f.Required("n_head");
        f.Demand("scale_attn_weights", true);
        f.Demand("scale_attn_by_inverse_layer_idx", false);
        f.Demand("add_cross_attention", false);
        return new ModelConfig
        {
            ModelType = "gpt2",
            VocabularySize = f.Required("vocab_size"),
            HiddenSize = hidden,
            EmbeddingDimension = hidden,
            IntermediateSize = f.OptionalInteger("n_inner") ?? 4 * hidden,
            LayerCount = f.Required("n_layer"),
            HeadCount = heads,
            KeyValueHeadCount = heads,
            HeadDimension = hidden / Math.Max(heads, 1),
            MaxPositions = f.OptionalInteger("n_positions") ?? f.Integer("n_ctx", 1024),
            Norm = NormKind.Layer,
            NormEpsilon = f.Number("layer_norm_epsilon", 1e-5),
            Activation = f.Activation("activation_function", ActivationKind.GeluTanh),
            GatedFeedForward = false,
            QueryKeyValueBias = true,
            AttentionOutputBias = true,
            FeedForwardBias = true,
            TiedEmbeddings = f.Boolean("tie_word_embeddings", true),
            InitializerRange = f.Number("initializer_range", 0.02),
        };
    }

    private static ModelConfig GptNeoX(Fields f)
    {
        int hidden = f.Required("hidden_size"), heads = f.Required("num_attention_heads");
        int headDimension = hidden / Math.Max(heads, 1);
        if (f.Object("rope_scaling") is { } scaling && (scaling.Text("rope_type") ?? scaling.Text("type")) is { } type and not "default")
            f.Fail("rope_scaling", $"'{type}' is not supported for gpt_neox");
        bool bias = f.Boolean("attention_bias", true);
        return new ModelConfig
        {
            ModelType = "gpt_neox",
            VocabularySize = f.Required("vocab_size"),
            HiddenSize = hidden,
            EmbeddingDimension = hidden,
            IntermediateSize = f.Required("intermediate_size"),
            LayerCount = f.Required("num_hidden_layers"),
            HeadCount = heads,
            KeyValueHeadCount = heads,
            HeadDimension = headDimension,
            MaxPositions = f.Integer("max_position_embeddings", 2048),
            Norm = NormKind.Layer,
            NormEpsilon = f.Number("layer_norm_eps", 1e-5),
            ParallelResidual = f.Boolean("use_parallel_residual", true),
            Activation = f.Activation("hidden_act", ActivationKind.Gelu),
            GatedFeedForward = false,
            QueryKeyValueBias = bias,
            AttentionOutputBias = bias,
            FeedForwardBias = true,
            RotaryDimension = (int)(headDimension * f.Number("rotary_pct", 0.25)),
            RotaryTheta = f.OptionalNumber("rope_theta") ?? f.Number("rotary_emb_base", 10000),
            TiedEmbeddings = f.Boolean("tie_word_embeddings", false),
            InitializerRange = f.Number("initializer_range", 0.02),
        };
    }

    private static ModelConfig Opt(Fields f)
    {
        int hidden = f.Required("hidden_size"), heads = f.Required("num_attention_heads");
        f.Demand("enable_bias", true);
        f.Demand("layer_norm_elementwise_affine", true);
        f.Demand("_remove_final_layer_norm", false);
        return new ModelConfig
        {
            ModelType = "opt",
            VocabularySize = f.Required("vocab_size"),
            HiddenSize = hidden,
            EmbeddingDimension = f.OptionalInteger("word_embed_proj_dim") ?? hidden,
            IntermediateSize = f.Required("ffn_dim"),
            LayerCount = f.Required("num_hidden_layers"),
            HeadCount = heads,
            KeyValueHeadCount = heads,
            HeadDimension = hidden / Math.Max(heads, 1),
            MaxPositions = f.Integer("max_position_embeddings", 2048),
            Norm = NormKind.Layer,
            PostNorm = !f.Boolean("do_layer_norm_before", true),
            Activation = f.Activation("activation_function", ActivationKind.Relu),
            GatedFeedForward = false,
            QueryKeyValueBias = true,
            AttentionOutputBias = true,
            FeedForwardBias = true,
            PositionOffset = 2,
            TiedEmbeddings = f.Boolean("tie_word_embeddings", true),
            InitializerRange = f.Number("init_std", 0.02),
        };
    }

    private static HeadKind HeadOf(Fields f)
    {
        string? architecture = f.FirstText("architectures");
        int labels = f.OptionalInteger("num_labels") ?? f.Object("id2label")?.Count ?? 2;
        f.Read("label2id");
        f.Read("torch_dtype");
        f.Read("dtype");
        if (architecture?.EndsWith("ForSequenceClassification", StringComparison.Ordinal) != true) return HeadKind.LanguageModel;
        if (labels != 1) f.Fail("id2label", $"a reward model has one label, this one has {labels}");
        return HeadKind.Score;
    }

    private static string Architecture(ModelConfig c) => ClassPrefixes[c.ModelType] + c switch
    {
        { Head: HeadKind.Score } => "ForSequenceClassification",
        { ModelType: "gpt2" } => "LMHeadModel",
        _ => "ForCausalLM",
    };

    private static string Name(ActivationKind activation) => activation switch
    {
        ActivationKind.Silu => "silu",
        ActivationKind.Gelu => "gelu",
        ActivationKind.GeluTanh => "gelu_new",
        _ => "relu",
    };

    /// <summary>Typed access to a JSON object that remembers which fields were read and reports the others.</summary>
    private sealed class Fields(JsonObject json, string file)
    {
        private readonly HashSet<string> read = [];

        public int Count => json.Count;

        public JsonNode? Read(string name)
        {
            read.Add(name);
            return json[name];
        }

        public void Keep(string name) => read.Remove(name);

        public void Fail(string name, string problem) => throw new ModelFormatException(file, $"field '{name}': {problem}.");

        public int Required(string name) =>
            OptionalInteger(name) ?? throw new ModelFormatException(file, $"field '{name}' is missing; it must be a positive integer.");

        public int Integer(string name, int standard) => OptionalInteger(name) ?? standard;

        public int? OptionalInteger(string name) => Value<int>(name, "an integer");

        public double Number(string name, double standard) => OptionalNumber(name) ?? standard;

        public double? OptionalNumber(string name) => Value<double>(name, "a number");

        public bool Boolean(string name, bool standard) => Value<bool>(name, "true or false") ?? standard;

        public string? Text(string name) => Read(name) is JsonValue value && value.TryGetValue(out string? text) ? text : null;

        public string? FirstText(string name) =>
            Read(name) is JsonArray { Count: > 0 } list && list[0] is JsonValue value && value.TryGetValue(out string? text) ? text : null;

        public Fields? Object(string name) => Read(name) is JsonObject inner ? new Fields(inner, file) : null;

        public IReadOnlyList<int> Integers(string name) => Read(name) switch
        {
            null => [],
            JsonArray list => [.. list.Select(item => item is JsonValue v && v.TryGetValue(out int id) ? id : Invalid(name))],
            JsonValue value => [value.TryGetValue(out int id) ? id : Invalid(name)],
            _ => [Invalid(name)],
        };

        public void Demand(string name, bool supported)
        {
            if (Boolean(name, supported) != supported) Fail(name, $"only {(supported ? "true" : "false")} is supported");
            Keep(name);
        }

        public ActivationKind Activation(string name, ActivationKind standard)
        {
            switch (Text(name))
            {
                case null: return standard;
                case "silu" or "swish": return ActivationKind.Silu;
                case "gelu": return ActivationKind.Gelu;
                case "gelu_new" or "gelu_pytorch_tanh" or "gelu_fast": return ActivationKind.GeluTanh;
                case "relu": return ActivationKind.Relu;
                case { } other: throw new ModelFormatException(file, $"field '{name}': activation '{other}' is not supported.");
            }
        }

        public JsonObject Unread()
        {
            var rest = new JsonObject();
            foreach ((string key, JsonNode? value) in json)
            {
                if (!read.Contains(key)) rest[key] = value?.DeepClone();
            }

            return rest;
        }

        private int Invalid(string name) => throw new ModelFormatException(file, $"field '{name}' must hold integers.");

        private T? Value<T>(string name, string kind)
            where T : struct => Read(name) switch
            {
                null => null,
                JsonValue value when value.TryGetValue(out T result) => result,
                _ => throw new ModelFormatException(file, $"field '{name}' must be {kind}."),
            };
    }
}
