using System.Runtime.Intrinsics;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tests.Models;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Generation;

public sealed class CpuDecoderTests
{
    private static readonly SamplingOptions Options = new() { MaxNewTokens = 20, Seed = 3, EosId = 7, FurtherEndIds = [1, 2, 3, 4, 5] };

    /// <summary>Shapes that fill vectors and shapes that do not, heads of their own and shared ones.</summary>
    public static TheoryData<int, int, int, int, int, bool> Shapes => new()
    {
        { 64, 4, 4, 96, 100, true }, // heads of 16
        { 128, 4, 2, 352, 300, false }, // heads of 32, shared by two
        { 24, 3, 1, 20, 37, true }, // heads of 8, nothing a multiple of anything
        { 60, 5, 5, 50, 65, false }, // heads of 12
    };

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Greedy_and_sampled_tokens_are_those_of_libtorch(int width, int heads, int shared, int inner, int vocabulary, bool tied)
    {
        using Transformer model = Initialised(ModelConfig.Llama(vocabulary, width, 2, heads, shared, inner, 128, tied));
        int[][] prompts = Prompts(vocabulary, 11);
        Assert.True(CpuDecoder.Suits(model));
        foreach (double temperature in (double[])[0, 0.7])
        {
            SamplingOptions options = Options with { Temperature = temperature };
            int[][] expected = WithLibtorch(model, prompts, options);
            Assert.Equal(expected, Sampler.Generate(model, prompts, options));
            Assert.True(temperature == 0 || expected.Any(row => row.Length < options.MaxNewTokens)); // rows do end early
        }
    }

    [Theory]
    [InlineData("llama_gqa")]
    [InlineData("llama3_rope")]
    [InlineData("qwen2")]
    public void Llama3_frequencies_and_biases_are_honoured(string name)
    {
        using Transformer model = ModelFixture.Open(name).Load();
        int[][] prompts = Prompts(model.Config.VocabularySize, 6);
        SamplingOptions options = Options with { Temperature = 0, EosId = -1, FurtherEndIds = [] };
        Assert.True(CpuDecoder.Suits(model));
        Assert.Equal(WithLibtorch(model, prompts, options), Sampler.Generate(model, prompts, options));
    }

    [Fact]
    public void Neither_threads_nor_slots_change_a_token()
    {
        using Transformer model = Initialised(ModelConfig.Llama(100, 64, 2, 4, 2, 96, 128));
        int[][] prompts = Prompts(100, 23);
        int threads = get_num_threads();
        try
        {
            int[][] expected = Sampler.Generate(model, prompts, Options);
            foreach ((int workers, int batch) in ((int, int)[])[(1, 1), (1, 3), (2, 4), (4, 64)])
            {
                set_num_threads(workers);
                Assert.Equal(expected, Sampler.Generate(model, prompts, Options with { BatchSize = batch }));
            }
        }
        finally
        {
            set_num_threads(threads);
        }
    }

    [Theory]
    [InlineData("gpt2")]
    [InlineData("gpt_neox")]
    [InlineData("opt")]
    public void Other_families_are_left_to_libtorch(string name)
    {
        using Transformer model = ModelFixture.Open(name).Load();
        Assert.False(CpuDecoder.Suits(model));
    }

    [Fact]
    public unsafe void A_product_is_right_and_the_same_for_every_number_of_rows()
    {
        const int inputs = 37, outputs = 70, rows = 19;
        var random = new Random(2);
        float[] weight = [.. Enumerable.Range(0, inputs * outputs).Select(_ => random.NextSingle() - 0.5f)];
        float[] x = [.. Enumerable.Range(0, inputs * rows).Select(_ => random.NextSingle() - 0.5f)];
        using var matrix = new PackedMatrix(inputs, outputs);
        matrix.Place(weight, inputs, o => o, i => i);
        float[] Product(int first, int count)
        {
            var y = new float[count * matrix.OutputStride];
            fixed (float* from = &x[first * inputs], to = y) matrix.Multiply(from, inputs, count, to, matrix.OutputStride, add: false);
            return y;
        }

        float[] all = Product(0, rows);
        for (int row = 0; row < rows; row++)
        {
            for (int o = 0; o < outputs; o++)
            {
                double expected = Enumerable.Range(0, inputs).Sum(i => (double)x[row * inputs + i] * weight[o * inputs + i]);
                Assert.Equal(expected, all[row * matrix.OutputStride + o], 1e-5);
            }
        }

        for (int count = 1; count < rows; count++)
            Assert.Equal(
                all[(3 * matrix.OutputStride)..(int.Min(3 + count, rows) * matrix.OutputStride)], Product(3, int.Min(count, rows - 3)));
    }

    [Fact]
    public void The_exponential_is_exact_to_about_a_unit_in_the_last_place()
    {
        for (float x = -87; x < 88; x += 0.0137f)
        {
            double expected = Math.Exp(x);
            Assert.True(Math.Abs(CpuDecoder.Exp(Vector256.Create(x))[0] - expected) <= 1.2e-7 * expected, $"exp({x})");
        }

        Assert.Equal(0, CpuDecoder.Exp(Vector256.Create(float.NegativeInfinity))[0]);
        Assert.Equal(1, CpuDecoder.Exp(Vector256<float>.Zero)[0]);
    }

    private static int[][] WithLibtorch(Transformer model, int[][] prompts, SamplingOptions options)
    {
        SamplingRow[] rows = [.. prompts.Select((p, i) => new SamplingRow(p, i, options.MaxNewTokens))];
        Sampler.DecodeWithLibtorch(model, rows, options);
        return [.. rows.Select(r => r.New.ToArray())];
    }

    private static int[][] Prompts(int vocabulary, int count) =>
        [.. Enumerable.Range(0, count).Select(
            i => Enumerable.Range(0, 1 + i * 3 % 11).Select(t => (i * 13 + t * 29 + 1) % vocabulary).ToArray())];

    private static Transformer Initialised(ModelConfig config)
    {
        var model = new Transformer(config with { InitializerRange = 0.2 });
        model.InitialiseWeights(17);
        return model;
    }
}
