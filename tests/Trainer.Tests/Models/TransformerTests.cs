using Rlhf.Trainer.Models;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Models;

public sealed class TransformerTests
{
    private static readonly ModelConfig Small = ModelConfig.Llama(64, 32, 2, 4, 2, 48, 64);

    [Fact]
    public void The_seed_decides_the_weights()
    {
        using Transformer first = Initialised(Small, 7), second = Initialised(Small, 7), other = Initialised(Small, 8);
        Assert.Equal(Bytes(first), Bytes(second));
        Assert.NotEqual(Bytes(first), Bytes(other));
    }

    [Fact]
    public void Fresh_weights_have_the_deviations_of_GPT2()
    {
        using Transformer model = Initialised(ModelConfig.Llama(512, 128, 8, 4, 4, 256, 64), 1);
        Dictionary<string, TorchSharp.Modules.Parameter> weights = model.NamedWeights().ToDictionary(w => w.Name, w => w.Value);
        Assert.Equal(0.02, Deviation(weights["model.embed_tokens.weight"]), 0.0005);
        Assert.Equal(0.02, Deviation(weights["model.layers.0.self_attn.q_proj.weight"]), 0.0005);
        Assert.Equal(0.02 / 4, Deviation(weights["model.layers.0.self_attn.o_proj.weight"]), 0.0002);
        Assert.Equal(0.02 / 4, Deviation(weights["model.layers.7.mlp.down_proj.weight"]), 0.0002);
        Assert.Equal(1, weights["model.norm.weight"].min().item<float>());
    }

    [Fact]
    public void A_score_head_keeps_the_trunk_and_is_drawn_from_the_reference_distribution()
    {
        using Transformer language = Initialised(ModelConfig.Llama(64, 1024, 1, 4, 4, 32, 64, tiedEmbeddings: false), 1);
        using Transformer reward = Transformer.WithScoreHead(language, 5);
        using Transformer again = Transformer.WithScoreHead(language, 5);
        Assert.Equal(HeadKind.Score, reward.Config.Head);
        Assert.Equal(Bytes(reward), Bytes(again));
        Assert.Equal(1 / Math.Sqrt(1025), Deviation(reward.NamedWeights()[^1].Value), 0.002);
        foreach (((string name, var expected), (_, var actual)) in language.NamedWeights().SkipLast(1).Zip(reward.NamedWeights()))
            Assert.True(expected.bytes.SequenceEqual(actual.bytes), name);
    }

    [Fact]
    public void A_clone_has_weights_of_its_own()
    {
        using Transformer model = Initialised(Small, 1);
        byte[] before = Bytes(model);
        using Transformer clone = model.Clone();
        Assert.Equal(before, Bytes(clone));
        using (no_grad()) clone.NamedWeights()[0].Value.fill_(1);
        Assert.Equal(before, Bytes(model));
    }

    [Fact]
    public void Training_gives_the_same_bits_each_time()
    {
        byte[] Train()
        {
            using var scope = NewDisposeScope();
            using Transformer model = Initialised(ModelConfig.Llama(300, 64, 2, 4, 2, 96, 64), 3);
            using var optimizer = optim.AdamW(model.NamedWeights().Select(w => w.Value), 1e-2);
            Tensor ids = arange(8 * 48, ScalarType.Int64).mul(7919).remainder(300).view(8, 48);
            for (int step = 0; step < 3; step++)
            {
                optimizer.zero_grad();
                Tensor logits = model.Logits(model.Hidden(ids));
                nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward();
                optimizer.step();
            }

            return Bytes(model);
        }

        Assert.Equal(Train(), Train());
    }

    [Fact]
    public void A_sliding_window_hides_what_lies_before_it()
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        ModelConfig config = ModelConfig.Llama(64, 32, 1, 4, 2, 48, 64) with { ModelType = "mistral", SlidingWindow = 4 };
        using Transformer model = Initialised(config, 1);
        long[] ids = [5, 9, 33, 12, 7, 60, 21, 2];
        Tensor Last(int changed)
        {
            long[] other = [.. ids];
            other[changed] = 40;
            return model.Hidden(tensor(other, [1, ids.Length])).select(1, ids.Length - 1);
        }

        Tensor original = model.Hidden(tensor(ids, [1, ids.Length])).select(1, ids.Length - 1);
        // The last token is at 7 and sees 4 tokens: 4, 5, 6, 7.
        for (int changed = 0; changed < ids.Length - 1; changed++)
            Assert.Equal(changed < 4, (Last(changed) - original).abs().max().item<float>() < 1e-6f);
    }

    [Fact]
    public void Too_many_tokens_are_refused()
    {
        using Transformer model = Initialised(Small, 1);
        using Tensor ids = zeros([1, 65], ScalarType.Int64);
        Assert.Contains("65 tokens exceed the model's 64 positions", Assert.Throws<ArgumentException>(
            () => model.Hidden(ids)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_forward_pass_leaves_one_tensor_behind()
    {
        using Transformer model = Initialised(Small, 1);
        using Tensor ids = zeros([2, 8], ScalarType.Int64);
        using Tensor mask = ones([2, 8], ScalarType.Int64);
        model.Hidden(ids, mask).Dispose();
        using var scope = NewDisposeScope();
        using Tensor hidden = model.Hidden(ids, mask);
        Assert.Equal(1, scope.DisposablesCount);
    }

    private static Transformer Initialised(ModelConfig config, ulong seed)
    {
        var model = new Transformer(config);
        model.InitialiseWeights(seed);
        return model;
    }

    private static byte[] Bytes(Transformer model) => [.. model.NamedWeights().SelectMany(w => w.Value.bytes.ToArray())];

    private static double Deviation(Tensor weight) => weight.std().item<float>();
}
