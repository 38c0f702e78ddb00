using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Bench;

/// <summary>What the figures were measured on, and what this machine can do at best.</summary>
internal static class Machine
{
    /// <summary>In words that hold on another machine of the kind: no names, no paths.</summary>
    public static string Describe() => string.Create(
        CultureInfo.InvariantCulture,
        $"""
        {Environment.ProcessorCount} cores ({RuntimeInformation.ProcessArchitecture}, vectors of {(Vector512.IsHardwareAccelerated ? 512 : 256)} bits),
        {get_num_threads()} threads, {RuntimeInformation.FrameworkDescription}, libtorch {__version__}, fp32 on the CPU.
        Medians. "Peak" is the rate of libtorch's own matrix multiplication, measured before and after each row, the larger of both: on a
        machine that does other work beside, the ratios are what compares, and tokens per CPU second (over all threads) come next.

        """);

    /// <summary>Multiply-adds of libtorch's matrix product, in floating-point operations a second: two a multiply-add.</summary>
    public static double MatrixPeak()
    {
        const int size = 1024;
        using DisposeScope scope = NewDisposeScope();
        Tensor a = rand(size, size), b = rand(size, size);
        Stopwatch watch = new();
        double best = 0;
        for (int round = 0; round < 12; round++)
        {
            watch.Restart();
            using Tensor product = matmul(a, b);
            best = Math.Max(best, 2.0 * size * size * size / watch.Elapsed.TotalSeconds);
        }

        return best;
    }

    /// <summary>Starts the count of <see cref="PeakMemory"/> anew, where the system can.</summary>
    public static void ResetPeakMemory()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        const string counters = "/proc/self/clear_refs";
        if (File.Exists(counters)) File.WriteAllText(counters, "5");
    }

    /// <summary>The largest resident set since the reset (elsewhere than on Linux: of the process), in MiB.</summary>
    public static double PeakMemory()
    {
        const string status = "/proc/self/status";
        if (!File.Exists(status)) return Process.GetCurrentProcess().PeakWorkingSet64 / 1048576.0;
        string line = File.ReadLines(status).First(l => l.StartsWith("VmHWM:", StringComparison.Ordinal));
        return double.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[^2], CultureInfo.InvariantCulture) / 1024;
    }

    /// <summary>Wall-clock and CPU seconds of some work.</summary>
    public static (double Wall, double Cpu) Time(Action work)
    {
        var process = Process.GetCurrentProcess();
        TimeSpan before = process.TotalProcessorTime;
        var watch = Stopwatch.StartNew();
        work();
        double wall = watch.Elapsed.TotalSeconds;
        process.Refresh();
        return (wall, (process.TotalProcessorTime - before).TotalSeconds);
    }

    public static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }
}
