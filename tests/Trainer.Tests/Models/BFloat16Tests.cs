using Rlhf.Spec;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tests.Methods;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>bfloat16 on the CPU: the same code as on CUDA, other kernels.</summary>
public class BFloat16Tests
{
    public static TheoryData<string> Names => [.. Families.Names];

    [Theory]
    [MemberData(nameof(Names))]
    public void Logits_are_those_of_float32_up_to_the_products_rounding(string family)
    {
        using TorchSharp.DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        using Transformer model = Families.Load(family);
        Tensor ids = Ids(), exact = model.Logits(model.Hidden(ids));
        model.Precision = Precision.Bf16;
        Tensor rounded = model.Logits(model.Hidden(ids));
        Assert.Equal(ScalarType.Float32, rounded.dtype);
        double furthest = (exact - rounded).abs().max().ToDouble();
        Assert.InRange(furthest, 1e-4, 0.2); // logits are up to 5; 0 would mean that nothing was rounded

        // Behind padding, and token by token with a cache: other kernels, the same function.
        Tensor padded = cat([zeros([2, 3], ScalarType.Int64), ids], 1);
        Tensor mask = cat([zeros([2, 3], ScalarType.Int64), ones([2, 6], ScalarType.Int64)], 1);
        Assert.InRange((rounded - model.Logits(model.Hidden(padded, mask)).narrow(1, 3, 6)).abs().max().ToDouble(), 0, 0.1);
        using var cache = new KvCache(model.Config, 2, 6, CPU, ScalarType.BFloat16);
        using IDisposable held = model.HoldWeights();
        Tensor[] steps = [.. Enumerable.Range(0, 6).Select(t => model.Logits(model.Hidden(ids.narrow(1, t, 1), cache: cache)))];
        Assert.InRange((rounded - cat(steps, 1)).abs().max().ToDouble(), 0, 0.1);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Gradients_are_float32_and_point_where_those_of_float32_do(string family)
    {
        using Transformer model = Families.Load(family);
        float[] exact = Gradient(model);
        model.Precision = Precision.Bf16;
        float[] rounded = Gradient(model);
        model.GradientCheckpointing = true;
        Assert.Equal(rounded, Gradient(model));
        double cosine = Dot(exact, rounded) / Math.Sqrt(Dot(exact, exact) * Dot(rounded, rounded));
        Assert.InRange(cosine, 0.99, 0.9999999); // least where a relu sits close to its kink

        static double Dot(float[] x, float[] y) => x.Zip(y, (a, b) => (double)a * b).Sum();
    }

    /// <summary>A bfloat16 weight of 1 does not see an update of a millionth; its float32 master does.</summary>
    [Fact]
    public void Small_updates_are_not_lost()
    {
        using Transformer model = Toy.Model();
        model.Precision = Precision.Bf16;
        Dictionary<string, float[]> before = model.NamedWeights().ToDictionary(w => w.Name, w => w.Value.ToSingles());
        SftSpec spec = new() { LearningRate = 1e-6, WarmupFraction = 0, Schedule = ScheduleKind.Constant, Epochs = 1, BatchSize = 32 };
        using var sft = new Sft(model, spec, Toy.Demonstrations, [], Toy.Tokenizer, 8, seed: 1);
        sft.Advance();
        foreach ((string name, TorchSharp.Modules.Parameter weight) in model.NamedWeights().Where(w => w.Value.dim() == 1))
        {
            Assert.Equal(ScalarType.Float32, weight.dtype);
            double moved = weight.ToSingles().Zip(before[name], (now, then) => Math.Abs((double)now - then)).Average();
            Assert.InRange(moved, 0.5e-6, 1.5e-6);
        }
    }

    [Fact]
    public void Sft_learns_as_in_float32_and_resumes_byte_for_byte()
    {
        double[] losses = [.. new[] { Precision.Fp32, Precision.Bf16 }.Select(precision =>
        {
            using Transformer model = Toy.Model();
            using Sft sft = Fresh(model, precision, epochs: 30);
            while (sft.Step < sft.TotalSteps)
                sft.Advance();
            return sft.Summary()["val/loss"];
        })];
        Assert.InRange(losses[1], 0.5 * losses[0], 2 * losses[0] + 0.02);
        Assert.True(losses[1] < 0.5, $"loss {losses[1]}");

        List<Transformer> models = [];
        MemoryCheckpoint.AssertResumes(() =>
        {
            models.Add(Toy.Model());
            return Fresh(models[^1], Precision.Bf16, epochs: 2);
        });
        models.ForEach(model => model.Dispose());

        static Sft Fresh(Transformer model, Precision precision, int epochs)
        {
            model.Precision = precision;
            SftSpec spec = new() { LearningRate = 5e-3, Epochs = epochs, BatchSize = 8 };
            return new Sft(model, spec, Toy.Demonstrations, Toy.Demonstrations, Toy.Tokenizer, 8, seed: 1);
        }
    }

    [Fact]
    public void Ppo_starts_at_ratio_1_and_kl_0()
    {
        using Transformer sft = Toy.Model(), reward = Transformer.WithScoreHead(sft, 3);
        sft.Precision = reward.Precision = Precision.Bf16;
        PpoSpec spec = new() { Episodes = 16, MinibatchSize = 8, MaxNewTokens = 6 };
        using var ppo = new Ppo(sft, reward, spec, Toy.TokenizedPrompts, [], Toy.Tokenizer, 1, microBatchSize: 3);
        Assert.Equal(Precision.Bf16, ppo.Policy.Precision);
        IReadOnlyDictionary<string, double> metrics = ppo.Advance();
        Assert.Equal(1, metrics["policy/ratio_first_minibatch"]);
        Assert.Equal(0, metrics["preflight/ratio_error"]);
        Assert.Equal(0, metrics["preflight/kl_error"]);
        Assert.Equal(0, metrics["objective/kl"]);
        Assert.InRange(metrics["preflight/policy_pad_error"], 0, 0.1);
        Assert.InRange(metrics["preflight/decode_error"], 0, 0.1);
        metrics = ppo.Advance();
        Assert.Equal(1, metrics["policy/ratio_first_minibatch"]);
    }

    /// <summary>Micro-batches add up in float32: in bfloat16 the small rows' shares would be swallowed.</summary>
    [Fact]
    public void Micro_batches_add_up_to_the_gradient_of_the_batch()
    {
        (int[] Prompt, int[] Completion)[] rows =
            [.. Toy.Demonstrations.Select((row, i) => (row.Prompt, (int[])[.. Enumerable.Range(0, 1 + i).Select(t => (7 * i + 3 * t) % 300)]))];
        long tokens = TokenBatch.CountTokens(rows);
        float[] whole = Gradient(rows.Length), single = Gradient(1);
        double difference = Math.Sqrt(whole.Zip(single, (x, y) => ((double)x - y) * ((double)x - y)).Sum());
        Assert.InRange(difference / Math.Sqrt(whole.Sum(x => (double)x * x)), 0, 0.01);

        float[] Gradient(int size)
        {
            using Transformer model = Toy.Model();
            model.Precision = Precision.Bf16;
            new MicroBatches(size).Run(rows.Length, some =>
            {
                using TorchSharp.DisposeScope scope = NewDisposeScope();
                LanguageModelling.Loss(model, TokenBatch.Of(rows[some], Toy.Tokenizer.PadId, CPU), tokens).Loss.backward();
            });
            return [.. model.NamedWeights().SelectMany(w => w.Value.grad!.ToSingles())];
        }
    }

    [Fact]
    public void The_float32_decoder_leaves_bfloat16_to_libtorch()
    {
        using Transformer model = Toy.Model();
        Assert.True(CpuDecoder.Suits(model));
        model.Precision = Precision.Bf16;
        Assert.False(CpuDecoder.Suits(model));
    }

    private static Tensor Ids() => tensor([3L, 17, 49, 0, 8, 8, 31, 22, 5, 40, 11, 7], [2, 6]);

    private static float[] Gradient(Transformer model)
    {
        using TorchSharp.DisposeScope scope = NewDisposeScope();
        using GradientPass pass = model.BeginGradients();
        Tensor ids = Ids();
        pass.Backward(-Losses.LogProbs(model.Logits(model.Hidden(ids)), ids).mean());
        List<float> gradient = [];
        foreach ((_, TorchSharp.Modules.Parameter weight) in model.NamedWeights())
        {
            Assert.Equal(ScalarType.Float32, weight.grad!.dtype);
            gradient.AddRange(weight.grad.ToSingles());
            weight.grad = null;
        }

        return [.. gradient];
    }
}
