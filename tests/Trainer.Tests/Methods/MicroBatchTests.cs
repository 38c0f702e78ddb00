using System.Runtime.InteropServices;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.Optimizers;
using Rlhf.Trainer.Models;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>
/// Gradients are read from the first moments after the first optimizer step, which are (1 - β1) times the gradient: so the whole step is
/// compared as it is taken, not a copy of its arithmetic.
/// </summary>
public class MicroBatchTests
{
    private const double Rounding = 1e-5;

    /// <summary>Completions of 1 to 34 tokens: a mean of means weighs them wrongly by far.</summary>
    private static readonly int[] Lengths = [1, 2, 3, 5, 8, 13, 21, 34];

    private static readonly int[][] Prompts = [.. Lengths.Select((_, i) => Tokens(1 + i, 100 + i))];
    private static readonly int[][] Completions = [.. Lengths.Select((length, i) => Tokens(length, 200 + i))];

    private static readonly TokenizedDemonstration[] Demonstrations =
        [.. Prompts.Zip(Completions, (prompt, completion) => new TokenizedDemonstration("d", prompt, completion))];

    [Theory]
    [InlineData(4)]
    [InlineData(3)]
    [InlineData(1)]
    public void Sft_takes_the_same_step(int microBatch) => AssertSameStep(Sft, "sft", microBatch);

    [Theory]
    [InlineData(4)]
    [InlineData(1)]
    public void Pretraining_takes_the_same_step(int microBatch) => AssertSameStep(
        size =>
        {
            PretrainSpec spec = new() { Steps = 1, BatchSize = 8, SequenceLength = 40, MaxGradientNorm = 0 };
            Transformer model = Toy.Model();
            return (new Pretrain(model, spec, [.. Completions.Where(c => c.Length > 1)], [], Toy.Tokenizer, 1, size), [model]);
        },
        "pretrain", microBatch);

    [Theory]
    [InlineData(4)]
    [InlineData(1)]
    public void The_reward_model_takes_the_same_step(int microBatch) => AssertSameStep(
        size =>
        {
            RewardSpec spec = new() { Epochs = 1, BatchSize = 8, MaxGradientNorm = 0, CentreCoefficient = 0.1 };
            Transformer sft = Toy.Model();
            return (new RewardModel(sft, spec, UnevenRankings(), [], [], Toy.Tokenizer, 1, size), [sft]);
        },
        "reward", microBatch);

    [Theory]
    [InlineData(4, "policy")]
    [InlineData(1, "policy")]
    [InlineData(4, "critic")]
    [InlineData(1, "critic")]
    public void Ppo_with_its_language_modelling_term_takes_the_same_step(int microBatch, string part) => AssertSameStep(
        size =>
        {
            PpoSpec spec = new()
            {
                Iterations = 1,
                Episodes = 8,
                MinibatchSize = 8,
                Epochs = 1,
                MaxNewTokens = 24,
                MaxGradientNorm = 0,
                PtxCoefficient = 0.5,
                MissingEos = MissingEosMode.None,
            };
            Transformer sft = Toy.Model(), reward = Transformer.WithScoreHead(sft, 3);
            return (new Ppo(sft, reward, spec, PromptRows(), Demonstrations, Toy.Tokenizer, 1, size), [sft, reward]);
        },
        part, microBatch);

    [Theory]
    [InlineData(4, PreferenceLossKind.Sigmoid)]
    [InlineData(1, PreferenceLossKind.Sigmoid)]
    [InlineData(3, PreferenceLossKind.Ipo)]
    public void Dpo_takes_the_same_step(int microBatch, PreferenceLossKind loss) => AssertSameStep(
        size =>
        {
            DpoSpec spec = new() { Epochs = 1, BatchSize = 8, MaxGradientNorm = 0, Loss = loss };
            Transformer sft = Toy.Model(), reward = Transformer.WithScoreHead(sft, 3);
            return (new Dpo(sft, reward, spec, new AnswerSampling(4, 1, 0), UnevenRankings(), [], Toy.Tokenizer, 1, size), [sft, reward]);
        },
        "policy", microBatch);

    [Theory]
    [InlineData(4)]
    [InlineData(1)]
    public void Rloo_takes_the_same_step(int microBatch) => AssertSameStep(
        size =>
        {
            RlooSpec spec = new()
            {
                Iterations = 1,
                Episodes = 16,
                GroupSize = 2,
                MinibatchSize = 8,
                Epochs = 1,
                MaxNewTokens = 24,
                MaxGradientNorm = 0,
                MissingEos = MissingEosMode.None,
            };
            Transformer sft = Toy.Model(), reward = Transformer.WithScoreHead(sft, 3);
            return (new Rloo(sft, reward, spec, PromptRows(), Toy.Tokenizer, 1, size), [sft, reward]);
        },
        "policy", microBatch);

    [Theory]
    [InlineData(4, TokenAggregation.SequenceMean)]
    [InlineData(1, TokenAggregation.SequenceMean)]
    [InlineData(3, TokenAggregation.TokenMean)]
    [InlineData(3, TokenAggregation.FixedLength)]
    public void Grpo_takes_the_same_step(int microBatch, TokenAggregation aggregation) => AssertSameStep(
        size =>
        {
            GrpoSpec spec = new()
            {
                Iterations = 1,
                Episodes = 16,
                GroupSize = 4,
                MinibatchSize = 8,
                Epochs = 1,
                MaxNewTokens = 24,
                MaxGradientNorm = 0,
                MissingEos = MissingEosMode.None,
                Aggregation = aggregation,
            };
            Transformer sft = Toy.Model(), reward = Transformer.WithScoreHead(sft, 3);
            return (new Grpo(sft, reward, spec, PromptRows(), Toy.Tokenizer, 1, size), [sft, reward]);
        },
        "policy", microBatch);

    [Fact]
    public void A_mean_of_means_would_be_noticed()
    {
        Dictionary<string, float[]> whole = Gradient(Sft, "sft", null, out _);
        // What a trainer does that normalises each micro-batch by itself: the mean of the single rows' gradients.
        Dictionary<string, float[]>[] rows =
        [
            .. Demonstrations.Select(row => Gradient(
                size => Sft([row], size), "sft", null, out _)),
        ];
        Dictionary<string, float[]> meanOfMeans = whole.ToDictionary(
            pair => pair.Key, pair => Enumerable.Range(0, pair.Value.Length).Select(i => rows.Average(row => row[pair.Key][i])).ToArray());
        Assert.True(Deviation(whole, meanOfMeans) > 1000 * Rounding, $"a mean of means deviates by {Deviation(whole, meanOfMeans)} only");
    }

    [Fact]
    public void Old_log_probabilities_come_from_the_same_micro_batches()
    {
        PpoSpec spec = new() { Iterations = 1, Episodes = 12, MinibatchSize = 6, Epochs = 1, MaxNewTokens = 6 };
        using Transformer sft = Toy.Model(), reward = Transformer.WithScoreHead(sft, 3);
        using var ppo = new Ppo(sft, reward, spec, Toy.TokenizedPrompts, [], Toy.Tokenizer, 1, microBatchSize: 4);
        IReadOnlyDictionary<string, double> metrics = ppo.Advance();
        Assert.Equal(1, metrics["policy/ratio_first_minibatch"]);
        Assert.Equal(4, metrics["micro_batch_size"]);
    }

    [Fact]
    public void Resumed_equals_uninterrupted_byte_for_byte()
    {
        List<Transformer> models = [];
        MemoryCheckpoint.AssertResumes(() =>
        {
            models.Add(Toy.Model());
            return new Sft(
                models[^1], new SftSpec { BatchSize = 8, Epochs = 2 }, Toy.Demonstrations, [], Toy.Tokenizer, 8, seed: 3, microBatchSize: 3);
        });
        models.ForEach(model => model.Dispose());
    }

    /// <summary>No accelerator is at hand: the allocator's message is thrown where it would come from.</summary>
    [Theory]
    [InlineData("CUDA out of memory. Tried to allocate 2.00 GiB.")]
    [InlineData("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")]
    public void Out_of_memory_halves_the_micro_batch_and_repeats_the_step(string message)
    {
        Dictionary<string, float[]> whole = Step(room: 8, out int? wholeSize);
        Assert.Null(wholeSize);
        // 8, 4 and then 2 rows: the passes over 4 rows fail at the second one, with the first one's gradient already added.
        Dictionary<string, float[]> divided = Step(room: 2, out int? size);
        Assert.Equal(2, size);
        Assert.InRange(Deviation(whole, divided), 0, Rounding);

        Dictionary<string, float[]> Step(int room, out int? found)
        {
            using Transformer model = Toy.Model();
            var microBatches = new MicroBatches(null);
            using var trained = new TrainedModel("sft", model, new AdamWOptions(), microBatches);
            (int[] Prompt, int[] Completion)[] rows = [.. Demonstrations.Select(row => (row.Prompt, row.Completion))];
            long tokens = TokenBatch.CountTokens(rows);
            (double loss, _, IReadOnlyList<double> figures) = trained.Descend(
                rows.Length,
                some =>
                {
                    if (rows[some].Length > room && (some.Start.Value > 0 || rows[some].Length > 4))
                        throw new LibtorchFailure(message);
                    return LanguageModelling.Loss(model, TokenBatch.Of(rows[some], Toy.Tokenizer.PadId, CPU), tokens);
                },
                learningRate: 1e-3, maxGradientNorm: 0, "step 0");
            Assert.True(loss > 1);
            found = microBatches.Size;
            Assert.Equal(8 / (found ?? 8), figures.Count);
            var checkpoint = new MemoryCheckpoint();
            trained.Save(checkpoint);
            return FirstMoments(checkpoint, "sft");
        }
    }

    [Fact]
    public void A_single_row_that_does_not_fit_is_the_end()
    {
        var microBatches = new MicroBatches(null);
        List<int> tried = [];
        Assert.Throws<LibtorchFailure>(() => microBatches.Run(5, rows =>
        {
            tried.Add(rows.End.Value - rows.Start.Value);
            throw new LibtorchFailure("CUDA out of memory.");
        }));
        Assert.Equal([5, 3, 2, 1], tried);
    }

    [Fact]
    public void Other_errors_are_not_tried_again()
    {
        int calls = 0;
        Assert.Throws<LibtorchFailure>(() => new MicroBatches(4).Run(8, _ =>
        {
            calls++;
            throw new LibtorchFailure("CUDA error: an illegal memory access was encountered");
        }));
        Assert.Equal(1, calls);
    }

    /// <summary>From 2 to 5 completions a prompt, with ties: prompts count the same, pairs do not.</summary>
    private static TokenizedPreference[] UnevenRankings() =>
    [
        .. Prompts.Select((prompt, i) => new TokenizedPreference(
            "r", "", prompt, [.. Enumerable.Range(0, 2 + i % 4).Select(k => Completions[(i + k) % 8])],
            [.. Enumerable.Range(0, 2 + i % 4).Select(k => Math.Min(k, 3))])),
    ];

    private static TokenizedPrompt[] PromptRows() => [.. Prompts.Select(prompt => new TokenizedPrompt("p", prompt))];

    private static (ITrainingMethod Method, Transformer[] Owned) Sft(int? size) => Sft(Demonstrations, size);

    private static (ITrainingMethod Method, Transformer[] Owned) Sft(TokenizedDemonstration[] rows, int? size)
    {
        Transformer model = Toy.Model();
        SftSpec spec = new() { Epochs = 1, BatchSize = 8, MaxGradientNorm = 0 };
        return (new Sft(model, spec, rows, [], Toy.Tokenizer, 8, 1, size), [model]);
    }

    private static void AssertSameStep(Func<int?, (ITrainingMethod Method, Transformer[] Owned)> fresh, string part, int microBatch)
    {
        Dictionary<string, float[]> whole = Gradient(fresh, part, null, out IReadOnlyDictionary<string, double> expected);
        Dictionary<string, float[]> divided = Gradient(fresh, part, microBatch, out IReadOnlyDictionary<string, double> metrics);
        Assert.InRange(Deviation(whole, divided), 0, Rounding);
        Assert.Equal(microBatch, metrics["micro_batch_size"]);
        Assert.DoesNotContain("micro_batch_size", expected.Keys);
        foreach ((string name, double value) in expected.Where(pair => !pair.Key.StartsWith("timing/", StringComparison.Ordinal)))
            Assert.True(Math.Abs(value - metrics[name]) <= 1e-4 * Math.Max(1, Math.Abs(value)), $"{name} is {metrics[name]}, not {value}");
    }

    private static Dictionary<string, float[]> Gradient(
        Func<int?, (ITrainingMethod Method, Transformer[] Owned)> fresh, string part, int? microBatch,
        out IReadOnlyDictionary<string, double> metrics)
    {
        (ITrainingMethod method, Transformer[] owned) = fresh(microBatch);
        metrics = method.Advance();
        Dictionary<string, float[]> moments = FirstMoments(MemoryCheckpoint.Of(method), part);
        method.Dispose();
        foreach (Transformer model in owned)
            model.Dispose();
        return moments;
    }

    private static Dictionary<string, float[]> FirstMoments(MemoryCheckpoint checkpoint, string part)
    {
        using DisposeScope scope = NewDisposeScope();
        return checkpoint.ReadTensors($"{part}.optimizer")
            .Where(pair => pair.Key.EndsWith(".m", StringComparison.Ordinal))
            .ToDictionary(pair => pair.Key, pair => pair.Value.ToSingles());
    }

    /// <summary>The largest difference of an element, relative to the largest element of its tensor.</summary>
    private static double Deviation(Dictionary<string, float[]> expected, Dictionary<string, float[]> actual) => expected.Max(pair =>
        pair.Value.Zip(actual[pair.Key], (x, y) => Math.Abs(x - y)).Max() / pair.Value.Max(Math.Abs));

    private static int[] Tokens(int count, int seed) =>
        [.. Enumerable.Range(0, count).Select(i => (int)(Seeds.Uniform((ulong)seed, i, 0) * (Toy.Tokenizer.VocabularySize - 2)))];

    /// <summary>Stands for TorchSharp's exception, an <see cref="ExternalException"/> with libtorch's message.</summary>
    private sealed class LibtorchFailure(string message) : ExternalException(message);
}
