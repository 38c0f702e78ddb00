using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Generation;

public sealed class SamplerTests : IDisposable
{
    private static readonly SamplingOptions Options = new() { MaxNewTokens = 12, Temperature = 1, Seed = 5, EosId = 3 };

    // GPT-2's shape, which libtorch decodes; CpuDecoderTests has the other decoder.
    private readonly Transformer model = Model();
    private readonly int[][] prompts =
        [.. Enumerable.Range(0, 13).Select(i => Enumerable.Range(0, 1 + i % 5).Select(t => (i * 7 + t * 11) % 60).ToArray())];

    [Fact]
    public void The_batch_size_does_not_change_the_tokens()
    {
        int[][] together = Sampler.Generate(model, prompts, Options);
        foreach (int size in (int[])[1, 2, 5]) Assert.Equal(together, Sampler.Generate(model, prompts, Options with { BatchSize = size }));
        Assert.Contains(together, row => row[^1] == Options.EosId && row.Length < Options.MaxNewTokens); // rows do end early here
    }

    [Fact]
    public void A_row_is_decided_by_its_id_not_by_its_place()
    {
        int[][] together = Sampler.Generate(model, prompts, Options);
        for (int i = 0; i < prompts.Length; i++)
            Assert.Equal(together[i], Sampler.Generate(model, [prompts[i]], Options with { RowIds = [i] })[0]);
    }

    [Fact]
    public void The_seed_decides_the_tokens()
    {
        Assert.Equal(Sampler.Generate(model, prompts, Options), Sampler.Generate(model, prompts, Options));
        Assert.NotEqual(Sampler.Generate(model, prompts, Options), Sampler.Generate(model, prompts, Options with { Seed = 6 }));
    }

    [Fact]
    public void The_end_token_ends_a_row_and_belongs_to_it()
    {
        foreach (int[] row in Sampler.Generate(model, prompts, Options))
        {
            int end = Array.IndexOf(row, Options.EosId);
            Assert.True(end < 0 ? row.Length == Options.MaxNewTokens : end == row.Length - 1);
        }
    }

    [Fact]
    public void A_row_ends_where_the_positions_do()
    {
        int[] prompt = [.. Enumerable.Range(0, 60)];
        int[][] rows = Sampler.Generate(model, [prompt, [1, 2], [3], [4, 5], [6], [7]], Options with { EosId = -1 });
        Assert.Equal([4, 12, 12, 12, 12, 12], rows.Select(r => r.Length));
    }

    [Fact]
    public void Draws_follow_the_softmax_at_the_temperature()
    {
        using var scope = NewDisposeScope();
        float[] logits = [0.5f, -1f, 2f, 0f, 1f];
        const double temperature = 0.7;
        double[] weights = [.. logits.Select(l => Math.Exp(l / temperature))];
        const int draws = 20000;
        double[] uniforms = [.. Enumerable.Range(0, draws).Select(i => CounterRandom.Uniform(1, i, 0))];
        long[] chosen = [.. Sampler.Choose(tensor(logits).expand(draws, 5), temperature, tensor(uniforms, [draws, 1])).data<long>()];
        double chiSquare = Enumerable.Range(0, 5).Sum(v =>
        {
            double expected = draws * weights[v] / weights.Sum();
            return Math.Pow(chosen.Count(c => c == v) - expected, 2) / expected;
        });
        Assert.True(chiSquare < 18.5, $"chi-square {chiSquare} with 4 degrees of freedom (0.1%)");
    }

    [Fact]
    public void Uniform_numbers_are_uniform_and_differ_between_rows_and_positions()
    {
        double[] numbers =
            [.. Enumerable.Range(0, 200 * 50).Select(i => CounterRandom.Uniform(seed: 9, row: i / 50, position: i % 50))];
        Assert.Equal(numbers.Length, numbers.Distinct().Count());
        Assert.Equal(0.5, numbers.Average(), 0.01);
        int[] buckets = [.. Enumerable.Range(0, 10).Select(b => numbers.Count(n => (int)(n * 10) == b))];
        Assert.True(buckets.Sum(b => Math.Pow(b - 1000, 2) / 1000) < 27.9); // chi-square, 9 degrees of freedom, 0.1%
    }

    [Fact]
    public void Prompts_that_cannot_be_continued_are_refused()
    {
        Assert.Contains("Prompt 1 is empty", Refusal([[1], []]), StringComparison.Ordinal);
        Assert.Contains("Prompt 0 holds token 64", Refusal([[1, 64]]), StringComparison.Ordinal);
        Assert.Contains("Prompt 0 has 65 tokens", Refusal([new int[65]]), StringComparison.Ordinal);
        string Refusal(int[][] bad) => Assert.Throws<ArgumentException>(() => Sampler.Generate(model, bad, Options)).Message;
    }

    public void Dispose() => model.Dispose();

    private static Transformer Model()
    {
        var model = new Transformer(ModelConfig.Llama(64, 32, 2, 4, 4, 48, 64) with
        {
            ModelType = "gpt2",
            Norm = NormKind.Layer,
            Activation = ActivationKind.GeluTanh,
            GatedFeedForward = false,
            RotaryDimension = 0,
            QueryKeyValueBias = true,
            AttentionOutputBias = true,
            FeedForwardBias = true,
            InitializerRange = 0.3,
        });
        model.InitialiseWeights(11);
        return model;
    }
}
