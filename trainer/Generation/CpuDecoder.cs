using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Rlhf.Spec;
using Rlhf.Trainer.Models;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Generation;

/// <summary>
/// Sampling from small models of the Llama shape on the CPU without libtorch: a tiny model's step is some hundred operations of a few
/// microseconds, of which libtorch spends most on dispatching them. Here a worker per thread keeps a set of slots busy: as soon as a row
/// ends, the next prompt takes its slot, and prompts and single tokens go through the layers together.
/// </summary>
/// <remarks>
/// The arithmetic of a row does not depend on what else is in the batch (see <see cref="PackedMatrix"/>), so neither the number of workers
/// nor the order in which rows end changes a token. Widths are padded to whole vectors; the padding holds zeros.
/// </remarks>
internal sealed unsafe class CpuDecoder : IDisposable
{
    /// <summary>Beyond this size the matrix products dominate, and libtorch's are better.</summary>
    internal const long MaxParameters = 60_000_000;

    private const int Lane = 8; // floats in a Vector256
    private const int Block = 16; // tokens whose keys lie together; heads are padded to as much

    private readonly ModelConfig config;
    private readonly int width; // hidden size, padded
    private readonly int inner; // feed-forward size, padded
    private readonly int head; // head dimension, padded
    private readonly float[] embedding; // (vocabulary, hidden size)
    private readonly Layer[] layers;
    private readonly float* finalNorm;
    private readonly PackedMatrix output;
    private readonly float[] cosine; // (positions, head dimension / 2)
    private readonly float[] sine;

    private CpuDecoder(Transformer model, int positions)
    {
        config = model.Config;
        width = RoundUp(config.HiddenSize, PackedMatrix.Padding);
        inner = RoundUp(config.IntermediateSize, PackedMatrix.Padding);
        head = RoundUp(config.HeadDimension, Block);
        using var scope = NewDisposeScope();
        Dictionary<string, Tensor> weights = model.MergedWeights().ToDictionary(w => w.Name, w => w.Value);
        WeightNames names = WeightNames.For(config.ModelType);

        embedding = Values(weights[$"{names.Embedding}.weight"]);
        layers = new Layer[config.LayerCount];
        for (int i = 0; i < layers.Length; i++) layers[i] = Pack(weights, names, $"{names.Layer}{i}.");
        finalNorm = Padded(Values(weights[$"{names.FinalNorm}.weight"]), width);
        output = new PackedMatrix(width, config.VocabularySize);
        float[] outputWeights = config.TiedEmbeddings ? embedding : Values(weights[$"{names.Head}.weight"]);
        output.Place(outputWeights, config.HiddenSize, Same, Same);
        (cosine, sine) = RotaryEmbedding.Tables(RotaryEmbedding.Frequencies(config), positions);
    }

    /// <summary>Whether this decoder can take the model's place here and is the faster one.</summary>
    public static bool Suits(Transformer model)
    {
        ModelConfig c = model.Config;
        return Vector256.IsHardwareAccelerated
            && model.Device.type == TorchSharp.DeviceType.CPU
            && model.Precision == Precision.Fp32
            && model.ParameterCount <= MaxParameters
            && c is
            {
                Head: HeadKind.LanguageModel, Norm: NormKind.RootMeanSquare, Activation: ActivationKind.Silu, GatedFeedForward: true,
                PostNorm: false, ParallelResidual: false, QueryKeyNorm: false, AttentionOutputBias: false, FeedForwardBias: false,
                SlidingWindow: null,
            }
            && c.RotaryDimension == c.HeadDimension
            && WeightNames.For(c.ModelType).Layout == QueryKeyValueLayout.Separate;
    }

    /// <summary>Continues all rows until they have ended.</summary>
    public static void Decode(Transformer model, IReadOnlyList<SamplingRow> rows, SamplingOptions options)
    {
        if (rows.Count == 0) return;
        int positions = rows.Max(r => r.Prompt.Length + r.Room);
        using var decoder = new CpuDecoder(model, positions);
        int workers = Math.Clamp(get_num_threads(), 1, rows.Count);
        int slots = Math.Clamp(options.BatchSize / workers, 1, (rows.Count + workers - 1) / workers);
        // Long prompts first: the short ones fill the gaps at the end.
        SamplingRow[] queue = [.. rows.OrderByDescending(r => r.Prompt.Length)];
        int taken = -1;
        // Threads of their own: the pool's may be busy with heartbeats and uploads.
        Task[] others = [.. Enumerable.Range(1, workers - 1).Select(_ => Task.Factory.StartNew(
            Work, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default))];
        Work();
        Task.WaitAll(others);

        void Work()
        {
            using var worker = new Worker(decoder, slots, positions, queue[0].Prompt.Length);
            worker.Run(Next, options);
        }

        SamplingRow? Next() => Interlocked.Increment(ref taken) is var i && i < queue.Length ? queue[i] : null;
    }

    public void Dispose()
    {
        foreach (Layer layer in layers) layer.Dispose();
        NativeMemory.AlignedFree(finalNorm);
        output.Dispose();
    }

    // ---- the network ----------------------------------------------------------------------------------------------------------------

    /// <summary>Runs the tokens in the worker's rows through all layers; keys and values go to the slots' caches.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Forward(Worker w)
    {
        int rows = w.Rows;
        int attention = config.HeadCount * head, keyValue = config.KeyValueHeadCount * head;
        for (int row = 0; row < rows; row++)
        {
            embedding.AsSpan(w.Tokens[row] * config.HiddenSize, config.HiddenSize)
                .CopyTo(new Span<float>(w.Stream + (long)row * width, config.HiddenSize));
        }

        for (int l = 0; l < layers.Length; l++)
        {
            Layer layer = layers[l];
            int stride = layer.QueryKeyValue.OutputStride;
            for (int row = 0; row < rows; row++)
                Normalise(w.Stream + (long)row * width, layer.AttentionNorm, w.Normed + (long)row * w.NormedStride);
            layer.QueryKeyValue.Multiply(w.Normed, w.NormedStride, rows, w.Projected, stride, add: false);
            for (int row = 0; row < rows; row++)
            {
                float* query = w.Projected + (long)row * stride;
                if (layer.Bias != null) AddTo(query, layer.Bias, stride);
                Rotate(query, config.HeadCount + config.KeyValueHeadCount, w.Positions[row]);
                w.Remember(l, w.Slots[row], w.Positions[row], query + attention, query + attention + keyValue);
            }

            for (int row = 0; row < rows; row++)
                Attend(w, l, w.Projected + (long)row * stride, w.Slots[row], w.Positions[row] + 1, w.Normed + (long)row * w.NormedStride);
            layer.AttentionOutput.Multiply(w.Normed, w.NormedStride, rows, w.Stream, width, add: true);

            for (int row = 0; row < rows; row++)
                Normalise(w.Stream + (long)row * width, layer.FeedForwardNorm, w.Normed + (long)row * w.NormedStride);
            layer.GateAndUp.Multiply(w.Normed, w.NormedStride, rows, w.Inner, 2 * inner, add: false);
            for (int row = 0; row < rows; row++) Gate(w.Inner + (long)row * 2 * inner, inner);
            layer.Down.Multiply(w.Inner, 2 * inner, rows, w.Stream, width, add: true);
        }
    }

    /// <summary>The logits of some rows, one after the other in the worker's logits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Logits(Worker w, List<int> rows)
    {
        for (int i = 0; i < rows.Count; i++)
            Normalise(w.Stream + (long)rows[i] * width, finalNorm, w.Normed + (long)i * w.NormedStride);

        output.Multiply(w.Normed, w.NormedStride, rows.Count, w.Logits, output.OutputStride, add: false);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Normalise(float* x, float* weight, float* y)
    {
        Vector256<float> even = default, odd = default;
        for (int i = 0; i < width; i += 2 * Lane)
        {
            Vector256<float> first = Vector256.Load(x + i), second = Vector256.Load(x + i + Lane);
            even = Vector256.FusedMultiplyAdd(first, first, even);
            odd = Vector256.FusedMultiplyAdd(second, second, odd);
        }

        float mean = Vector256.Sum(even + odd) / config.HiddenSize;
        Vector256<float> scale = Vector256.Create(1 / MathF.Sqrt(mean + (float)config.NormEpsilon));
        for (int i = 0; i < width; i += Lane) (Vector256.Load(x + i) * scale * Vector256.Load(weight + i)).Store(y + i);
    }

    /// <summary>Rotates the heads of query and key, which lie one after the other.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Rotate(float* heads, int count, int position)
    {
        int half = config.HeadDimension / 2;
        fixed (float* cos = &cosine[position * half], sin = &sine[position * half])
        {
            for (int h = 0; h < count; h++, heads += head)
            {
                int i = 0;
                for (; i + Lane <= half; i += Lane)
                {
                    Vector256<float> a = Vector256.Load(heads + i), b = Vector256.Load(heads + half + i);
                    Vector256<float> c = Vector256.Load(cos + i), s = Vector256.Load(sin + i);
                    (a * c - b * s).Store(heads + i);
                    (b * c + a * s).Store(heads + half + i);
                }

                for (; i < half; i++)
                {
                    (float a, float b) = (heads[i], heads[half + i]);
                    heads[i] = a * cos[i] - b * sin[i];
                    heads[half + i] = b * cos[i] + a * sin[i];
                }
            }
        }
    }

    /// <summary>Attention of one token over the first <paramref name="seen"/> tokens of its slot, all heads, into y.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Attend(Worker w, int layer, float* query, int slot, int seen, float* y)
    {
        int group = config.HeadCount / config.KeyValueHeadCount;
        Vector256<float> scale = Vector256.Create(1 / MathF.Sqrt(config.HeadDimension));
        for (int h = 0; h < config.HeadCount; h++, query += head, y += head)
        {
            Score(query, w.KeysOf(layer, slot, h / group), seen, scale, w.Scores);
            Vector256<float> share = Vector256.Create(1 / Softmax(w.Scores, seen));
            float* values = w.ValuesOf(layer, slot, h / group);
            for (int i = 0; i < head; i += Block) Mix(w.Scores, values + i, seen, share, y + i);
        }
    }

    /// <summary>Scaled products of a query with the keys, which lie transposed in blocks of 16 tokens: no sum across a vector.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Score(float* query, float* keys, int seen, Vector256<float> scale, float* scores)
    {
        int size = config.HeadDimension;
        for (int t = 0; t < seen; t += Block, keys += Block * head, scores += Block)
        {
            Vector256<float> a0 = default, a1 = default, b0 = default, b1 = default;
            float* key = keys;
            for (int i = 0; i < size; i += 2, key += 2 * Block)
            {
                Vector256<float> even = Vector256.Create(query[i]), odd = Vector256.Create(query[i + 1]);
                a0 = Vector256.FusedMultiplyAdd(even, Vector256.Load(key), a0);
                a1 = Vector256.FusedMultiplyAdd(even, Vector256.Load(key + Lane), a1);
                b0 = Vector256.FusedMultiplyAdd(odd, Vector256.Load(key + Block), b0);
                b1 = Vector256.FusedMultiplyAdd(odd, Vector256.Load(key + Block + Lane), b1);
            }

            ((a0 + b0) * scale).Store(scores);
            ((a1 + b1) * scale).Store(scores + Lane);
        }
    }

    /// <summary>Replaces scores by exp(score - highest) and returns their sum; what lies behind the last token becomes 0.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static float Softmax(float* scores, int seen)
    {
        int end = RoundUp(seen, Block);
        for (int t = seen; t < end; t++) scores[t] = float.NegativeInfinity;
        Vector256<float> highest = Vector256.Load(scores);
        for (int t = Lane; t < end; t += Lane) highest = Vector256.Max(highest, Vector256.Load(scores + t));
        Vector128<float> four = Vector128.Max(highest.GetLower(), highest.GetUpper());
        Vector256<float> maximum = Vector256.Create(MathF.Max(MathF.Max(four[0], four[1]), MathF.Max(four[2], four[3])));
        Vector256<float> sum = default;
        for (int t = 0; t < end; t += Lane)
        {
            Vector256<float> weight = Exp(Vector256.Load(scores + t) - maximum);
            weight.Store(scores + t);
            sum += weight;
        }

        return Vector256.Sum(sum);
    }

    /// <summary>Sixteen dimensions of the values' mean under the weights.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Mix(float* weights, float* values, int seen, Vector256<float> share, float* y)
    {
        Vector256<float> a0 = default, a1 = default, b0 = default, b1 = default, c0 = default, c1 = default, d0 = default, d1 = default;
        float* second = values + head, third = second + head, fourth = third + head;
        int t = 0;
        for (long at = 0; t + 4 <= seen; t += 4, at += 4 * head)
        {
            Vector256<float> weight = Vector256.Create(weights[t]);
            a0 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(values + at), a0);
            a1 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(values + at + Lane), a1);
            weight = Vector256.Create(weights[t + 1]);
            b0 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(second + at), b0);
            b1 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(second + at + Lane), b1);
            weight = Vector256.Create(weights[t + 2]);
            c0 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(third + at), c0);
            c1 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(third + at + Lane), c1);
            weight = Vector256.Create(weights[t + 3]);
            d0 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(fourth + at), d0);
            d1 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(fourth + at + Lane), d1);
        }

        for (; t < seen; t++)
        {
            Vector256<float> weight = Vector256.Create(weights[t]);
            a0 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(values + (long)t * head), a0);
            a1 = Vector256.FusedMultiplyAdd(weight, Vector256.Load(values + (long)t * head + Lane), a1);
        }

        (((a0 + b0) + (c0 + d0)) * share).Store(y);
        (((a1 + b1) + (c1 + d1)) * share).Store(y + Lane);
    }

    /// <summary>SwiGLU: the first half of x becomes silu(first half) · second half.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Gate(float* x, int size)
    {
        for (int i = 0; i < size; i += Lane)
        {
            Vector256<float> gate = Vector256.Load(x + i);
            (gate / (Vector256<float>.One + Exp(-gate)) * Vector256.Load(x + size + i)).Store(x + i);
        }
    }

    /// <summary>
    /// e^x to about one unit in the last place, for x up to 88; far below zero it is 0. The polynomial is Cephes' expf: Vector256.Exp goes
    /// through double precision and takes six times as long.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static Vector256<float> Exp(Vector256<float> x)
    {
        Vector256<float> lowest = Vector256.Create(-87.3f);
        Vector256<float> inside = Vector256.GreaterThan(x, lowest);
        x = Vector256.Min(Vector256.Max(x, lowest), Vector256.Create(88f));
        // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts keeps r exact.
        Vector256<float> n = Vector256.Round(x * Vector256.Create(1.44269504f));
        Vector256<float> r = Vector256.FusedMultiplyAdd(n, Vector256.Create(-0.693359375f), x);
        r = Vector256.FusedMultiplyAdd(n, Vector256.Create(2.12194440e-4f), r);
        Vector256<float> p = Vector256.Create(1.9875691500e-4f);
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(1.3981999507e-3f));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(8.3334519073e-3f));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(4.1665795894e-2f));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(1.6666665459e-1f));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(0.5f));
        p = Vector256.FusedMultiplyAdd(p, r * r, r) + Vector256<float>.One;
        Vector256<int> exponent = Vector256.ConvertToInt32(n) + Vector256.Create(127);
        return p * Vector256.ShiftLeft(exponent, 23).AsSingle() & inside;
    }

    private static void AddTo(float* x, float* bias, int size)
    {
        for (int i = 0; i < size; i += Lane) (Vector256.Load(x + i) + Vector256.Load(bias + i)).Store(x + i);
    }

    // ---- choosing a token -----------------------------------------------------------------------------------------------------------

    /// <summary>The token of the highest logit, or the one a uniform number selects from softmax(logits / temperature).</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static int Choose(float* logits, int count, double temperature, double uniform)
    {
        int best = 0;
        for (int v = 1; v < count; v++)
        {
            if (logits[v] > logits[best]) best = v;
        }

        if (temperature == 0) return best;

        // The rows of logits are padded to whole vectors; what lies behind the vocabulary is not added up.
        Vector256<float> highest = Vector256.Create(logits[best]), inverse = Vector256.Create((float)(1 / temperature));
        for (int v = 0; v < count; v += Lane) Exp((Vector256.Load(logits + v) - highest) * inverse).Store(logits + v);
        double total = 0;
        for (int v = 0; v < count; v++) total += logits[v];

        double target = uniform * total, cumulative = 0;
        for (int v = 0; v < count; v++)
        {
            cumulative += logits[v];
            if (cumulative > target) return v;
        }

        return count - 1;
    }

    // ---- weights --------------------------------------------------------------------------------------------------------------------

    private Layer Pack(Dictionary<string, Tensor> weights, WeightNames names, string prefix)
    {
        ModelConfig c = config;
        int queries = c.HeadCount * head, keyValues = c.KeyValueHeadCount * head;
        var queryKeyValue = new PackedMatrix(width, queries + 2 * keyValues);
        float* bias = c.QueryKeyValueBias ? NativeFloats.Allocate(queryKeyValue.OutputStride) : null;
        foreach ((string name, int offset) in names.QueryKeyValue.Zip([0, queries, queries + keyValues]))
        {
            queryKeyValue.Place(Values(weights[$"{prefix}{name}.weight"]), c.HiddenSize, o => offset + InHeads(o), Same);
            if (bias == null) continue;
            foreach ((int o, float value) in Values(weights[$"{prefix}{name}.bias"]).Index()) bias[offset + InHeads(o)] = value;
        }

        var attentionOutput = new PackedMatrix(queries, c.HiddenSize);
        attentionOutput.Place(Values(weights[$"{prefix}{names.AttentionOutput}.weight"]), c.HeadCount * c.HeadDimension, Same, InHeads);
        var gateAndUp = new PackedMatrix(width, 2 * inner);
        gateAndUp.Place(Values(weights[$"{prefix}{names.Gate}.weight"]), c.HiddenSize, Same, Same);
        gateAndUp.Place(Values(weights[$"{prefix}{names.Up}.weight"]), c.HiddenSize, o => inner + o, Same);
        var down = new PackedMatrix(inner, c.HiddenSize);
        down.Place(Values(weights[$"{prefix}{names.Down}.weight"]), c.IntermediateSize, Same, Same);
        return new Layer(
            queryKeyValue, bias, attentionOutput, gateAndUp, down,
            Padded(Values(weights[$"{prefix}{names.AttentionNorm}.weight"]), width),
            Padded(Values(weights[$"{prefix}{names.FeedForwardNorm}.weight"]), width));
    }

    private int InHeads(int index) => index / config.HeadDimension * head + index % config.HeadDimension;

    private static int Same(int index) => index;

    private static int RoundUp(int value, int multiple) => (value + multiple - 1) / multiple * multiple;

    private static float[] Values(Tensor weight)
    {
        using Tensor plain = weight.detach();
        using Tensor contiguous = plain.contiguous();
        return MemoryMarshal.Cast<byte, float>(contiguous.bytes).ToArray();
    }

    private static float* Padded(float[] values, int size)
    {
        float* padded = NativeFloats.Allocate(size);
        values.CopyTo(new Span<float>(padded, size));
        return padded;
    }

    private sealed class Layer(
        PackedMatrix queryKeyValue, float* bias, PackedMatrix attentionOutput, PackedMatrix gateAndUp, PackedMatrix down,
        float* attentionNorm, float* feedForwardNorm) : IDisposable
    {
        public PackedMatrix QueryKeyValue { get; } = queryKeyValue;

        public float* Bias { get; } = bias;

        public PackedMatrix AttentionOutput { get; } = attentionOutput;

        public PackedMatrix GateAndUp { get; } = gateAndUp;

        public PackedMatrix Down { get; } = down;

        public float* AttentionNorm { get; } = attentionNorm;

        public float* FeedForwardNorm { get; } = feedForwardNorm;

        public void Dispose()
        {
            QueryKeyValue.Dispose();
            AttentionOutput.Dispose();
            GateAndUp.Dispose();
            Down.Dispose();
            NativeMemory.AlignedFree(Bias);
            NativeMemory.AlignedFree(AttentionNorm);
            NativeMemory.AlignedFree(FeedForwardNorm);
        }
    }

    /// <summary>One thread's rows, buffers and caches.</summary>
    private sealed class Worker : IDisposable
    {
        private readonly CpuDecoder decoder;
        private readonly SamplingRow?[] occupants;
        private readonly int positions; // of a slot, a whole number of blocks
        private readonly int maxRows;
        private readonly float* keys; // [layer][slot][key/value head][block of 16 tokens][dimension][16]
        private readonly float* values; // [layer][slot][key/value head][token][dimension]

        public Worker(CpuDecoder decoder, int slots, int positions, int longestPrompt)
        {
            this.decoder = decoder;
            ModelConfig c = decoder.config;
            occupants = new SamplingRow?[slots];
            this.positions = RoundUp(positions, Block);
            maxRows = Math.Max(longestPrompt, 64) + slots;
            Tokens = new int[maxRows];
            Slots = new int[maxRows];
            Positions = new int[maxRows];
            NormedStride = Math.Max(decoder.width, c.HeadCount * decoder.head);
            Stream = NativeFloats.Allocate((long)maxRows * decoder.width);
            Normed = NativeFloats.Allocate((long)maxRows * NormedStride);
            Projected = NativeFloats.Allocate((long)maxRows * decoder.layers[0].QueryKeyValue.OutputStride);
            Inner = NativeFloats.Allocate((long)maxRows * 2 * decoder.inner);
            Logits = NativeFloats.Allocate((long)slots * decoder.output.OutputStride);
            Scores = NativeFloats.Allocate(this.positions);
            long cache = (long)c.LayerCount * slots * c.KeyValueHeadCount * this.positions * decoder.head;
            keys = NativeFloats.Allocate(cache);
            values = NativeFloats.Allocate(cache);
        }

        public int Rows { get; private set; }

        public int[] Tokens { get; }

        public int[] Slots { get; }

        public int[] Positions { get; }

        /// <summary>The residual stream (rows, width).</summary>
        public float* Stream { get; }

        /// <summary>Normalised rows, or what attention has mixed.</summary>
        public float* Normed { get; }

        public int NormedStride { get; }

        public float* Projected { get; }

        public float* Inner { get; }

        public float* Logits { get; }

        public float* Scores { get; }

        /// <summary>Decodes until <paramref name="next"/> has no more rows and all slots are empty.</summary>
        public void Run(Func<SamplingRow?> next, SamplingOptions options)
        {
            SamplingRow? waiting = next();
            var last = new List<int>(); // the row of each slot's newest token
            var occupied = new List<int>();
            while (true)
            {
                Rows = 0;
                last.Clear();
                occupied.Clear();
                for (int slot = 0; slot < occupants.Length; slot++)
                {
                    if (occupants[slot] is not { } row) continue;
                    AddRow(row.New[^1], slot, row.Prompt.Length + row.New.Count - 1);
                    last.Add(Rows - 1);
                    occupied.Add(slot);
                }

                for (int slot = 0; slot < occupants.Length && waiting is not null && Rows + waiting.Prompt.Length <= maxRows; slot++)
                {
                    if (occupants[slot] is not null) continue;
                    occupants[slot] = waiting;
                    for (int t = 0; t < waiting.Prompt.Length; t++) AddRow(waiting.Prompt[t], slot, t);
                    last.Add(Rows - 1);
                    occupied.Add(slot);
                    waiting = next();
                }

                if (Rows == 0) return;
                decoder.Forward(this);
                decoder.Logits(this, last);
                for (int i = 0; i < occupied.Count; i++)
                {
                    SamplingRow row = occupants[occupied[i]]!;
                    float* logits = Logits + (long)i * decoder.output.OutputStride;
                    double uniform = CounterRandom.Uniform(options.Seed, row.Id, row.New.Count);
                    row.Add(Choose(logits, decoder.config.VocabularySize, options.Temperature, uniform), options);
                    if (row.Ended) occupants[occupied[i]] = null;
                }
            }
        }

        public float* KeysOf(int layer, int slot, int head) => keys + CacheOffset(layer, slot, head);

        public float* ValuesOf(int layer, int slot, int head) => values + CacheOffset(layer, slot, head);

        /// <summary>Stores key and value (all heads, one after the other) of a slot's token.</summary>
        public void Remember(int layer, int slot, int position, float* key, float* value)
        {
            int size = decoder.head;
            for (int h = 0; h < decoder.config.KeyValueHeadCount; h++, key += size, value += size)
            {
                float* block = KeysOf(layer, slot, h) + (long)(position / Block) * Block * size + position % Block;
                for (int i = 0; i < size; i++) block[i * Block] = key[i];
                new ReadOnlySpan<float>(value, size).CopyTo(new Span<float>(ValuesOf(layer, slot, h) + (long)position * size, size));
            }
        }

        public void Dispose()
        {
            NativeMemory.AlignedFree(Stream);
            NativeMemory.AlignedFree(Normed);
            NativeMemory.AlignedFree(Projected);
            NativeMemory.AlignedFree(Inner);
            NativeMemory.AlignedFree(Logits);
            NativeMemory.AlignedFree(Scores);
            NativeMemory.AlignedFree(keys);
            NativeMemory.AlignedFree(values);
        }

        private long CacheOffset(int layer, int slot, int head) =>
            (((long)layer * occupants.Length + slot) * decoder.config.KeyValueHeadCount + head) * positions * decoder.head;

        private void AddRow(int token, int slot, int position)
        {
            Tokens[Rows] = token;
            Slots[Rows] = slot;
            Positions[Rows] = position;
            Rows++;
        }
    }
}
