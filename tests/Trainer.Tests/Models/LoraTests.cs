using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;
using Parameter = TorchSharp.Modules.Parameter;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>Adapters on every family: their function, their gradients, and what they leave alone.</summary>
public sealed class LoraTests
{
    private static readonly LoraOptions Everything = new(Rank: 3, Alpha: 12, [LoraOptions.AllLinear]);
    private static readonly int[] Ids = [3, 17, 49, 0, 8, 8, 31, 22, 5, 40, 11];

    public static TheoryData<string> Names => FamilyTests.Names;

    [Theory]
    [MemberData(nameof(Names))]
    public void An_adapter_that_has_not_learned_changes_no_bit(string family)
    {
        using DisposeScope scope = NewDisposeScope();
        using Transformer trunk = Families.Load(family);
        byte[] before = Logits(trunk).bytes.ToArray();
        using Transformer adapted = trunk.WithAdapter(Everything, 1);
        Assert.Equal(before, Logits(adapted).bytes.ToArray());
        using Transformer merged = adapted.Clone();
        Assert.Equal(Bytes(trunk), Bytes(merged));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Logits_are_those_of_weights_merged_by_hand(string family)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        using Transformer trunk = Families.Load(family);
        using Transformer adapted = Learned(trunk, Everything);
        using Transformer byHand = trunk.Clone();
        Dictionary<string, Parameter> weights = byHand.NamedWeights().ToDictionary(w => w.Name, w => w.Value);
        foreach ((string module, Tensor a, Tensor b) in Pairs(adapted))
        {
            Tensor product = b.to(ScalarType.Float64).matmul(a.to(ScalarType.Float64)) * (12.0 / 3);
            Parameter weight = weights[$"{module}.weight"];
            weight.copy_(weight.to(ScalarType.Float64) + (trunk.Config.ModelType == "gpt2" ? product.t() : product));
        }

        double[][] expected = new PlainForward(byHand).Logits(Ids);
        using Transformer merged = adapted.Clone();
        AssertClose(expected, Logits(adapted), 2e-5);
        AssertClose(expected, Logits(merged), 2e-5);
        Assert.True((Logits(trunk) - Logits(adapted)).abs().max().item<float>() > 0.1f, "the adapter does too little to be seen");
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Gradients_are_those_of_the_full_matrix_projected(string family)
    {
        using DisposeScope scope = NewDisposeScope();
        using Transformer trunk = Families.Load(family);
        using Transformer adapted = Learned(trunk, Everything);
        using Transformer merged = adapted.Clone();
        Loss(adapted).backward();
        Loss(merged).backward();
        Dictionary<string, Parameter> full = merged.NamedWeights().ToDictionary(w => w.Name, w => w.Value);
        foreach ((string module, Tensor a, Tensor b) in Pairs(adapted))
        {
            // y = (W + s·BA)x: with G = dL/dW, dL/dB = s·GAᵀ and dL/dA = s·BᵀG.
            Tensor g = full[$"{module}.weight"].grad!.to(ScalarType.Float64);
            if (trunk.Config.ModelType == "gpt2") g = g.t();
            AssertClose(g.matmul(a.to(ScalarType.Float64).t()) * 4, b.grad!, module);
            AssertClose(b.to(ScalarType.Float64).t().matmul(g) * 4, a.grad!, module);
        }

        Assert.All(trunk.NamedWeights(), w => Assert.True(w.Value.grad is null, $"{w.Name} has a gradient"));

        static void AssertClose(Tensor expected, Tensor actual, string module)
        {
            double scale = expected.abs().max().item<double>();
            Assert.True(scale > 1e-6, $"{module}: nothing to compare");
            double error = (expected - actual.to(ScalarType.Float64)).abs().max().item<double>();
            Assert.True(error < 1e-4 * scale, $"{module}: off by {error} of {scale}");
        }
    }

    [Theory]
    [InlineData("llama", LoraOptions.AllLinear)]
    [InlineData("llama", "layers.1.self_attn.q_proj")] // nothing to learn in the first block
    [InlineData("opt, post-norm and projected", LoraOptions.AllLinear)]
    public void Gradient_checkpointing_gives_the_same_bits(string family, string target)
    {
        using DisposeScope scope = NewDisposeScope();
        using Transformer trunk = Families.Load(family);
        using Transformer adapted = Learned(trunk, new LoraOptions(3, 12, [target]));
        byte[] plain = Gradients(adapted);
        trunk.GradientCheckpointing = true;
        using Transformer again = Learned(trunk, new LoraOptions(3, 12, [target]));
        Assert.True(again.GradientCheckpointing);
        Assert.Equal(plain, Gradients(again));

        static byte[] Gradients(Transformer model)
        {
            using GradientPass pass = model.BeginGradients();
            pass.Backward(Loss(model));
            return [.. model.Trainable().SelectMany(w => w.Value.grad!.bytes.ToArray())];
        }
    }

    [Fact]
    public void The_weights_are_shared_and_stay_as_they_are()
    {
        using DisposeScope scope = NewDisposeScope();
        using Transformer trunk = Families.Load("qwen2");
        byte[] before = Bytes(trunk), logits = Logits(trunk).bytes.ToArray();
        using (Transformer adapted = trunk.WithAdapter(Everything, 1))
        {
            foreach (((string name, Parameter shared), (string other, Parameter own)) in adapted.NamedWeights().Zip(trunk.NamedWeights()))
            {
                Assert.Equal(other, name);
                Assert.Same(own, shared);
            }

            Assert.All(adapted.Trainable(), w => Assert.Contains(".lora_", w.Name, StringComparison.Ordinal));
            using var optimizer = optim.AdamW(adapted.Trainable().Select(w => w.Value), 0.1);
            for (int step = 0; step < 3; step++)
            {
                optimizer.zero_grad();
                Loss(adapted).backward();
                optimizer.step();
            }

            Assert.NotEqual(logits, Logits(adapted).bytes.ToArray());
        }

        Assert.Equal(before, Bytes(trunk));
        Assert.Equal(logits, Logits(trunk).bytes.ToArray()); // the adapter is gone, its trunk is not
    }

    [Fact]
    public void A_reward_model_over_a_language_model_has_a_head_of_its_own()
    {
        using DisposeScope scope = NewDisposeScope();
        using Transformer language = Families.Load("mistral");
        using Transformer full = Transformer.WithScoreHead(language, 9);
        using Transformer reward = language.WithAdapterAndScoreHead(Everything, 1, 9);
        using Tensor ids = tensor(Ids.Select(id => (long)id).ToArray(), [1, Ids.Length]);
        Assert.Equal(full.Scores(full.Hidden(ids)).bytes.ToArray(), reward.Scores(reward.Hidden(ids)).bytes.ToArray());
        Assert.Equal("score.weight", reward.Trainable()[^1].Name);

        // The critic over it: the same head at first, but not the same tensor.
        using Transformer scoring = reward.Clone();
        using Transformer critic = scoring.WithAdapter(Everything, 2);
        Assert.Equal("score.weight", critic.Trainable()[^1].Name);
        Assert.NotSame(scoring.NamedWeights()[^1].Value, critic.NamedWeights()[^1].Value);
        Assert.Equal(scoring.Scores(scoring.Hidden(ids)).bytes.ToArray(), critic.Scores(critic.Hidden(ids)).bytes.ToArray());
        Assert.All(scoring.NamedWeights().SkipLast(1).Zip(critic.NamedWeights()), pair => Assert.Same(pair.First.Value, pair.Second.Value));
    }

    [Fact]
    public void A_starts_uniform_within_Kaimings_bound_and_B_at_zero()
    {
        using DisposeScope scope = NewDisposeScope();
        using var trunk = new Transformer(ModelConfig.Llama(64, 256, 1, 4, 4, 512, 32));
        trunk.InitialiseWeights(1);
        using Transformer adapted = trunk.WithAdapter(new LoraOptions(64, 64, ["q_proj"]), 1);
        (_, Tensor a, Tensor b) = Pairs(adapted).Single();
        Assert.Equal(0, b.abs().max().item<float>());
        Assert.InRange(a.abs().max().item<float>(), 0.999f / 16, 1f / 16);
        Assert.Equal(0, a.mean().item<float>(), 0.001f);
        Assert.Equal(1 / 16.0 / Math.Sqrt(3), a.std().item<float>(), 0.0005);

        using Transformer same = trunk.WithAdapter(new LoraOptions(64, 64, ["q_proj"]), 1);
        using Transformer other = trunk.WithAdapter(new LoraOptions(64, 64, ["q_proj"]), 2);
        Assert.Equal(a.bytes.ToArray(), Pairs(same).Single().A.bytes.ToArray());
        Assert.NotEqual(a.bytes.ToArray(), Pairs(other).Single().A.bytes.ToArray());
    }

    [Theory]
    [InlineData("llama", "", "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj")]
    [InlineData("llama", "q_proj,v_proj", "self_attn.q_proj self_attn.v_proj")]
    [InlineData("llama", "layers.1.self_attn.q_proj", "self_attn.q_proj")]
    [InlineData("qwen3", "all-linear", "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj")]
    [InlineData("gpt2", "", "attn.c_attn attn.c_proj")]
    [InlineData("gpt2", "c_proj", "attn.c_proj mlp.c_proj")]
    [InlineData("gpt_neox, serial", "query_key_value", "attention.query_key_value")]
    [InlineData("gpt_neox, parallel", "all-linear", "attention.query_key_value attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h")]
    [InlineData("opt, untied", "fc1,out_proj", "self_attn.out_proj fc1")]
    [InlineData("opt, post-norm and projected", "project_in", "model.decoder.project_in")]
    public void Targets_are_names_as_PEFT_matches_them(string family, string targets, string expected)
    {
        using Transformer trunk = Families.Load(family);
        using Transformer adapted = trunk.WithAdapter(new LoraOptions(2, 2, targets.Split(',', StringSplitOptions.RemoveEmptyEntries)), 1);
        Assert.Equal(expected.Split(' '), Lora.Endings(adapted.Adapter!.Modules));
        int layers = targets.StartsWith("layers.1", StringComparison.Ordinal) || expected.StartsWith("model.", StringComparison.Ordinal) ? 1 : 2;
        Assert.Equal(expected.Split(' ').Length * layers, adapted.Adapter.Modules.Count);
    }

    [Theory]
    [InlineData("proj")] // only the end of a name's last part
    [InlineData("c_attn")] // another family's
    [InlineData("lm_head")]
    [InlineData("input_layernorm")] // no matrix
    public void An_unknown_target_is_named_with_the_models_modules(string target)
    {
        using Transformer trunk = Families.Load("llama");
        string message = Assert.Throws<LoraTargetException>(() => trunk.WithAdapter(new LoraOptions(2, 2, ["q_proj", target]), 1)).Message;
        Assert.Contains($"'{target}' is no linear module", message, StringComparison.Ordinal);
        Assert.Contains("self_attn.q_proj, self_attn.k_proj, self_attn.v_proj, self_attn.o_proj, mlp.gate_proj", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_second_adapter_needs_a_merge_first()
    {
        using Transformer trunk = Families.Load("llama");
        using Transformer adapted = trunk.WithAdapter(Everything, 1);
        Assert.Contains("merge it first", Assert.Throws<InvalidOperationException>(
            () => adapted.WithAdapter(Everything, 2)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Sampled_tokens_are_those_of_the_merged_model_on_both_paths()
    {
        ModelConfig config = ModelConfig.Llama(100, 64, 2, 4, 2, 96, 128) with { InitializerRange = 0.2 };
        using var trunk = new Transformer(config);
        trunk.InitialiseWeights(17);
        using Transformer adapted = Learned(trunk, Everything);
        using Transformer merged = adapted.Clone();
        int[][] prompts = [.. Enumerable.Range(0, 9).Select(i => Enumerable.Range(0, 1 + i).Select(t => (i * 13 + t * 29 + 1) % 100).ToArray())];
        var options = new SamplingOptions { MaxNewTokens = 20, Seed = 3, EosId = 7, Temperature = 0.7 };
        Assert.True(CpuDecoder.Suits(adapted));
        int[][] tokens = Sampler.Generate(adapted, prompts, options);
        Assert.Equal(Sampler.Generate(merged, prompts, options), tokens);
        Assert.NotEqual(Sampler.Generate(trunk, prompts, options), tokens);
        SamplingRow[] rows = [.. prompts.Select((prompt, i) => new SamplingRow(prompt, i, options.MaxNewTokens))];
        Sampler.DecodeWithLibtorch(adapted, rows, options);
        Assert.Equal(rows.Select(row => row.New.ToArray()), tokens);
    }

    /// <summary>The pairs of an adapter, in the order of the network.</summary>
    internal static IEnumerable<(string Module, Parameter A, Parameter B)> Pairs(Transformer adapted)
    {
        Dictionary<string, Parameter> weights = adapted.Adapter!.NamedWeights().ToDictionary(w => w.Name, w => w.Value);
        return adapted.Adapter.Modules.Select(m => (m, weights[$"{m}.lora_A.weight"], weights[$"{m}.lora_B.weight"]));
    }

    /// <summary>An adapter that does something.</summary>
    internal static Transformer Learned(Transformer trunk, LoraOptions options)
    {
        Transformer adapted = trunk.WithAdapter(options, 1);
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        using var generator = new Generator(11);
        foreach ((_, _, Parameter b) in Pairs(adapted)) b.copy_(randn(b.shape, generator: generator) * 0.1);
        return adapted;
    }

    private static Tensor Logits(Transformer model)
    {
        using IDisposable noGradient = no_grad();
        return model.Logits(model.Hidden(tensor(Ids.Select(id => (long)id).ToArray(), [1, Ids.Length]))).contiguous();
    }

    /// <summary>Cross-entropy of the next token.</summary>
    private static Tensor Loss(Transformer model)
    {
        Tensor ids = tensor(Ids.Select(id => (long)id).ToArray(), [1, Ids.Length]);
        Tensor logits = model.Logits(model.Hidden(ids.narrow(1, 0, Ids.Length - 1)));
        return nn.functional.cross_entropy(logits[0], ids[0].narrow(0, 1, Ids.Length - 1));
    }

    private static void AssertClose(double[][] expected, Tensor logits, double tolerance)
    {
        for (int t = 0; t < expected.Length; t++)
        {
            for (int v = 0; v < expected[t].Length; v++)
                Assert.Equal(expected[t][v], logits[0, t, v].item<float>(), tolerance);
        }
    }

    private static byte[] Bytes(Transformer model) => [.. model.NamedWeights().SelectMany(w => w.Value.bytes.ToArray())];
}
