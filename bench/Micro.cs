using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Tokenizers;
using static TorchSharp.torch;

namespace Rlhf.Bench;

/// <summary>Single operations under BenchmarkDotNet.</summary>
public static class Micro
{
    internal static void Run()
    {
        // In this process: a generated project would look for libtorch in its own folder.
        IConfig config = DefaultConfig.Instance.AddJob(Job.ShortRun.WithToolchain(InProcessEmitToolchain.Instance));
        BenchmarkRunner.Run([typeof(Products), typeof(Encoding)], config);
    }

    /// <summary>The decoder's matrix product against libtorch's, a 384 x 1024 layer and so many tokens at a time.</summary>
#pragma warning disable CA1001 // BenchmarkDotNet calls CleanUp; it derives from this class, so Dispose could not be a simple one.
    public unsafe class Products
#pragma warning restore CA1001
    {
        private const int Inputs = 384;
        private const int Outputs = 1024;
        private readonly float[] x = new float[64 * Inputs];
        private readonly float[] y = new float[64 * Outputs];
        private PackedMatrix packed = null!;
        private Tensor weight = null!;
        private Tensor rows = null!;

        [Params(1, 8, 64)]
        public int Tokens { get; set; }

        [GlobalSetup]
        public void SetUp()
        {
            var random = new Random(1);
            float[] weights = [.. Enumerable.Range(0, Inputs * Outputs).Select(_ => random.NextSingle() - 0.5f)];
            foreach (ref float value in x.AsSpan()) value = random.NextSingle() - 0.5f;
            packed = new PackedMatrix(Inputs, Outputs);
            packed.Place(weights, Inputs, o => o, i => i);
            weight = tensor(weights, [Outputs, Inputs]);
            rows = tensor(x[..(Tokens * Inputs)], [Tokens, Inputs]);
        }

        [GlobalCleanup]
        public void CleanUp()
        {
            packed.Dispose();
            weight.Dispose();
            rows.Dispose();
        }

        [Benchmark]
        public void InCSharp()
        {
            fixed (float* from = x, to = y) packed.Multiply(from, Inputs, Tokens, to, packed.OutputStride, add: false);
        }

        [Benchmark(Baseline = true)]
        public void ByLibtorch()
        {
            using IDisposable inference = inference_mode();
            using Tensor product = nn.functional.linear(rows, weight);
        }
    }

    /// <summary>Byte-level BPE on a text of 10,000 words.</summary>
    public class Encoding
    {
        private ByteLevelBpe tokenizer = null!;
        private string text = null!;

        [GlobalSetup]
        public void SetUp()
        {
            var random = new Random(1);
            string[] words = [.. Enumerable.Range(0, 2000).Select(_ =>
                string.Concat(Enumerable.Range(0, random.Next(2, 10)).Select(_ => (char)('a' + random.Next(26)))))];
            text = string.Join(' ', Enumerable.Range(0, 10_000).Select(_ => words[random.Next(words.Length)]));
            tokenizer = ByteLevelBpe.Train([text], 2048, ["<|endoftext|>", "<|pad|>"]);
        }

        [Benchmark]
        public int Encode() => tokenizer.Encode(text).Length;
    }
}
