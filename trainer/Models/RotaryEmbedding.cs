using Rlhf.Trainer.Native;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Models;

/// <summary>
/// Rotary position embedding (Su et al. 2021) in Hugging Face's "rotate half" layout: dimension i of a head is paired with i + d/2.
/// </summary>
internal sealed class RotaryEmbedding : IDisposable
{
    private readonly int dimension;
    private readonly Tensor cosine; // (positions, d): each frequency twice
    private readonly Tensor sine; // (positions, d): the first half negated, so that rotating is x * cos + roll(x) * sin

    public RotaryEmbedding(ModelConfig config, Device device)
    {
        dimension = config.RotaryDimension;
        float[] frequencies = Frequencies(config);
        (float[] cos, float[] sin) = Tables(frequencies, config.MaxPositions);
        using var scope = NewDisposeScope();
        Tensor half = tensor(cos, [config.MaxPositions, dimension / 2], device: device);
        cosine = cat([half, half], 1).DetachFromDisposeScope();
        half = tensor(sin, [config.MaxPositions, dimension / 2], device: device);
        sine = cat([-half, half], 1).DetachFromDisposeScope();
    }

    /// <summary>
    /// Inverse wavelengths theta^(-2i/d), i &lt; d/2, in float32 as transformers computes them; with llama3 scaling, wavelengths beyond the
    /// original context are stretched by the factor and those between the two bounds are interpolated.
    /// </summary>
    public static float[] Frequencies(ModelConfig config)
    {
        var frequencies = new float[config.RotaryDimension / 2];
        for (int i = 0; i < frequencies.Length; i++)
        {
            float frequency = 1f / MathF.Pow((float)config.RotaryTheta, 2f * i / config.RotaryDimension);
            if (config.RotaryScaling is { } scaling)
            {
                double wavelength = 2 * Math.PI / frequency;
                double longest = scaling.OriginalMaxPositions / scaling.LowFrequencyFactor;
                double shortest = scaling.OriginalMaxPositions / scaling.HighFrequencyFactor;
                if (wavelength > longest)
                {
                    frequency = (float)(frequency / scaling.Factor);
                }
                else if (wavelength >= shortest)
                {
                    double smooth = (scaling.OriginalMaxPositions / wavelength - scaling.LowFrequencyFactor)
                        / (scaling.HighFrequencyFactor - scaling.LowFrequencyFactor);
                    frequency = (float)((1 - smooth) * frequency / scaling.Factor + smooth * frequency);
                }
            }

            frequencies[i] = frequency;
        }

        return frequencies;
    }

    /// <summary>Cosine and sine of position × frequency, each (positions, d/2) row by row.</summary>
    public static (float[] Cosine, float[] Sine) Tables(float[] frequencies, int positions)
    {
        var cosine = new float[positions * frequencies.Length];
        var sine = new float[cosine.Length];
        for (int position = 0, at = 0; position < positions; position++)
        {
            foreach (float frequency in frequencies)
            {
                (sine[at], cosine[at]) = MathF.SinCos(position * frequency);
                at++;
            }
        }

        return (cosine, sine);
    }

    /// <summary>The rotation of T tokens from position <paramref name="start"/> on, the same for all rows: (T, 1, d) each.</summary>
    public (Tensor Cosine, Tensor Sine) Range(long start, long count) =>
        (cosine.narrow(0, start, count).unsqueeze(1), sine.narrow(0, start, count).unsqueeze(1));

    /// <summary>The rotation at <paramref name="positions"/> (B, T) int64: (B, T, 1, d) each.</summary>
    public (Tensor Cosine, Tensor Sine) At(Tensor positions)
    {
        long[] shape = [positions.shape[0], positions.shape[1], 1, dimension];
        Tensor flat = positions.flatten();
        return (cosine.index_select(0, flat).view(shape), sine.index_select(0, flat).view(shape));
    }

    /// <summary>Rotates the first dimensions of each head of x (B, T, H, headDimension).</summary>
    public Tensor Rotate(Tensor x, (Tensor Cosine, Tensor Sine) rotation)
    {
        long headDimension = x.shape[3];
        if (headDimension == dimension) return RotateAll(x, rotation);
        return cat([RotateAll(x.narrow(3, 0, dimension), rotation), x.narrow(3, dimension, headDimension - dimension)], 3);
    }

    private Tensor RotateAll(Tensor x, (Tensor Cosine, Tensor Sine) rotation) =>
        (x * rotation.Cosine).PlusProduct(x.roll(dimension / 2, 3), rotation.Sine);

    public void Dispose()
    {
        cosine.Dispose();
        sine.Dispose();
    }
}
