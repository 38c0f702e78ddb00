using System.Runtime.InteropServices;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using Rlhf.Trainer.Tests.Methods;
using Rlhf.Trainer.Tests.Models;
using Rlhf.Trainer.Work;
using Xunit;

namespace Rlhf.Trainer.Tests.Work;

/// <summary>Measures memory of the process, so nothing else may run beside it.</summary>
[CollectionDefinition(nameof(MemoryEstimateTests), DisableParallelization = true)]
[Collection(nameof(MemoryEstimateTests))]
public class MemoryEstimateTests
{
    private const int PromptTokens = 224;
    private const int CompletionTokens = 32;

    public static TheoryData<string> Names => [.. Families.Names];

    [Theory]
    [MemberData(nameof(Names))]
    public void Weights_gradients_and_moments_are_exact(string family)
    {
        using Transformer model = Families.Load(family);
        var plan = new MemoryPlan { Frozen = [model.Config], Trained = [model.Config], Tokens = 8, Predicted = 4, Sequences = 2 };
        MemoryEstimate estimate = MemoryEstimate.Of(plan, new TrainerSpec());
        Assert.Equal(
            (8 * model.ParameterCount, 4 * model.ParameterCount, 8 * model.ParameterCount),
            (estimate.Weights, estimate.Gradients, estimate.Moments));
    }

    [Fact]
    public void An_adapter_alone_has_gradients_and_moments()
    {
        using Transformer trunk = Families.Load("llama");
        var adapter = new LoraOptions(4, 8, []);
        using Transformer adapted = trunk.WithAdapter(adapter, 1);
        long learning = adapted.Trainable().Sum(weight => weight.Value.numel());
        var plan = new MemoryPlan { Frozen = [trunk.Config], Trained = [trunk.Config], Adapter = adapter, Tokens = 8, Predicted = 4 };
        MemoryEstimate estimate = MemoryEstimate.Of(plan, new TrainerSpec());
        Assert.InRange(learning, 1, trunk.ParameterCount / 2);
        Assert.Equal(
            (4 * (trunk.ParameterCount + learning), 4 * learning, 8 * learning), (estimate.Weights, estimate.Gradients, estimate.Moments));
    }

    [Theory]
    [InlineData("sft", false, Precision.Fp32)]
    [InlineData("sft", true, Precision.Fp32)]
    [InlineData("sft", false, Precision.Bf16)]
    [InlineData("reward", false, Precision.Fp32)]
    [InlineData("ppo", false, Precision.Fp32)]
    [InlineData("read", false, Precision.Fp32)]
    [InlineData("read", false, Precision.Bf16)]
    public void The_peak_is_from_a_quarter_to_five_quarters_of_the_estimate_on_rows_of_the_greatest_length(string stage, bool checkpointing, Precision precision)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "the peak of a part of a process is to be had on Linux only");
        var trainer = new TrainerSpec { GradientCheckpointing = checkpointing, Precision = precision, MicroBatchSize = 8 };
        MemoryEstimate estimate = MemoryEstimate.Of(Plan(stage), trainer);
        GC.Collect();
        GC.WaitForPendingFinalizers();
        _ = TrimHeap(0); // what earlier tests freed is not to be had for nothing
        ProcessMemory.ResetPeak(); // the share of libtorch is in the estimate, and resident before where another test came first
        long before = ProcessMemory.ResidentBytes;
        Run(stage, trainer);
        long peak = ProcessMemory.PeakBytes - before;
        Assert.True(peak >= 0.25 * estimate.Total && peak <= 1.25 * estimate.Total, $"{MemoryEstimate.Text(peak)} measured; {estimate}");
    }

    [DllImport("libc", EntryPoint = "malloc_trim")]
    private static extern int TrimHeap(nuint keep);

    private static ModelConfig Config() => ModelConfig.Llama(
        vocabularySize: 1024, hiddenSize: 128, layers: 8, heads: 4, keyValueHeads: 4, intermediateSize: 352, maxPositions: 256, eosId: 0,
        padId: 1);

    private static MemoryPlan Plan(string stage)
    {
        ModelConfig model = Config(), scoring = Config() with { Head = HeadKind.Score };
        var plan = new MemoryPlan { Sequences = 8, Tokens = PromptTokens + CompletionTokens, Predicted = CompletionTokens };
        return stage switch
        {
            "sft" => plan with { Trained = [model] },
            "reward" => plan with { Frozen = [model], Trained = [scoring], Sequences = 16, Predicted = 0 },
            "read" => plan with { Frozen = [model], Sequences = 0, Read = 64 },
            _ => plan with { Frozen = [model, scoring], Trained = [model, scoring], Read = 16, Samples = true },
        };
    }

    private static void Run(string stage, TrainerSpec trainer)
    {
        int[] prompt = [.. Enumerable.Range(0, PromptTokens).Select(i => 2 + i % 300)];
        int[] completion = [.. Enumerable.Range(0, CompletionTokens).Select(i => 2 + i * 7 % 300)];
        using var model = new Transformer(Config()) { Precision = trainer.Precision, GradientCheckpointing = trainer.GradientCheckpointing };
        model.InitialiseWeights(1);
        if (stage == "read")
        {
            Episodes.LogProbs(model, [.. Enumerable.Repeat(new Episode(prompt, completion, true), 64)], 0.7, padId: 1);
            return;
        }

        using Transformer? reward = stage == "ppo" ? Transformer.WithScoreHead(model, 2) : null;
        TokenizedDemonstration[] demonstrations = [.. Enumerable.Repeat(new TokenizedDemonstration("d", prompt, completion), 8)];
        TokenizedPreference[] rankings =
            [.. Enumerable.Repeat(new TokenizedPreference("r", "", prompt, [completion, [.. completion.Reverse()]], [1, 2]), 8)];
        TokenizedPrompt[] prompts = [.. Enumerable.Repeat(new TokenizedPrompt("p", prompt), 16)];
        using ITrainingMethod method = stage switch
        {
            "sft" => new Sft(
                model, new SftSpec { BatchSize = 8 }, demonstrations, [], Toy.Tokenizer, CompletionTokens, 1, trainer.MicroBatchSize),
            "reward" => new RewardModel(
                model, new RewardSpec { BatchSize = 8 }, rankings, [], [], Toy.Tokenizer, 1, trainer.MicroBatchSize),
            _ => new Ppo(
                model, reward!, new PpoSpec { Episodes = 16, MinibatchSize = 8, Epochs = 1, MaxNewTokens = CompletionTokens }, prompts, [],
                Toy.Tokenizer, 1, trainer.MicroBatchSize),
        };
        method.Advance();
    }
}
