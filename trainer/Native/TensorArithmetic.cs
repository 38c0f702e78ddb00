using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Native;

/// <summary>
/// Arithmetic of tensors with numbers. TorchSharp 0.107 makes a <see cref="Scalar"/> of each number, reads its native handle and keeps no
/// reference: a garbage collection on any thread lets the finalizer free the number while libtorch reads it. The call then fails, or goes on
/// with another number. Adding two tensors (their factor is the number 1) and squaring one are among these calls. Here every number outlives
/// its call; a test finds uses of TorchSharp's own.
/// </summary>
internal static class TensorArithmetic
{
    private static readonly Scalar One = 1.ToScalar();

    extension(Tensor tensor)
    {
        public Tensor Plus(Tensor other) => tensor.add(other, One);

        public Tensor Plus(double number)
        {
            using Scalar scalar = number.ToScalar();
            return tensor.add(scalar, One);
        }

        public Tensor Plus(long number)
        {
            using Scalar scalar = number.ToScalar();
            return tensor.add(scalar, One);
        }

        public Tensor Minus(double number)
        {
            using Scalar scalar = number.ToScalar();
            return tensor.sub(scalar);
        }

        public Tensor Minus(long number)
        {
            using Scalar scalar = number.ToScalar();
            return tensor.sub(scalar);
        }

        public Tensor Times(double number)
        {
            using Scalar scalar = number.ToScalar();
            return tensor.mul(scalar);
        }

        public Tensor DividedBy(double number)
        {
            using Scalar scalar = number.ToScalar();
            return tensor.div(scalar);
        }

        public Tensor Squared()
        {
            using Scalar two = 2.ToScalar();
            return tensor.pow(two);
        }

        /// <summary>The tensor + left × right, elementwise.</summary>
        public Tensor PlusProduct(Tensor left, Tensor right) => tensor.addcmul(left, right, One);

        public Tensor AtLeast(long number)
        {
            using Scalar scalar = number.ToScalar();
            return tensor.clamp_min(scalar);
        }

        public Tensor AtMost(long number)
        {
            using Scalar scalar = number.ToScalar();
            return tensor.clamp_max(scalar);
        }

        public Tensor Within(double low, double high)
        {
            using Scalar least = low.ToScalar(), most = high.ToScalar();
            return tensor.clamp(least, most);
        }

        public Tensor IsPositive()
        {
            using Scalar zero = 0.ToScalar();
            return tensor.gt(zero);
        }

        public void FillWith(double number)
        {
            using Scalar scalar = number.ToScalar();
            tensor.fill_(scalar);
        }
    }

    /// <summary>The whole numbers from <paramref name="start"/> up to, without, <paramref name="end"/>.</summary>
    public static Tensor Range(long start, long end, ScalarType type, Device device)
    {
        using Scalar first = start.ToScalar(), last = end.ToScalar();
        return arange(first, last, One, type, device);
    }
}
