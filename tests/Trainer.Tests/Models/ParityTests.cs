using System.Text.Json;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using Xunit;
using static TorchSharp.torch;
using Parameter = TorchSharp.Modules.Parameter;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>Every number here was computed by Hugging Face's transformers on the same weights.</summary>
public sealed class ParityTests
{
    private const float Tolerance = 5e-5f;

    public static TheoryData<string> LanguageModels => [.. ModelFixture.LanguageModels];

    public static TheoryData<string> RewardModels => [.. ModelFixture.RewardModels];

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Logits_agree_on_plain_and_padded_batches(string name)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        Assert.Equal(fixture.Numbers.GetProperty("n_params").GetInt64(), model.ParameterCount);
        foreach (string padding in (string[])["single", "right_padded", "left_padded"])
        {
            ModelFixture.Case sample = fixture.CaseOf(padding);
            AssertLogits(sample, model.Logits(model.Hidden(sample.InputIds, sample.AttentionMask)));
            // Right-padded rows of a causal model need no mask.
            if (padding != "left_padded") AssertLogits(sample, model.Logits(model.Hidden(sample.InputIds)));
        }
    }

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Decoding_with_a_cache_gives_the_logits_of_the_whole_sequence(string name)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        foreach (string padding in (string[])["single", "left_padded"])
        {
            ModelFixture.Case sample = fixture.CaseOf(padding);
            long rows = sample.InputIds.shape[0], length = sample.InputIds.shape[1];
            using var cache = new KvCache(model.Config, (int)rows, (int)length, CPU);
            var parts = new List<Tensor>();
            long at = 0;
            foreach (long count in (long[])[4, 1, 2, 1, length - 8]) // a prompt, single tokens, a chunk
            {
                at += count;
                Tensor? mask = padding == "single" ? null : sample.AttentionMask.narrow(1, 0, at);
                parts.Add(model.Logits(model.Hidden(sample.InputIds.narrow(1, at - count, count), mask, cache)));
            }

            AssertLogits(sample, cat([.. parts], 1));
        }
    }

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Loss_and_gradients_agree(string name)
    {
        using var scope = NewDisposeScope();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        ModelFixture.Case sample = fixture.CaseOf("right_padded");
        Tensor loss = NextTokenLoss(model, sample);
        Assert.Equal(sample.Json.GetProperty("loss_fp64_mean_next_token_ce").GetDouble(), loss.item<float>(), 1e-5);
        loss.backward();
        AssertGradients(model, sample.Json.GetProperty("grads_fp64_of_loss"));
        Assert.Equal(sample.Json.GetProperty("grad_global_l2").GetDouble(), GlobalNorm(model), 1e-4);
    }

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Six_clipped_AdamW_steps_follow_the_reference(string name)
    {
        using var scope = NewDisposeScope();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        JsonElement trajectory = fixture.Numbers.GetProperty("train_trajectory");
        double[] betas = [.. trajectory.GetProperty("betas").EnumerateArray().Select(b => b.GetDouble())];
        using var optimizer = optim.AdamW(
            model.NamedWeights().Select(w => w.Value), trajectory.GetProperty("lr").GetDouble(), betas[0], betas[1],
            trajectory.GetProperty("eps").GetDouble(), trajectory.GetProperty("weight_decay").GetDouble());
        ModelFixture.Case sample = fixture.CaseOf("right_padded");
        JsonElement norms = trajectory.GetProperty("grad_norm_before_clip");
        JsonElement losses = trajectory.GetProperty("loss");
        foreach ((JsonElement expectedLoss, JsonElement expectedNorm) in losses.EnumerateArray().Zip(norms.EnumerateArray()))
        {
            optimizer.zero_grad();
            Tensor loss = NextTokenLoss(model, sample);
            Assert.Equal(expectedLoss.GetDouble(), loss.item<float>(), 2e-4);
            loss.backward();
            double norm =
                nn.utils.clip_grad_norm_(model.NamedWeights().Select(w => w.Value), trajectory.GetProperty("max_grad_norm").GetDouble());
            Assert.Equal(expectedNorm.GetDouble(), norm, 1e-3);
            optimizer.step();
        }
    }

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Greedy_generation_agrees(string name)
    {
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        foreach (string batch in (string[])["single", "left_padded"])
        {
            JsonElement expected = fixture.Numbers.GetProperty("generation").GetProperty(batch);
            int[][] mask = batch == "single" ? [] : Matrix(expected.GetProperty("attention_mask"));
            int[][] prompts = Matrix(expected.GetProperty("prompt"));
            if (mask.Length > 0) prompts = [.. prompts.Select((ids, row) => ids.Where((_, t) => mask[row][t] == 1).ToArray())];
            var options = new SamplingOptions { MaxNewTokens = 16, Temperature = 0, EosId = -1 };
            Assert.Equal(Matrix(expected.GetProperty("new_tokens")), Sampler.Generate(model, prompts, options));
            SamplingRow[] rows = [.. prompts.Select((prompt, i) => new SamplingRow(prompt, i, options.MaxNewTokens))];
            Sampler.DecodeWithLibtorch(model, rows, options);
            Assert.Equal(Matrix(expected.GetProperty("new_tokens")), rows.Select(row => row.New.ToArray()));
        }
    }

    [Theory]
    [MemberData(nameof(RewardModels))]
    public void Rewards_and_the_gradients_of_the_preference_loss_agree(string name)
    {
        using var scope = NewDisposeScope();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        Assert.Equal(HeadKind.Score, model.Config.Head);
        foreach (string padding in (string[])["right_padded", "left_padded"])
        {
            ModelFixture.Case sample = fixture.CaseOf(padding);
            float[] rewards = [.. Rewards(model, sample).cpu().data<float>()];
            double[] expected = [.. sample.Json.GetProperty("reward_fp64").EnumerateArray().Select(r => r.GetDouble())];
            for (int row = 0; row < expected.Length; row++) Assert.Equal(expected[row], rewards[row], Tolerance);
        }

        Tensor reward = Rewards(model, fixture.CaseOf("right_padded"));
        Tensor loss = -nn.functional.logsigmoid(reward[0] - reward[1]);
        Assert.Equal(fixture.Numbers.GetProperty("bt_loss_row0_over_row1").GetDouble(), loss.item<float>(), 1e-5);
        loss.backward();
        AssertGradients(model, fixture.Numbers.GetProperty("bt_grads_fp64"));
    }

    private static Tensor Rewards(Transformer model, ModelFixture.Case sample)
    {
        Tensor scores = model.Scores(model.Hidden(sample.InputIds, sample.AttentionMask));
        Tensor last = (arange(sample.InputIds.shape[1]) * sample.AttentionMask).argmax(1, keepdim: true);
        return scores.gather(1, last).squeeze(1);
    }

    private static Tensor NextTokenLoss(Transformer model, ModelFixture.Case sample)
    {
        long length = sample.InputIds.shape[1];
        Tensor logits = model.Logits(model.Hidden(sample.InputIds, sample.AttentionMask)).narrow(1, 0, length - 1);
        Tensor labels = sample.InputIds.masked_fill(sample.AttentionMask.eq(0), -100).narrow(1, 1, length - 1);
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index: -100);
    }

    private static void AssertLogits(ModelFixture.Case sample, Tensor logits)
    {
        foreach ((int row, int time, float[] expected) in sample.Logits())
        {
            float[] actual = [.. logits[row, time].contiguous().data<float>()];
            for (int v = 0; v < expected.Length; v++)
                Assert.True(
                    Math.Abs(
                        expected[v] - actual[v]) <= Tolerance, $"row {row}, time {time}, token {v}: {actual[v]} instead of {expected[v]}");
        }
    }

    private static void AssertGradients(Transformer model, JsonElement expected)
    {
        IReadOnlyList<(string Name, Parameter Value)> weights = model.NamedWeights();
        Assert.Equal(expected.EnumerateObject().Select(p => p.Name).Order(), weights.Select(w => w.Name).Order());
        foreach ((string name, Parameter weight) in weights)
        {
            JsonElement numbers = expected.GetProperty(name);
            float[] gradient = [.. weight.grad!.contiguous().data<float>()];
            double norm = Math.Sqrt(gradient.Sum(g => (double)g * g));
            double scale = numbers.GetProperty("l2").GetDouble();
            Assert.True(Math.Abs(norm - scale) <= 1e-5 + 1e-4 * scale, $"norm of d loss / d {name}: {norm} instead of {scale}");
            int i = 0;
            foreach (JsonElement value in numbers.GetProperty("first8").EnumerateArray())
            {
                double difference = Math.Abs(value.GetDouble() - gradient[i]);
                Assert.True(difference <= 1e-5 + 1e-4 * scale, $"d loss / d {name}[{i}]: {gradient[i]} instead of {value}");
                i++;
            }
        }
    }

    private static double GlobalNorm(Transformer model) =>
        Math.Sqrt(model.NamedWeights().Sum(w => (double)w.Value.grad!.square().sum().item<float>()));

    private static int[][] Matrix(JsonElement json) =>
        [.. json.EnumerateArray().Select(r => r.EnumerateArray().Select(v => v.GetInt32()).ToArray())];
}
