namespace Rlhf.Trainer.Models;

/// <summary>How a checkpoint stores the projections of query, key and value.</summary>
internal enum QueryKeyValueLayout
{
    /// <summary>Three matrices.</summary>
    Separate,

    /// <summary>One matrix, all queries first, then keys, then values (GPT-2).</summary>
    Stacked,

    /// <summary>One matrix, query, key and value of each head side by side (GPT-NeoX).</summary>
    PerHead,
}

/// <summary>
/// Hugging Face's tensor names of one model family, without ".weight" and ".bias". Names of a layer are relative to
/// <see cref="Layer"/> + index.
/// </summary>
internal sealed record WeightNames
{
    /// <summary>What the base model's tensors start with; checkpoints saved without the head lack it.</summary>
    public required string Prefix { get; init; }

    public required string Embedding { get; init; }
    public string? Positions { get; init; }
    public string? ProjectIn { get; init; }
    public string? ProjectOut { get; init; }
    public required string Layer { get; init; }
    public required string AttentionNorm { get; init; }
    public QueryKeyValueLayout Layout { get; init; } = QueryKeyValueLayout.Separate;

    /// <summary>One name, or those of query, key and value.</summary>
    public required string[] QueryKeyValue { get; init; }

    public string QueryNorm { get; init; } = "self_attn.q_norm";
    public string KeyNorm { get; init; } = "self_attn.k_norm";
    public required string AttentionOutput { get; init; }
    public required string FeedForwardNorm { get; init; }
    public string Gate { get; init; } = "mlp.gate_proj";
    public required string Up { get; init; }
    public required string Down { get; init; }
    public required string FinalNorm { get; init; }
    public string Head { get; init; } = "lm_head";
    public string Score { get; init; } = "score";

    /// <summary>Matrices are stored (inputs, outputs) instead of (outputs, inputs): GPT-2's Conv1D.</summary>
    public bool Transposed { get; init; }

    public static WeightNames For(string family) => family switch
    {
        "gpt2" => Gpt2,
        "gpt_neox" => GptNeoX,
        "opt" => Opt,
        _ => Llama,
    };

    private static readonly WeightNames Llama = new()
    {
        Prefix = "model.",
        Embedding = "model.embed_tokens",
        Layer = "model.layers.",
        AttentionNorm = "input_layernorm",
        QueryKeyValue = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        AttentionOutput = "self_attn.o_proj",
        FeedForwardNorm = "post_attention_layernorm",
        Up = "mlp.up_proj",
        Down = "mlp.down_proj",
        FinalNorm = "model.norm",
    };

    private static readonly WeightNames Gpt2 = new()
    {
        Prefix = "transformer.",
        Embedding = "transformer.wte",
        Positions = "transformer.wpe",
        Layer = "transformer.h.",
        AttentionNorm = "ln_1",
        Layout = QueryKeyValueLayout.Stacked,
        QueryKeyValue = ["attn.c_attn"],
        AttentionOutput = "attn.c_proj",
        FeedForwardNorm = "ln_2",
        Up = "mlp.c_fc",
        Down = "mlp.c_proj",
        FinalNorm = "transformer.ln_f",
        Transposed = true,
    };

    private static readonly WeightNames GptNeoX = new()
    {
        Prefix = "gpt_neox.",
        Embedding = "gpt_neox.embed_in",
        Layer = "gpt_neox.layers.",
        AttentionNorm = "input_layernorm",
        Layout = QueryKeyValueLayout.PerHead,
        QueryKeyValue = ["attention.query_key_value"],
        AttentionOutput = "attention.dense",
        FeedForwardNorm = "post_attention_layernorm",
        Up = "mlp.dense_h_to_4h",
        Down = "mlp.dense_4h_to_h",
        FinalNorm = "gpt_neox.final_layer_norm",
        Head = "embed_out",
    };

    private static readonly WeightNames Opt = new()
    {
        Prefix = "model.",
        Embedding = "model.decoder.embed_tokens",
        Positions = "model.decoder.embed_positions",
        ProjectIn = "model.decoder.project_in",
        ProjectOut = "model.decoder.project_out",
        Layer = "model.decoder.layers.",
        AttentionNorm = "self_attn_layer_norm",
        QueryKeyValue = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        AttentionOutput = "self_attn.out_proj",
        FeedForwardNorm = "final_layer_norm",
        Up = "fc1",
        Down = "fc2",
        FinalNorm = "model.decoder.final_layer_norm",
    };
}
