using System.Diagnostics;
using System.Globalization;

namespace Rlhf.Trainer.Native;

/// <summary>What memory this process has used at its highest, and how much it could still have.</summary>
internal static class ProcessMemory
{
    private const string Status = "/proc/self/status";
    private const string Machine = "/proc/meminfo";

    private static readonly string[] ContainerLimits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

    /// <summary>The largest resident size since the last <see cref="ResetPeak"/>, in bytes.</summary>
    public static long PeakBytes
    {
        get
        {
            if (File.Exists(Status))
                return Kilobytes(File.ReadLines(Status), "VmHWM:") * 1024 ?? 0;
            using var process = Process.GetCurrentProcess();
            return process.PeakWorkingSet64;
        }
    }

    /// <summary>The resident size now, in bytes.</summary>
    public static long ResidentBytes => Environment.WorkingSet;

    /// <summary>Lets the peak start anew from what is resident now. Only Linux can: elsewhere the peak is that of the process.</summary>
    public static void ResetPeak()
    {
        try
        {
            if (OperatingSystem.IsLinux())
                File.WriteAllText("/proc/self/clear_refs", "5");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // A container may forbid it; then the peak is that of the process too.
        }
    }

    /// <summary>
    /// Bytes that this process could take in addition: the machine's available memory, or what it has left of its container's limit.
    /// Null where the system does not say.
    /// </summary>
    public static long? AvailableBytes()
    {
        long? machine = File.Exists(Machine) ? Kilobytes(File.ReadLines(Machine), "MemAvailable:") * 1024 : null;
        long? container = ContainerLimits.Select(Limit).Min() - ResidentBytes;
        return new[] { machine, container }.Min();
    }

    /// <summary>A limit of control groups, version 1 or 2; null where there is none ("max").</summary>
    private static long? Limit(string file) =>
        File.Exists(file) && long.TryParse(File.ReadAllText(file), CultureInfo.InvariantCulture, out long bytes) ? bytes : null;

    /// <summary>The number of a line such as <c>VmHWM:   1234 kB</c>.</summary>
    private static long? Kilobytes(IEnumerable<string> lines, string name) =>
        lines.FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal)) is { } found
        && long.TryParse(found[name.Length..].Replace("kB", "", StringComparison.Ordinal), CultureInfo.InvariantCulture, out long value)
            ? value
            : null;
}
