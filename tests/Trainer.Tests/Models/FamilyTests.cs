using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>Configurations without a fixture, against the same networks written out in plain loops.</summary>
public sealed class FamilyTests
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
        ["mistral"] = """
            {"model_type": "mistral", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 5}
            """,
        ["qwen2"] = """
            {"model_type": "qwen2", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
             "sliding_window": 4, "use_sliding_window": false}
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
        ["opt, post-norm and projected"] = """
            {"model_type": "opt", "vocab_size": 50, "hidden_size": 24, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
             "max_position_embeddings": 32, "do_layer_norm_before": false, "word_embed_proj_dim": 12}
            """,
        ["opt, untied"] = """
            {"model_type": "opt", "vocab_size": 50, "hidden_size": 24, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
             "max_position_embeddings": 32, "activation_function": "gelu", "tie_word_embeddings": false}
            """,
        ["gpt2"] = """
            {"model_type": "gpt2", "vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32, "n_inner": 30}
            """,
    };

    public static TheoryData<string> Names => [.. Configs.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void Logits_are_those_of_the_plain_network(string name)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        using Transformer model = Load(name);
        int[] ids = [3, 17, 49, 0, 8, 8, 31, 22, 5, 40, 11];
        double[][] expected = new PlainForward(model).Logits(ids);

        Tensor row = tensor(ids.Select(i => (long)i).ToArray(), [1, ids.Length]);
        AssertClose(expected, model.Logits(model.Hidden(row)));

        // The same behind three tokens of padding.
        Tensor padded = cat([zeros([1, 3], ScalarType.Int64), row], 1);
        Tensor mask = cat([zeros([1, 3], ScalarType.Int64), ones([1, ids.Length], ScalarType.Int64)], 1);
        AssertClose(expected, model.Logits(model.Hidden(padded, mask)).narrow(1, 3, ids.Length));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Greedy_tokens_are_those_of_the_plain_network(string name)
    {
        using Transformer model = Load(name);
        int[][] prompts = [[3, 17, 49, 0, 8, 8, 31], [22, 5]];
        int[][] tokens = Sampler.Generate(model, prompts, new SamplingOptions { MaxNewTokens = 6, Temperature = 0, EosId = -1 });
        var plain = new PlainForward(model);
        foreach ((int[] prompt, int[] continuation) in prompts.Zip(tokens))
        {
            List<int> text = [.. prompt];
            foreach (int token in continuation)
            {
                double[] logits = plain.Logits([.. text])[^1];
                Assert.Equal(Array.IndexOf(logits, logits.Max()), token);
                text.Add(token);
            }
        }
    }

    /// <summary>From a config.json, with weights large enough that every part of the network matters.</summary>
    private static Transformer Load(string name)
    {
        using var folder = new TemporaryFolder();
        string file = Path.Combine(folder.Path, "config.json");
        File.WriteAllText(file, Configs[name]);
        var model = new Transformer(ModelConfig.Read(file));
        using var noGradient = no_grad();
        using var scope = NewDisposeScope();
        using var generator = new Generator(5);
        foreach ((string weight, TorchSharp.Modules.Parameter value) in model.NamedWeights())
        {
            Tensor noise = randn(value.shape, generator: generator);
            value.copy_(value.dim() == 2 ? noise / Math.Sqrt(value.shape[1]) * 1.2
                : weight.EndsWith("bias", StringComparison.Ordinal) ? noise * 0.2 : 1 + noise * 0.2);
        }

        return model;
    }

    private static void AssertClose(double[][] expected, Tensor logits)
    {
        for (int t = 0; t < expected.Length; t++)
        {
            for (int v = 0; v < expected[t].Length; v++)
            {
                double actual = logits[0, t, v].item<float>();
                Assert.True(Math.Abs(expected[t][v] - actual) < 2e-5, $"time {t}, token {v}: {actual} instead of {expected[t][v]}");
            }
        }
    }
}
