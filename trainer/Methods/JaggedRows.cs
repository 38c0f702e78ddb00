using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Numbers of response tokens as one array per episode, and the tensors made of them: padded for statistics over whole rows, flat for a
/// minibatch whose padding is left out altogether.
/// </summary>
internal static class JaggedRows
{
    /// <summary>Right-padded with 0, [rows, longest], float64 on the CPU.</summary>
    public static Tensor Padded(float[][] rows)
    {
        int time = rows.Max(row => row.Length);
        double[] padded = new double[rows.Length * time];
        for (int r = 0; r < rows.Length; r++)
        {
            for (int t = 0; t < rows[r].Length; t++)
                padded[r * time + t] = rows[r][t];
        }

        return tensor(padded, [rows.Length, time]);
    }

    /// <summary>1 on the positions that rows of these lengths have, like <see cref="Padded"/>.</summary>
    public static Tensor Mask(IReadOnlyList<int> lengths) => Padded([.. lengths.Select(length => Enumerable.Repeat(1f, length).ToArray())]);

    /// <summary>The inverse of <see cref="Padded"/>.</summary>
    public static float[][] Unpadded(Tensor padded, IReadOnlyList<int> lengths)
    {
        int time = (int)padded.shape[1];
        float[] flat = padded.ToSingles();
        return [.. lengths.Select((length, row) => flat.AsSpan(row * time, length).ToArray())];
    }

    /// <summary>The chosen rows one after the other, [tokens], float32.</summary>
    public static Tensor Flat(float[][] rows, int[] chosen, Device device) =>
        tensor(chosen.SelectMany(row => rows[row]).ToArray(), device: device);

    /// <summary>
    /// A flat tensor [tokens] as rows of these lengths, right-padded with 0, [rows, longest]; carries the gradient. Which sums come out the
    /// same to the last bit for the same rows.
    /// </summary>
    public static Tensor Rows(Tensor flat, IReadOnlyList<int> lengths)
    {
        int time = lengths.Max();
        long[] places = [.. lengths.SelectMany((length, row) => Enumerable.Range(row * time, length)).Select(place => (long)place)];
        Tensor empty = zeros(lengths.Count * time, flat.dtype, flat.device);
        return empty.scatter(0, tensor(places, device: flat.device), flat).reshape(lengths.Count, time);
    }

    /// <summary>Cuts a flat tensor [tokens] back into the chosen rows, whose lengths it follows.</summary>
    public static void Unflatten(Tensor flat, int[] chosen, IReadOnlyList<int> lengths, float[][] into)
    {
        float[] values = flat.ToSingles();
        int next = 0;
        foreach (int row in chosen)
        {
            into[row] = values[next..(next + lengths[row])];
            next += lengths[row];
        }
    }
}
