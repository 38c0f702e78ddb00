using System.Runtime.CompilerServices;
using Rlhf.Trainer.Native;

namespace Rlhf.Trainer.Tests.Native;

/// <summary>Tests may touch TorchSharp before any type of the trainer: libtorch has to be loaded by then.</summary>
internal static class TorchModule
{
    [ModuleInitializer]
    internal static void Load() => TorchNative.Require();
}
