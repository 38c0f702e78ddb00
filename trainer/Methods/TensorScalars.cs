using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>Reading a scalar tensor of any floating-point type.</summary>
internal static class TensorScalars
{
    /// <summary>The value of a one-element tensor; waits for the device.</summary>
    public static double ToDouble(this Tensor scalar)
    {
        using Tensor value = scalar.detach().to(ScalarType.Float64).cpu();
        return value.item<double>();
    }
}
