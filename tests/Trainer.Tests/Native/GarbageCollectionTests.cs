using Mono.Cecil;
using Mono.Cecil.Cil;
using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.Optimizers;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using Rlhf.Trainer.Tests.Methods;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Native;

/// <summary>
/// The garbage collector may run between any two instructions: what is handed to libtorch must outlive the call. These tests let it run all
/// the time, so nothing else may run beside them.
/// </summary>
[CollectionDefinition(nameof(GarbageCollectionTests), DisableParallelization = true)]
[Collection(nameof(GarbageCollectionTests))]
public class GarbageCollectionTests
{
    [Fact]
    public void Garbage_collections_do_not_reach_the_numbers_of_an_optimizer_step()
    {
        float[] calm = Steps();
        using (new Collector())
            Assert.Equal(calm, Steps());

        // Handing its numbers to TorchSharp to convert, a step failed after one to two thousand.
        static float[] Steps()
        {
            using DisposeScope scope = NewDisposeScope();
            using Tensor weight = linspace(-1, 1, 12).view(3, 4).requires_grad_();
            using var optimizer = new AdamW([("w", weight)], new AdamWOptions(WeightDecay: 0.1));
            for (int step = 0; step < 10_000; step++)
            {
                using DisposeScope stepScope = NewDisposeScope();
                weight.grad = ones(3, 4);
                optimizer.Step(1e-3, maxGradientNorm: 1);
            }

            return weight.ToSingles();
        }
    }

    [Fact]
    public void Garbage_collections_do_not_reach_the_numbers_of_a_training_run()
    {
        MemoryCheckpoint calm = Iterations();
        using (new Collector())
            MemoryCheckpoint.AssertEqual(calm, Iterations());

        static MemoryCheckpoint Iterations()
        {
            PpoSpec spec = new() { Episodes = 8, MinibatchSize = 4, MaxNewTokens = 6, PtxCoefficient = 0.1 };
            using Transformer sft = Toy.Model(), reward = Transformer.WithScoreHead(sft, 3);
            using var ppo = new Ppo(sft, reward, spec, Toy.TokenizedPrompts, Toy.Demonstrations, Toy.Tokenizer, seed: 1);
            for (int iteration = 0; iteration < 5; iteration++)
                ppo.Advance();
            return MemoryCheckpoint.Of(ppo);
        }
    }

    [Fact]
    public void No_call_lets_TorchSharp_make_a_number_that_nothing_holds()
    {
        using var resolver = new DefaultAssemblyResolver();
        resolver.AddSearchDirectory(Path.GetDirectoryName(typeof(AdamW).Assembly.Location));
        resolver.AddSearchDirectory(Path.GetDirectoryName(typeof(object).Assembly.Location));
        using ModuleDefinition trainer = ModuleDefinition.ReadModule(
            typeof(AdamW).Assembly.Location, new ReaderParameters { AssemblyResolver = resolver });
        var numbers = new UnheldNumbers();
        MethodDefinition[] methods = [.. AllTypes(trainer.Types).SelectMany(type => type.Methods)];
        string[] found =
        [
            .. from method in methods
               where !IsCareful(method)
               from call in UnheldNumbers.TorchCalls(method)
               where numbers.In(call)
               select $"{method.DeclaringType.Name}.{method.Name}: {call.FullName}",
        ];
        Assert.True(
            found.Length == 0,
            $"TorchSharp frees these numbers while libtorch reads them; use {nameof(TensorArithmetic)}:\n{string.Join('\n', found)}");
        Assert.Contains(methods, IsCareful); // the scan reads the code
        Assert.Contains(AllTypes(numbers.Torch!.Types), type => type.Methods.Any(method => method.Name == "op_Addition" && numbers.In(method)));

        // They make the numbers themselves and hold them, as the two tests above find out.
        static bool IsCareful(MethodDefinition method) => AllTypes([method.DeclaringType]).Concat(Outer(method.DeclaringType)).Any(
            type => type.Name == nameof(TensorArithmetic) || (type.Name == nameof(AdamW) && method.Name.Contains("Invoke", StringComparison.Ordinal)));

        static IEnumerable<TypeDefinition> Outer(TypeDefinition type) =>
            type.DeclaringType is { } outer ? Outer(outer).Prepend(outer) : [];
    }

    private static IEnumerable<TypeDefinition> AllTypes(IEnumerable<TypeDefinition> types) =>
        types.SelectMany(type => AllTypes(type.NestedTypes).Prepend(type));

    /// <summary>Collects garbage on a thread until it is disposed of, with pauses in which the others get on.</summary>
    private sealed class Collector : IDisposable
    {
        private readonly CancellationTokenSource stop = new();
        private readonly Thread thread;

        public Collector()
        {
            thread = new Thread(Collect);
            thread.Start();
        }

        public void Dispose()
        {
            stop.Cancel();
            thread.Join();
            stop.Dispose();
        }

        private void Collect()
        {
            while (!stop.IsCancellationRequested)
            {
                GC.Collect(0, GCCollectionMode.Forced, blocking: true);
                Thread.SpinWait(10_000);
            }
        }
    }

    /// <summary>Reads in TorchSharp's code which of its methods take a number, or make one of their own.</summary>
    private sealed class UnheldNumbers
    {
        private const string Scalar = "TorchSharp.Scalar";
        private readonly Dictionary<string, bool> known = [];

        /// <summary>TorchSharp; null before the first call.</summary>
        public ModuleDefinition? Torch { get; private set; }

        /// <summary>The calls of TorchSharp in a method's code.</summary>
        public static IEnumerable<MethodReference> TorchCalls(MethodDefinition method) =>
            method.HasBody
                ? method.Body.Instructions
                    .Where(instruction => instruction.OpCode.FlowControl == FlowControl.Call || instruction.OpCode == OpCodes.Newobj)
                    .Select(instruction => instruction.Operand)
                    .OfType<MethodReference>()
                    .Where(call => call.DeclaringType.Scope.Name.StartsWith("TorchSharp", StringComparison.Ordinal))
                : [];

        public bool In(MethodReference call)
        {
            if (call.Name == "ToScalar" || (call.DeclaringType.FullName == Scalar && call.Name == "op_Implicit"))
                return true;
            if (call.Parameters.Any(parameter => parameter.ParameterType.FullName == Scalar))
                return true;
            if (known.TryGetValue(call.FullName, out bool unheld))
                return unheld;
            known[call.FullName] = false; // calls in a circle
            MethodDefinition? method = call.Resolve();
            Torch ??= method?.Module;
            return known[call.FullName] = method is not null && TorchCalls(method).Any(In);
        }
    }
}
