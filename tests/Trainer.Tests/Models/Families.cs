using Rlhf.Trainer.Models;
using static TorchSharp.torch;
using Parameter = TorchSharp.Modules.Parameter;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>Configurations of every family, in Hugging Face's fields, with weights that no fixture has.</summary>
internal static class Families
{
    private static readonly Dictionary<string, string> Configs = new()
    {
        ["llama"] = """
            {"model_type": "llama", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 6, "num_key_value_heads": 3, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true}
            """,
        ["llama with wide heads"] = """
            {"model_type": "llama", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "rope_theta": 500000.0}
            """,
        ["llama 3, stretched rotation"] = """
            {"model_type": "llama", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256, "rope_theta": 10000.0,
             "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                              "original_max_position_embeddings": 64}}
            """,
        ["mistral, tied, without a window"] = """
            {"model_type": "mistral", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 4, "sliding_window": null, "tie_word_embeddings": true}
            """,
        ["mistral"] = """
            {"model_type": "mistral", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 5}
            """,
        ["qwen2"] = """
            {"model_type": "qwen2", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
             "sliding_window": 4, "use_sliding_window": false}
            """,
        ["qwen2 with a window"] = """
            {"model_type": "qwen2", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2,
             "sliding_window": 4, "use_sliding_window": true, "max_window_layers": 0}
            """,
        ["qwen3, tied, with biases"] = """
            {"model_type": "qwen3", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 12, "attention_bias": true, "tie_word_embeddings": true}
            """,
        ["qwen3"] = """
            {"model_type": "qwen3", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
            """,
        ["gpt_neox, serial"] = """
            {"model_type": "gpt_neox", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "use_parallel_residual": false, "rotary_pct": 0.5}
            """,
        ["gpt_neox, parallel"] = """
            {"model_type": "gpt_neox", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "use_parallel_residual": true, "rotary_pct": 1.0, "tie_word_embeddings": true}
            """,
        ["gpt_neox, a quarter rotated"] = """
            {"model_type": "gpt_neox", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "use_parallel_residual": true, "rotary_pct": 0.25, "hidden_act": "gelu_new"}
            """,
        ["opt"] = """
            {"model_type": "opt", "vocab_size": 50, "hidden_size": 24, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
             "max_position_embeddings": 32}
            """,
        ["opt, post-norm and projected"] = """
            {"model_type": "opt", "vocab_size": 50, "hidden_size": 24, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
             "max_position_embeddings": 32, "do_layer_norm_before": false, "word_embed_proj_dim": 12}
            """,
        ["opt, untied"] = """
            {"model_type": "opt", "vocab_size": 50, "hidden_size": 24, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
             "max_position_embeddings": 32, "activation_function": "gelu", "tie_word_embeddings": false}
            """,
        ["gpt2, untied"] = """
            {"model_type": "gpt2", "vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 32,
             "tie_word_embeddings": false, "activation_function": "gelu"}
            """,
        ["gpt2"] = """
            {"model_type": "gpt2", "vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32, "n_inner": 30}
            """,
    };

    public static IReadOnlyCollection<string> Names => Configs.Keys;

    /// <summary>From a config.json, with weights large enough that every part of the network matters.</summary>
    /// <param name="name">One of <see cref="Names"/>.</param>
    /// <param name="vocabulary">Another vocabulary than the configuration's.</param>
    public static Transformer Load(string name, int? vocabulary = null)
    {
        using var folder = new TemporaryFolder();
        string file = Path.Combine(folder.Path, "config.json");
        File.WriteAllText(file, Configs[name]);
        ModelConfig config = ModelConfig.Read(file);
        var model = new Transformer(vocabulary is { } size ? config with { VocabularySize = size } : config);
        using var noGradient = no_grad();
        using var scope = NewDisposeScope();
        using var generator = new Generator(5);
        foreach ((string weight, Parameter value) in model.NamedWeights())
        {
            Tensor noise = randn(value.shape, generator: generator);
            value.copy_(value.dim() == 2 ? noise / Math.Sqrt(value.shape[1]) * 1.2
                : weight.EndsWith("bias", StringComparison.Ordinal) ? noise * 0.2 : 1 + noise * 0.2);
        }

        return model;
    }
}
