using System.Diagnostics;
var sw=Stopwatch.StartNew();
System.Runtime.CompilerServices.RuntimeHelpers.RunModuleConstructor(typeof(Rlhf.Trainer.Native.TorchNative).Module.ModuleHandle);
Rlhf.Trainer.Native.TorchNative.Require();
Console.WriteLine($"{sw.Elapsed.TotalMilliseconds} {Environment.TickCount64-Process.GetCurrentProcess().StartTime.Ticks/10000}");
using var t=TorchSharp.torch.ones(3); Console.WriteLine(t.sum().item<float>()); Console.WriteLine(sw.Elapsed.TotalMilliseconds);
foreach(var m in typeof(TorchSharp.torch.nn.functional).GetMethods()) if(m.Name is "scaled_dot_product_attention" or "embedding" or "layer_norm" or "linear" or "rms_norm" or "silu" or "gelu") Console.WriteLine(m);
foreach(var m in typeof(TorchSharp.torch.autograd).GetNestedTypes()) Console.WriteLine(m);
foreach(var m in typeof(TorchSharp.torch.Tensor).GetMethods()) if(m.Name is "repeat_interleave" or "unflatten" or "index_select" or "narrow" or "bytes" or "get_bytes" or "data" or "chunk" or "split" or "expand") Console.WriteLine(m);
