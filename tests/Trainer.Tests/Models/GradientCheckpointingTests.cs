using System.Runtime.InteropServices;
using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using Rlhf.Trainer.Tests.Methods;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Models;

public class GradientCheckpointingTests
{
    public static TheoryData<string> Names => [.. Families.Names];

    [Theory]
    [MemberData(nameof(Names))]
    public void Gradients_are_equal_to_the_last_bit(string family)
    {
        foreach (bool masked in (bool[])[false, true])
        {
            using Transformer model = Families.Load(family);
            Dictionary<string, float[]> plain = Gradients(model, [masked]);
            model.GradientCheckpointing = true;
            Dictionary<string, float[]> checkpointed = Gradients(model, [masked]);
            foreach ((string name, float[] gradient) in plain)
                Assert.True(gradient.AsSpan().SequenceEqual(checkpointed[name]), $"the gradient of {name} differs");
        }
    }

    /// <summary>The shares of several passes in a tied embedding are added in another order.</summary>
    [Theory]
    [MemberData(nameof(Names))]
    public void Two_forward_passes_may_share_a_backward_pass(string family)
    {
        using Transformer model = Families.Load(family);
        Dictionary<string, float[]> plain = Gradients(model, [true, false]);
        model.GradientCheckpointing = true;
        Dictionary<string, float[]> checkpointed = Gradients(model, [true, false]);
        foreach ((string name, float[] gradient) in plain)
        {
            float largest = gradient.Max(Math.Abs);
            foreach ((float expected, float actual) in gradient.Zip(checkpointed[name]))
                Assert.True(Math.Abs(expected - actual) <= 1e-6f * largest, $"{name}: {actual} instead of {expected}");
        }
    }

    [Fact]
    public void Copies_inherit_it()
    {
        using Transformer model = Toy.Model();
        model.GradientCheckpointing = true;
        using Transformer copy = model.Clone(), scoring = Transformer.WithScoreHead(model, 1);
        Assert.True(copy.GradientCheckpointing);
        Assert.True(scoring.GradientCheckpointing);
    }

    [Fact]
    public void Ppo_ends_in_the_same_bytes()
    {
        MemoryCheckpoint plain = Iterations(checkpointing: false), checkpointed = Iterations(checkpointing: true);
        MemoryCheckpoint.AssertEqual(plain, checkpointed);

        static MemoryCheckpoint Iterations(bool checkpointing)
        {
            PpoSpec spec = new() { Episodes = 8, MinibatchSize = 8, MaxNewTokens = 6 };
            using Transformer sft = Toy.Model(), reward = Transformer.WithScoreHead(sft, 3);
            sft.GradientCheckpointing = reward.GradientCheckpointing = checkpointing;
            using var ppo = new Ppo(sft, reward, spec, Toy.TokenizedPrompts, [], Toy.Tokenizer, 1);
            ppo.Advance();
            ppo.Advance();
            return MemoryCheckpoint.Of(ppo);
        }
    }

    /// <summary>Of the summed losses of forward passes, each with or without an attention mask.</summary>
    private static Dictionary<string, float[]> Gradients(Transformer model, bool[] passes)
    {
        using DisposeScope scope = NewDisposeScope();
        using GradientPass pass = model.BeginGradients();
        Tensor ids = tensor([3L, 17, 49, 0, 8, 8, 31, 22, 5, 40, 11, 7], [2, 6]);
        Tensor mask = tensor([0L, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [2, 6]);
        Tensor loss = zeros(1);
        foreach (bool masked in passes)
            loss = loss - Losses.LogProbs(model.Logits(model.Hidden(ids, masked ? mask : null)), ids).mean();
        pass.Backward(loss);
        var gradients = new Dictionary<string, float[]>();
        foreach ((string name, TorchSharp.Modules.Parameter weight) in model.NamedWeights())
        {
            gradients[name] = weight.grad!.ToSingles();
            weight.grad = null;
        }

        return gradients;
    }
}

/// <summary>Measures memory of the process, so nothing else may run beside it.</summary>
[CollectionDefinition(nameof(GradientCheckpointingMemoryTests), DisableParallelization = true)]
[Collection(nameof(GradientCheckpointingMemoryTests))]
public partial class GradientCheckpointingMemoryTests
{
    [Fact]
    public void A_deep_model_takes_a_fraction_of_the_memory()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "the peak of a part of a process is to be had on Linux only");
        using var model = new Transformer(ModelConfig.Llama(
            vocabularySize: 64, hiddenSize: 64, layers: 24, heads: 4, keyValueHeads: 4, intermediateSize: 256, maxPositions: 256,
            eosId: 0, padId: 1));
        model.InitialiseWeights(1);
        model.GradientCheckpointing = true;
        BackPropagate(model); // gradients and libtorch's own buffers are there from now on
        long checkpointed = Growth(model);
        model.GradientCheckpointing = false;
        long plain = Growth(model);
        Assert.True(plain > 200_000_000, $"the plain pass took {plain} bytes only");
        Assert.True(checkpointed < plain / 4, $"{checkpointed} bytes with checkpointing, {plain} without");
    }

    private static long Growth(Transformer model)
    {
        // What other tests have freed may still be resident; it would be taken anew without any growth.
        _ = malloc_trim(0);
        ProcessMemory.ResetPeak();
        long before = ProcessMemory.ResidentBytes;
        BackPropagate(model);
        return ProcessMemory.PeakBytes - before;
    }

    [LibraryImport("libc")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int malloc_trim(nuint pad);

    private static void BackPropagate(Transformer model)
    {
        using DisposeScope scope = NewDisposeScope();
        using GradientPass pass = model.BeginGradients();
        Tensor ids = arange(8 * 256, ScalarType.Int64).remainder(64).view(8, 256);
        pass.Backward(-Losses.LogProbs(model.Logits(model.Hidden(ids)), ids).mean());
    }
}
