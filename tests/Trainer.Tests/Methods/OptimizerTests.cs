using System.Text.Json;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.Optimizers;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

public class OptimizerTests
{
    [Theory]
    [InlineData("AdamW", ScalarType.Float64, 1e-12)]
    [InlineData("AdamW", ScalarType.Float32, 1e-6)]
    [InlineData("Adam", ScalarType.Float64, 1e-12)]
    public void Step_equals_PyTorch(string function, ScalarType type, double tolerance) =>
        Parity.Each("optimizers.json", function, c =>
        {
            Tensor weight = c.Leaf("w0", type);
            double[] betas = c.Numbers("args.betas");
            using AdamW optimizer = new(
                [("w", weight)], new AdamWOptions(betas[0], betas[1], c.Number("args.eps"), c.Number("args.weight_decay")));
            foreach ((JsonElement gradient, JsonElement expected) in
                c["grads"].EnumerateArray().Zip(c["out_weights_after_each_step"].EnumerateArray()))
            {
                weight.grad = ParityCase.Tensor(gradient, type);
                optimizer.Step(c.Number("args.lr"));
                Parity.Close(ParityCase.Tensor(expected, ScalarType.Float64), weight, tolerance);
            }
        });

    [Fact]
    public void Clipping_equals_PyTorch_and_returns_the_norm() =>
        Parity.Each("optimizers.json", "clip_grad_norm_", c =>
        {
            // One step without momentum and with a huge epsilon moves each weight by lr * clipped gradient / epsilon.
            const double epsilon = 1e9;
            Tensor[] gradients = [.. c["grads"].EnumerateArray().Select(g => ParityCase.Tensor(g, ScalarType.Float64))];
            Tensor[] weights = [.. gradients.Select(gradient => zeros_like(gradient).requires_grad_())];
            foreach ((Tensor weight, Tensor gradient) in weights.Zip(gradients))
                weight.grad = gradient;
            using AdamW optimizer = new(
                weights.Select((weight, i) => ($"w{i}", weight)), new AdamWOptions(Beta1: 0, Beta2: 0, Epsilon: epsilon));
            Parity.Close(c.Number("out.total_norm"), optimizer.Step(-epsilon, c.Number("max_norm")), 1e-12);
            foreach ((Tensor weight, JsonElement expected) in weights.Zip(c["out.clipped"].EnumerateArray()))
                Parity.Close(ParityCase.Tensor(expected, ScalarType.Float64), weight, 1e-7);
        });

    [Fact]
    public void Epsilon_is_added_outside_the_root_of_the_corrected_moment()
    {
        // Section 6.7 of the reference: TensorFlow's placement would give a step of 9.46e-9 here.
        using DisposeScope scope = NewDisposeScope();
        Tensor weight = zeros(1, 1, dtype: ScalarType.Float64).requires_grad_();
        weight.grad = full([1, 1], 1e-6, dtype: ScalarType.Float64);
        using AdamW optimizer = new([("w", weight)], new AdamWOptions(Epsilon: 1e-5));
        optimizer.Step(3e-6);
        Assert.Equal(-2.73e-7, weight.item<double>(), 1e-9);
    }

    [Fact]
    public void Vectors_do_not_decay_and_matrices_do()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor matrix = ones(2, 2).requires_grad_(), vector = ones(2).requires_grad_();
        using AdamW optimizer = new([("m", matrix), ("v", vector)], new AdamWOptions(WeightDecay: 0.1));
        matrix.grad = zeros_like(matrix);
        vector.grad = zeros_like(vector);
        optimizer.Step(0.5);
        Parity.Close(full([2, 2], 0.95, dtype: ScalarType.Float64), matrix, 1e-6);
        Parity.Close(ones(2, dtype: ScalarType.Float64), vector, 0);
    }

    [Fact]
    public void Restored_state_goes_on_bit_for_bit()
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor Weight, AdamW Optimizer) straight = Fresh();
        Train(straight, 0, 6);

        (Tensor Weight, AdamW Optimizer) first = Fresh();
        Train(first, 0, 3);
        (Tensor Weight, AdamW Optimizer) second = Fresh();
        using (no_grad())
            second.Weight.copy_(first.Weight);
        second.Optimizer.Restore(first.Optimizer.State().ToDictionary(t => t.Name, t => t.Value), first.Optimizer.Steps);
        Train(second, 3, 6);

        Assert.Equal(straight.Weight.bytes.ToArray(), second.Weight.bytes.ToArray());
        foreach (((string name, Tensor expected), (_, Tensor actual)) in straight.Optimizer.State().Zip(second.Optimizer.State()))
            Assert.True(expected.bytes.SequenceEqual(actual.bytes), name);
        Assert.Equal(6, second.Optimizer.Steps);

        static (Tensor, AdamW) Fresh()
        {
            Tensor weight = arange(12, dtype: ScalarType.Float32).reshape(3, 4).requires_grad_();
            return (weight, new AdamW([("w", weight)], new AdamWOptions(WeightDecay: 0.01)));
        }

        static void Train((Tensor Weight, AdamW Optimizer) run, int from, int to)
        {
            for (int step = from; step < to; step++)
            {
                (run.Weight * (step + 1)).sin().sum().backward();
                run.Optimizer.Step(0.01, 1);
            }
        }
    }

    [Fact]
    public void A_gradient_that_is_not_finite_moves_nothing()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor weight = ones(2, 2).requires_grad_();
        using AdamW optimizer = new([("w", weight)], new AdamWOptions());
        weight.grad = full([2, 2], float.NaN);
        Assert.True(double.IsNaN(optimizer.Step(0.1, 1)));
        Parity.Close(ones(2, 2, dtype: ScalarType.Float64), weight, 0);
        Assert.Equal(0, optimizer.Steps);
    }

    [Fact]
    public void A_parameter_without_gradient_is_named()
    {
        using DisposeScope scope = NewDisposeScope();
        using AdamW optimizer = new([("model.norm.weight", ones(2).requires_grad_())], new AdamWOptions());
        var error = Assert.Throws<InvalidOperationException>(() => optimizer.Step(0.1));
        Assert.Contains("model.norm.weight", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Restore_names_the_missing_and_the_misshapen_tensor()
    {
        using DisposeScope scope = NewDisposeScope();
        using AdamW optimizer = new([("w", ones(2).requires_grad_())], new AdamWOptions());
        var missing = Assert.Throws<ArgumentException>(() => optimizer.Restore(new Dictionary<string, Tensor> { ["w.m"] = zeros(2) }, 1));
        Assert.Contains("'w.v'", missing.Message, StringComparison.Ordinal);
        var misshapen = Assert.Throws<ArgumentException>(() =>
            optimizer.Restore(new Dictionary<string, Tensor> { ["w.m"] = zeros(3), ["w.v"] = zeros(2) }, 1));
        Assert.Contains("[3]", misshapen.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("transformers.get_constant_schedule_with_warmup")]
    [InlineData("transformers.get_linear_schedule_with_warmup")]
    [InlineData("transformers.get_cosine_schedule_with_warmup")]
    [InlineData("transformers.get_cosine_with_min_lr_schedule_with_warmup")]
    public void Schedules_equal_transformers(string function) =>
        Parity.Each("lr_schedules.json", function, c =>
        {
            int warmup = (int)c.Number("args.num_warmup_steps");
            int total = c.Has("args.num_training_steps") ? (int)c.Number("args.num_training_steps") : int.MaxValue;
            double floor = c.Has("args.min_lr_rate") ? c.Number("args.min_lr_rate") : 0;
            foreach ((double step, double expected) in c.Numbers("steps").Zip(c.Numbers("out_multiplier")))
            {
                if (step > total)
                    break; // past the end transformers' cosine rises again; ours stays at the floor
                double actual = function switch
                {
                    _ when function.Contains("constant", StringComparison.Ordinal) => Schedules.Constant((int)step, warmup),
                    _ when function.Contains("linear", StringComparison.Ordinal) => Schedules.Linear((int)step, warmup, total),
                    _ => Schedules.Cosine((int)step, warmup, total, floor),
                };
                Parity.Close(expected, actual, 1e-12);
            }
        });

    [Fact]
    public void Schedules_stay_at_the_floor_past_the_end()
    {
        Parity.Close(0.1, Schedules.Cosine(99, 5, 25, 0.1), 1e-12);
        Parity.Close(0.1, Schedules.Linear(99, 5, 25, 0.1), 1e-12);
    }
}
