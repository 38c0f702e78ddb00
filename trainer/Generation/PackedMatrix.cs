using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Rlhf.Trainer.Generation;

/// <summary>
/// A weight matrix laid out for products with few rows: panels of 16 output columns, each panel input by input, so that the inner loop
/// reads memory in order. Every product adds up its inputs in the same order whatever the number of rows, so that a row's result does not
/// depend on the rows it is computed with.
/// </summary>
internal sealed unsafe class PackedMatrix : IDisposable
{
    /// <summary>The padding of inputs and outputs: two panels, which processors with 512-bit vectors take together.</summary>
    public const int Padding = 2 * PanelWidth;

    private const int PanelWidth = 16;
    private const int Half = 8; // floats in a Vector256
    private const int RowBlock256 = 6; // 12 accumulators, 2 weights and a factor fill the 16 registers of AVX2
    private const int RowBlock512 = 8;

    private readonly float* panels; // [panel][input][16]
    private readonly int inputs;
    private readonly int panelCount;
    private readonly long panelSize;

    /// <summary>A matrix of zeros; <see cref="Place"/> fills it.</summary>
    public PackedMatrix(int inputs, int outputs)
    {
        this.inputs = inputs;
        panelCount = (outputs + Padding - 1) / Padding * 2;
        panelSize = (long)inputs * PanelWidth;
        panels = NativeFloats.Allocate(panelCount * panelSize);
    }

    /// <summary>Columns of the product: the outputs with their padding.</summary>
    public int OutputStride => panelCount * PanelWidth;

    /// <summary>Puts a weight (outputs × inputs, row by row) into the places that the two maps name.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Place(ReadOnlySpan<float> weight, int weightInputs, Func<int, int> outputPlace, Func<int, int> inputPlace)
    {
        int[] places = [.. Enumerable.Range(0, weightInputs).Select(inputPlace)];
        for (int output = 0; output * weightInputs < weight.Length; output++)
        {
            int column = outputPlace(output);
            float* panel = panels + column / PanelWidth * panelSize + column % PanelWidth;
            ReadOnlySpan<float> row = weight.Slice(output * weightInputs, weightInputs);
            for (int input = 0; input < row.Length; input++) panel[places[input] * PanelWidth] = row[input];
        }
    }

    /// <summary>
    /// y (rows × <see cref="OutputStride"/>) = x (rows × inputs) times the matrix, or added to y. The strides count floats from row to row.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Multiply(float* x, int xStride, int rows, float* y, int yStride, bool add)
    {
        if (rows <= 2)
        {
            for (int row = 0; row < rows; row++) MultiplyRow(x + (long)row * xStride, y + (long)row * yStride, add);
            return;
        }

        // A panel stays in the first-level cache while all rows pass.
        bool wide = Vector512.IsHardwareAccelerated;
        int block = wide ? RowBlock512 : RowBlock256, step = wide ? 2 : 1;
        for (int panel = 0; panel < panelCount; panel += step)
        {
            float* weight = panels + panel * panelSize, to = y + panel * PanelWidth;
            for (int row = 0; row < rows; row += block)
            {
                int count = Math.Min(block, rows - row);
                if (wide) MultiplyBlock512(weight, x + (long)row * xStride, xStride, count, to + (long)row * yStride, yStride, add);
                else MultiplyBlock256(weight, x + (long)row * xStride, xStride, count, to + (long)row * yStride, yStride, add);
            }
        }
    }

    /// <summary>Up to six rows of one panel; where there are fewer, the first row stands in for the others.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void MultiplyBlock256(float* weight, float* x, int xStride, int rows, float* y, int yStride, bool add)
    {
        float* x1 = rows > 1 ? x + xStride : x, x2 = rows > 2 ? x + 2 * xStride : x, x3 = rows > 3 ? x + 3 * xStride : x;
        float* x4 = rows > 4 ? x + 4 * xStride : x, x5 = rows > 5 ? x + 5 * xStride : x;
        Vector256<float> a0 = default, a1 = default, b0 = default, b1 = default, c0 = default, c1 = default;
        Vector256<float> d0 = default, d1 = default, e0 = default, e1 = default, f0 = default, f1 = default;
        for (long k = 0; k < inputs; k++, weight += PanelWidth)
        {
            Vector256<float> left = Vector256.Load(weight), right = Vector256.Load(weight + Half);
            Vector256<float> value = Vector256.Create(x[k]);
            a0 = Vector256.FusedMultiplyAdd(value, left, a0);
            a1 = Vector256.FusedMultiplyAdd(value, right, a1);
            value = Vector256.Create(x1[k]);
            b0 = Vector256.FusedMultiplyAdd(value, left, b0);
            b1 = Vector256.FusedMultiplyAdd(value, right, b1);
            value = Vector256.Create(x2[k]);
            c0 = Vector256.FusedMultiplyAdd(value, left, c0);
            c1 = Vector256.FusedMultiplyAdd(value, right, c1);
            value = Vector256.Create(x3[k]);
            d0 = Vector256.FusedMultiplyAdd(value, left, d0);
            d1 = Vector256.FusedMultiplyAdd(value, right, d1);
            value = Vector256.Create(x4[k]);
            e0 = Vector256.FusedMultiplyAdd(value, left, e0);
            e1 = Vector256.FusedMultiplyAdd(value, right, e1);
            value = Vector256.Create(x5[k]);
            f0 = Vector256.FusedMultiplyAdd(value, left, f0);
            f1 = Vector256.FusedMultiplyAdd(value, right, f1);
        }

        Store(y, a0, a1, add);
        if (rows > 1) Store(y + yStride, b0, b1, add);
        if (rows > 2) Store(y + 2 * yStride, c0, c1, add);
        if (rows > 3) Store(y + 3 * yStride, d0, d1, add);
        if (rows > 4) Store(y + 4 * yStride, e0, e1, add);
        if (rows > 5) Store(y + 5 * yStride, f0, f1, add);
    }

    /// <summary>Up to eight rows of two panels, for processors with 512-bit vectors.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void MultiplyBlock512(float* weight, float* x, int xStride, int rows, float* y, int yStride, bool add)
    {
        float* x1 = rows > 1 ? x + xStride : x, x2 = rows > 2 ? x + 2 * xStride : x, x3 = rows > 3 ? x + 3 * xStride : x;
        float* x4 = rows > 4 ? x + 4 * xStride : x, x5 = rows > 5 ? x + 5 * xStride : x, x6 = rows > 6 ? x + 6 * xStride : x;
        float* x7 = rows > 7 ? x + 7 * xStride : x, second = weight + panelSize;
        Vector512<float> a0 = default, a1 = default, b0 = default, b1 = default, c0 = default, c1 = default, d0 = default, d1 = default;
        Vector512<float> e0 = default, e1 = default, f0 = default, f1 = default, g0 = default, g1 = default, h0 = default, h1 = default;
        for (long k = 0; k < inputs; k++, weight += PanelWidth, second += PanelWidth)
        {
            Vector512<float> left = Vector512.Load(weight), right = Vector512.Load(second);
            Vector512<float> value = Vector512.Create(x[k]);
            a0 = Vector512.FusedMultiplyAdd(value, left, a0);
            a1 = Vector512.FusedMultiplyAdd(value, right, a1);
            value = Vector512.Create(x1[k]);
            b0 = Vector512.FusedMultiplyAdd(value, left, b0);
            b1 = Vector512.FusedMultiplyAdd(value, right, b1);
            value = Vector512.Create(x2[k]);
            c0 = Vector512.FusedMultiplyAdd(value, left, c0);
            c1 = Vector512.FusedMultiplyAdd(value, right, c1);
            value = Vector512.Create(x3[k]);
            d0 = Vector512.FusedMultiplyAdd(value, left, d0);
            d1 = Vector512.FusedMultiplyAdd(value, right, d1);
            value = Vector512.Create(x4[k]);
            e0 = Vector512.FusedMultiplyAdd(value, left, e0);
            e1 = Vector512.FusedMultiplyAdd(value, right, e1);
            value = Vector512.Create(x5[k]);
            f0 = Vector512.FusedMultiplyAdd(value, left, f0);
            f1 = Vector512.FusedMultiplyAdd(value, right, f1);
            value = Vector512.Create(x6[k]);
            g0 = Vector512.FusedMultiplyAdd(value, left, g0);
            g1 = Vector512.FusedMultiplyAdd(value, right, g1);
            value = Vector512.Create(x7[k]);
            h0 = Vector512.FusedMultiplyAdd(value, left, h0);
            h1 = Vector512.FusedMultiplyAdd(value, right, h1);
        }

        Store(y, a0, a1, add);
        if (rows > 1) Store(y + yStride, b0, b1, add);
        if (rows > 2) Store(y + 2 * yStride, c0, c1, add);
        if (rows > 3) Store(y + 3 * yStride, d0, d1, add);
        if (rows > 4) Store(y + 4 * yStride, e0, e1, add);
        if (rows > 5) Store(y + 5 * yStride, f0, f1, add);
        if (rows > 6) Store(y + 6 * yStride, g0, g1, add);
        if (rows > 7) Store(y + 7 * yStride, h0, h1, add);
    }

    /// <summary>One row: four panels side by side where there are four, or the processor would wait for each sum.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void MultiplyRow(float* x, float* y, bool add)
    {
        int panel = 0;
        for (; panel + 4 <= panelCount; panel += 4, y += 4 * PanelWidth)
        {
            Vector256<float> a0 = default, a1 = default, b0 = default, b1 = default, c0 = default, c1 = default, d0 = default, d1 = default;
            float* first = panels + panel * panelSize, second = first + panelSize, third = second + panelSize, fourth = third + panelSize;
            for (long k = 0, at = 0; k < inputs; k++, at += PanelWidth)
            {
                Vector256<float> value = Vector256.Create(x[k]);
                a0 = Vector256.FusedMultiplyAdd(value, Vector256.Load(first + at), a0);
                a1 = Vector256.FusedMultiplyAdd(value, Vector256.Load(first + at + Half), a1);
                b0 = Vector256.FusedMultiplyAdd(value, Vector256.Load(second + at), b0);
                b1 = Vector256.FusedMultiplyAdd(value, Vector256.Load(second + at + Half), b1);
                c0 = Vector256.FusedMultiplyAdd(value, Vector256.Load(third + at), c0);
                c1 = Vector256.FusedMultiplyAdd(value, Vector256.Load(third + at + Half), c1);
                d0 = Vector256.FusedMultiplyAdd(value, Vector256.Load(fourth + at), d0);
                d1 = Vector256.FusedMultiplyAdd(value, Vector256.Load(fourth + at + Half), d1);
            }

            Store(y, a0, a1, add);
            Store(y + PanelWidth, b0, b1, add);
            Store(y + 2 * PanelWidth, c0, c1, add);
            Store(y + 3 * PanelWidth, d0, d1, add);
        }

        for (; panel < panelCount; panel++, y += PanelWidth)
            MultiplyBlock256(panels + panel * panelSize, x, 0, 1, y, 0, add);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(float* y, Vector256<float> left, Vector256<float> right, bool add)
    {
        if (add)
        {
            left += Vector256.Load(y);
            right += Vector256.Load(y + Half);
        }

        left.Store(y);
        right.Store(y + Half);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(float* y, Vector512<float> left, Vector512<float> right, bool add)
    {
        if (add)
        {
            left += Vector512.Load(y);
            right += Vector512.Load(y + PanelWidth);
        }

        left.Store(y);
        right.Store(y + PanelWidth);
    }

    public void Dispose() => NativeMemory.AlignedFree(panels);
}

/// <summary>Zeroed memory at cache-line boundaries; freed with <see cref="NativeMemory.AlignedFree"/>.</summary>
internal static unsafe class NativeFloats
{
    private const int CacheLine = 64;

    public static float* Allocate(long count)
    {
        nuint bytes = (nuint)count * sizeof(float);
        void* memory = NativeMemory.AlignedAlloc(bytes, CacheLine);
        NativeMemory.Clear(memory, bytes);
        return (float*)memory;
    }
}
