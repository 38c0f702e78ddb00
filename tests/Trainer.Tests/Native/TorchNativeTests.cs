using System.Reflection;
using Rlhf.Trainer.Native;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Native;

public sealed class TorchNativeTests
{
    [Fact]
    public void Libtorch_computes()
    {
        TorchNative.Require();
        using Tensor sum = ones(3, 4).sum();
        Assert.Equal(12, sum.item<float>());
    }

    [Fact]
    public void The_natives_are_not_copied_into_the_output_folder()
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("Windows and macOS have the natives beside the application.");
        string[] copied = [.. Directory.EnumerateFiles(AppContext.BaseDirectory, "*", SearchOption.AllDirectories)
            .Where(f => Path.GetFileName(f).Contains("torch_cpu", StringComparison.Ordinal)
                || Path.GetFileName(f).Contains("libSkiaSharp", StringComparison.Ordinal))];
        Assert.Empty(copied);
    }

    [Fact]
    public void A_version_need_is_marked_weak_in_place()
    {
        string? folder = typeof(TorchNative).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>()
            .FirstOrDefault(a => a.Key == "TorchNatives")?.Value?.Split(';')[0];
        if (folder is null) Assert.Skip("This build has no ELF library at hand.");
        byte[] original = File.ReadAllBytes(Path.Combine(folder, "libLibTorchSharp.so"));
        byte[] marked = [.. original];
        Assert.True(ElfVersions.MarkWeak(marked, "GLIBCXX_3.4.32"));
        int[] changed = [.. Enumerable.Range(0, original.Length).Where(i => original[i] != marked[i])];
        Assert.Single(changed);
        Assert.Equal(original[changed[0]] | 2, marked[changed[0]]);
        Assert.False(ElfVersions.MarkWeak(marked, "GLIBCXX_9.9.99"));
    }
}
