using System.Runtime.InteropServices;

namespace Rlhf.Trainer.Native;

/// <summary>Recognises that memory ran out.</summary>
internal static class OutOfMemory
{
    /// <summary>True for .NET's own exception and for what libtorch's allocators say, on the CPU and on CUDA.</summary>
    public static bool Is(Exception e) =>
        e is OutOfMemoryException
        // libtorch reports both its allocators' failures as a plain C++ error.
        || (e is ExternalException or InvalidOperationException
            && (e.Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase)
                || e.Message.Contains("not enough memory", StringComparison.OrdinalIgnoreCase)
                || e.Message.Contains("can't allocate memory", StringComparison.OrdinalIgnoreCase)));
}
