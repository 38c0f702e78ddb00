using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>Reading the numbers of a tensor of any floating-point type; waits for the device.</summary>
internal static class TensorValues
{
    /// <summary>The value of a one-element tensor.</summary>
    public static double ToDouble(this Tensor scalar)
    {
        using Tensor value = scalar.detach().to(ScalarType.Float64).cpu();
        return value.item<double>();
    }

    /// <summary>All values in row-major order.</summary>
    public static float[] ToSingles(this Tensor values)
    {
        using Tensor flat = values.detach().to(ScalarType.Float32).cpu().contiguous();
        return flat.data<float>().ToArray();
    }
}
