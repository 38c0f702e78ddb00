using System.Text.Json;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.Optimizers;
using Rlhf.Trainer.Models;
using static TorchSharp.torch;
using Parameter = TorchSharp.Modules.Parameter;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>How far one quantity of a fixture is from what Hugging Face computed: the largest absolute difference.</summary>
internal sealed record Deviation(string Quantity, double Largest, double Tolerance);

/// <summary>
/// Measures a model of fixtures/models against its numbers, which Hugging Face's transformers computed on the same weights.
/// <see cref="ParityTests"/> asserts on it, <see cref="ParityTableTests"/> makes docs/parity.md of it.
/// </summary>
internal static class ModelParity
{
    /// <summary>The fixtures' README allows this for logits in 32 bits; Hugging Face's own noise is up to 7e-6.</summary>
    private const double LogitTolerance = 5e-5;

    public static IEnumerable<Deviation> Measure(string name) => ModelFixture.RewardModels.Contains(name)
        ? [.. Rewards(name), .. PreferenceLoss(name)]
        : [.. Logits(name), .. CachedLogits(name), .. LossAndGradients(name), .. Training(name), .. Greedy(name)];

    /// <summary>Where the mask is 1: at padding Hugging Face's numbers mean nothing.</summary>
    public static IEnumerable<Deviation> Logits(string name)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        double logProbs = 0;
        foreach ((string padding, string words) in Paddings)
        {
            ModelFixture.Case sample = fixture.CaseOf(padding);
            Tensor logits = model.Logits(model.Hidden(sample.InputIds, sample.AttentionMask));
            double largest = Furthest(sample, logits);
            // Right-padded rows of a causal model need no mask.
            if (padding != "left_padded")
                largest = Math.Max(largest, Furthest(sample, model.Logits(model.Hidden(sample.InputIds))));
            logProbs = Math.Max(logProbs, FurthestLogProb(sample, logits));
            yield return new Deviation($"logits, {words}", largest, LogitTolerance);
        }

        yield return new Deviation("token log-probabilities", logProbs, LogitTolerance);
    }

    /// <summary>The same logits from a prompt, single tokens and a chunk, with the key/value cache between them.</summary>
    public static IEnumerable<Deviation> CachedLogits(string name)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        double largest = 0;
        foreach (string padding in (string[])["single", "left_padded"])
        {
            ModelFixture.Case sample = fixture.CaseOf(padding);
            long rows = sample.InputIds.shape[0], length = sample.InputIds.shape[1];
            using var cache = new KvCache(model.Config, (int)rows, (int)length, CPU);
            var parts = new List<Tensor>();
            long at = 0;
            foreach (long count in (long[])[4, 1, 2, 1, length - 8])
            {
                at += count;
                Tensor? mask = padding == "single" ? null : sample.AttentionMask.narrow(1, 0, at);
                parts.Add(model.Logits(model.Hidden(sample.InputIds.narrow(1, at - count, count), mask, cache)));
            }

            largest = Math.Max(largest, Furthest(sample, cat([.. parts], 1)));
        }

        yield return new Deviation("logits, cached", largest, LogitTolerance);
    }

    public static IEnumerable<Deviation> LossAndGradients(string name)
    {
        using var scope = NewDisposeScope();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        ModelFixture.Case sample = fixture.CaseOf("right_padded");
        Tensor loss = NextTokenLoss(model, sample);
        yield return new Deviation(
            "loss", Math.Abs(sample.Json.GetProperty("loss_fp64_mean_next_token_ce").GetDouble() - loss.item<float>()), 1e-5);
        loss.backward();
        yield return Gradients(model, sample.Json.GetProperty("grads_fp64_of_loss"));
        double norm = Math.Sqrt(model.NamedWeights().Sum(w => (double)w.Value.grad!.square().sum().item<float>()));
        yield return new Deviation(
            "global gradient norm", Math.Abs(sample.Json.GetProperty("grad_global_l2").GetDouble() - norm), 1e-4);
    }

    /// <summary>Six steps of our own <see cref="AdamW"/> with clipping: loss and gradient norm before each.</summary>
    public static IEnumerable<Deviation> Training(string name)
    {
        using var scope = NewDisposeScope();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        JsonElement trajectory = fixture.Numbers.GetProperty("train_trajectory");
        double[] betas = [.. trajectory.GetProperty("betas").EnumerateArray().Select(b => b.GetDouble())];
        double learningRate = trajectory.GetProperty("lr").GetDouble(), decay = trajectory.GetProperty("weight_decay").GetDouble();
        using var optimizer = new AdamW(
            model.NamedWeights().Select(w => (w.Name, (Tensor)w.Value)),
            new AdamWOptions(betas[0], betas[1], trajectory.GetProperty("eps").GetDouble(), decay));
        ModelFixture.Case sample = fixture.CaseOf("right_padded");
        double furthestLoss = 0, furthestNorm = 0;
        foreach ((JsonElement expectedLoss, JsonElement expectedNorm) in
            trajectory.GetProperty("loss").EnumerateArray().Zip(trajectory.GetProperty("grad_norm_before_clip").EnumerateArray()))
        {
            Tensor loss = NextTokenLoss(model, sample);
            furthestLoss = Math.Max(furthestLoss, Math.Abs(expectedLoss.GetDouble() - loss.item<float>()));
            loss.backward();
            // The reference decays vectors too, which ours never does.
            using (no_grad())
            {
                foreach ((_, Parameter weight) in model.NamedWeights())
                {
                    if (weight.dim() < 2) weight.mul_(1 - learningRate * decay);
                }
            }

            double norm = optimizer.Step(learningRate, trajectory.GetProperty("max_grad_norm").GetDouble());
            furthestNorm = Math.Max(furthestNorm, Math.Abs(expectedNorm.GetDouble() - norm));
        }

        yield return new Deviation("losses of six AdamW steps", furthestLoss, 2e-4);
        yield return new Deviation("gradient norms of six AdamW steps", furthestNorm, 1e-3);
    }

    /// <summary>The number of tokens that differ, by the sampler as it chooses its decoder and by libtorch.</summary>
    public static IEnumerable<Deviation> Greedy(string name)
    {
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        int differing = 0;
        foreach (string batch in (string[])["single", "left_padded"])
        {
            JsonElement numbers = fixture.Numbers.GetProperty("generation").GetProperty(batch);
            int[][] mask = batch == "single" ? [] : Matrix(numbers.GetProperty("attention_mask"));
            int[][] prompts = Matrix(numbers.GetProperty("prompt"));
            if (mask.Length > 0) prompts = [.. prompts.Select((ids, row) => ids.Where((_, t) => mask[row][t] == 1).ToArray())];
            int[][] expected = Matrix(numbers.GetProperty("new_tokens"));
            var options = new SamplingOptions { MaxNewTokens = expected[0].Length, Temperature = 0, EosId = -1 };
            SamplingRow[] rows = [.. prompts.Select((prompt, i) => new SamplingRow(prompt, i, options.MaxNewTokens))];
            Sampler.DecodeWithLibtorch(model, rows, options);
            differing += Differing(expected, Sampler.Generate(model, prompts, options));
            differing += Differing(expected, [.. rows.Select(row => row.New.ToArray())]);
        }

        yield return new Deviation("greedy tokens that differ", differing, 0);
    }

    public static IEnumerable<Deviation> Rewards(string name)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        foreach ((string padding, string words) in Paddings.Skip(1))
        {
            ModelFixture.Case sample = fixture.CaseOf(padding);
            float[] rewards = [.. LastScores(model, sample).cpu().data<float>()];
            double[] expected = [.. sample.Json.GetProperty("reward_fp64").EnumerateArray().Select(r => r.GetDouble())];
            yield return new Deviation($"rewards, {words}", expected.Zip(rewards, (e, r) => Math.Abs(e - r)).Max(), LogitTolerance);
        }
    }

    public static IEnumerable<Deviation> PreferenceLoss(string name)
    {
        using var scope = NewDisposeScope();
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        Tensor rewards = LastScores(model, fixture.CaseOf("right_padded"));
        Tensor loss = Losses.PairwiseReward(rewards[0..1], rewards[1..2]);
        double expected = fixture.Numbers.GetProperty("bt_loss_row0_over_row1").GetDouble();
        yield return new Deviation("preference loss", Math.Abs(expected - loss.item<float>()), 1e-5);
        loss.backward();
        yield return Gradients(model, fixture.Numbers.GetProperty("bt_grads_fp64"));
    }

    private static readonly (string Name, string Words)[] Paddings =
        [("single", "one row"), ("right_padded", "right-padded"), ("left_padded", "left-padded")];

    /// <summary>Norm and first eight numbers of each weight's gradient: the difference relative to the norm plus 0.1.</summary>
    private static Deviation Gradients(Transformer model, JsonElement expected)
    {
        if (expected.EnumerateObject().Count() != model.NamedWeights().Count)
            throw new InvalidOperationException("The fixture has gradients of other weights than the model.");
        double largest = 0;
        foreach ((string name, Parameter weight) in model.NamedWeights())
        {
            JsonElement numbers = expected.GetProperty(name);
            float[] gradient = [.. weight.grad!.contiguous().data<float>()];
            double scale = numbers.GetProperty("l2").GetDouble();
            double furthest = Math.Abs(Math.Sqrt(gradient.Sum(g => (double)g * g)) - scale);
            foreach ((JsonElement value, float g) in numbers.GetProperty("first8").EnumerateArray().Zip(gradient))
                furthest = Math.Max(furthest, Math.Abs(value.GetDouble() - g));
            largest = Math.Max(largest, furthest / (0.1 + scale));
        }

        return new Deviation("gradients, relative", largest, 1e-4);
    }

    private static Tensor LastScores(Transformer model, ModelFixture.Case sample)
    {
        Tensor scores = model.Scores(model.Hidden(sample.InputIds, sample.AttentionMask));
        Tensor last = (arange(sample.InputIds.shape[1]) * sample.AttentionMask).argmax(1, keepdim: true);
        return scores.gather(1, last).squeeze(1);
    }

    private static Tensor NextTokenLoss(Transformer model, ModelFixture.Case sample)
    {
        long length = sample.InputIds.shape[1];
        Tensor logits = model.Logits(model.Hidden(sample.InputIds, sample.AttentionMask)).narrow(1, 0, length - 1);
        Tensor mask = sample.AttentionMask.narrow(1, 1, length - 1).to(ScalarType.Float32);
        return Losses.CrossEntropy(logits, sample.InputIds.narrow(1, 1, length - 1), mask, mask.sum().item<float>());
    }

    private static double Furthest(ModelFixture.Case sample, Tensor logits)
    {
        double largest = 0;
        foreach ((int row, int time, float[] expected) in sample.Logits())
        {
            float[] actual = [.. logits[row, time].contiguous().data<float>()];
            largest = Math.Max(largest, expected.Zip(actual, (e, a) => Math.Abs((double)e - a)).Max());
        }

        return largest;
    }

    /// <summary>Of the next token, where it and its predecessor are no padding.</summary>
    private static double FurthestLogProb(ModelFixture.Case sample, Tensor logits)
    {
        long length = sample.InputIds.shape[1];
        Tensor actual = Losses.LogProbs(logits.narrow(1, 0, length - 1), sample.InputIds.narrow(1, 1, length - 1));
        double largest = 0;
        foreach ((int row, JsonElement sequence) in sample.Json.GetProperty("token_logprobs_fp64").EnumerateArray().Index())
        {
            foreach ((int time, JsonElement expected) in sequence.EnumerateArray().Index())
            {
                if (sample.AttentionMask[row, time].item<long>() * sample.AttentionMask[row, time + 1].item<long>() == 1)
                    largest = Math.Max(largest, Math.Abs(expected.GetDouble() - actual[row, time].item<float>()));
            }
        }

        return largest;
    }

    private static int Differing(int[][] expected, int[][] actual) =>
        expected.Zip(actual, (e, a) => e.Zip(a).Count(pair => pair.First != pair.Second) + Math.Abs(e.Length - a.Length)).Sum();

    private static int[][] Matrix(JsonElement json) =>
        [.. json.EnumerateArray().Select(r => r.EnumerateArray().Select(v => v.GetInt32()).ToArray())];
}
