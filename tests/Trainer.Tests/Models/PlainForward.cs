using System.Runtime.InteropServices;
using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>
/// The same networks once more, in double precision and plain loops, one sequence at a time: a second opinion for configurations that no
/// fixture covers. Written from the papers and from transformers' modelling code, not from <see cref="Transformer"/>.
/// </summary>
internal sealed class PlainForward(Transformer model)
{
    private readonly ModelConfig c = model.Config;

    private readonly Dictionary<string, float[]> weights =
        model.NamedWeights().ToDictionary(w => w.Name, w => MemoryMarshal.Cast<byte, float>(w.Value.bytes).ToArray());

    /// <summary>Logits (time, vocabulary).</summary>
    public double[][] Logits(int[] ids)
    {
        bool opt = c.ModelType == "opt", neox = c.ModelType == "gpt_neox", gpt2 = c.ModelType == "gpt2";
        string root = opt ? "model.decoder." : neox ? "gpt_neox." : gpt2 ? "transformer." : "model.";
        string table = opt || !(neox || gpt2) ? "embed_tokens" : neox ? "embed_in" : "wte";
        float[] embedding = weights[$"{root}{table}.weight"];
        double[][] x = [.. ids.Select(id => Slice(embedding, id, c.EmbeddingDimension))];
        if (c.EmbeddingDimension != c.HiddenSize) x = [.. x.Select(row => Matrix(row, $"{root}project_in"))];
        if (opt || gpt2)
        {
            float[] positions = weights[gpt2 ? "transformer.wpe.weight" : "model.decoder.embed_positions.weight"];
            x = [.. x.Select((row, t) => Sum(row, Slice(positions, t + (opt ? 2 : 0), c.HiddenSize)))];
        }

        for (int layer = 0; layer < c.LayerCount; layer++) x = Layer(x, $"{root}{(gpt2 ? "h" : "layers")}.{layer}.");
        string norm = opt || neox ? "final_layer_norm" : gpt2 ? "ln_f" : "norm";
        if (weights.ContainsKey($"{root}{norm}.weight")) x = [.. x.Select(row => Norm(row, root + norm))];
        if (c.EmbeddingDimension != c.HiddenSize) x = [.. x.Select(row => Matrix(row, $"{root}project_out"))];
        float[] head = c.TiedEmbeddings ? embedding : weights[neox ? "embed_out.weight" : "lm_head.weight"];
        return [.. x.Select(row => Enumerable.Range(0, c.VocabularySize).Select(v => Dot(row, Slice(head, v, row.Length))).ToArray())];
    }

    private double[][] Layer(double[][] x, string p)
    {
        switch (c.ModelType)
        {
            case "opt" when c.PostNorm:
                x = Map(Sum(x, Attention(x, p)), row => Norm(row, p + "self_attn_layer_norm"));
                return Map(Sum(x, Map(x, row => FeedForward(row, p + "fc1", p + "fc2"))), row => Norm(row, p + "final_layer_norm"));
            case "opt":
                x = Sum(x, Attention(Map(x, row => Norm(row, p + "self_attn_layer_norm")), p));
                return Sum(x, Map(x, row => FeedForward(Norm(row, p + "final_layer_norm"), p + "fc1", p + "fc2")));
            case "gpt2":
                x = Sum(x, Attention(Map(x, row => Norm(row, p + "ln_1")), p));
                return Sum(x, Map(x, row => FeedForward(Norm(row, p + "ln_2"), p + "mlp.c_fc", p + "mlp.c_proj")));
            case "gpt_neox":
                double[][] after = Sum(x, Attention(Map(x, row => Norm(row, p + "input_layernorm")), p));
                double[][] source = c.ParallelResidual ? x : after;
                return Sum(after, Map(source, row => FeedForward(
                    Norm(row, p + "post_attention_layernorm"), p + "mlp.dense_h_to_4h", p + "mlp.dense_4h_to_h")));
            default:
                x = Sum(x, Attention(Map(x, row => Norm(row, p + "input_layernorm")), p));
                return Sum(x, Map(x, row =>
                {
                    double[] normed = Norm(row, p + "post_attention_layernorm");
                    double[] gate = Matrix(normed, p + "mlp.gate_proj"), up = Matrix(normed, p + "mlp.up_proj");
                    return Matrix([.. gate.Zip(up, (g, u) => g / (1 + Math.Exp(-g)) * u)], p + "mlp.down_proj");
                }));
        }
    }

    private double[][] Attention(double[][] x, string p)
    {
        int size = c.HeadDimension;
        var query = new double[x.Length][][];
        var key = new double[x.Length][][];
        var value = new double[x.Length][][];
        for (int t = 0; t < x.Length; t++)
        {
            (query[t], key[t], value[t]) = c.ModelType switch
            {
                "gpt2" => Stacked(Matrix(x[t], p + "attn.c_attn").Chunk(size).ToArray()),
                "gpt_neox" => PerHead(Matrix(x[t], p + "attention.query_key_value").Chunk(size).ToArray()),
                _ => (Heads("q"), Heads("k"), Heads("v")),
            };
            if (c.QueryKeyNorm)
            {
                query[t] = Map(query[t], head => Norm(head, p + "self_attn.q_norm"));
                key[t] = Map(key[t], head => Norm(head, p + "self_attn.k_norm"));
            }

            int position = t;
            query[t] = Map(query[t], head => Rotate(head, position));
            key[t] = Map(key[t], head => Rotate(head, position));

            double[][] Heads(string name) => Matrix(x[position = t], $"{p}self_attn.{name}_proj").Chunk(size).ToArray();
        }

        string output = c.ModelType switch
        {
            "gpt2" => "attn.c_proj",
            "gpt_neox" => "attention.dense",
            "opt" => "self_attn.out_proj",
            _ => "self_attn.o_proj",
        };
        return [.. Enumerable.Range(0, x.Length).Select(t =>
        {
            var mixed = new List<double>();
            for (int h = 0; h < c.HeadCount; h++)
            {
                int shared = h / (c.HeadCount / c.KeyValueHeadCount), first = c.SlidingWindow is { } w ? Math.Max(0, t - w + 1) : 0;
                double[] scores = [.. Enumerable.Range(first, t - first + 1)
                    .Select(s => Math.Exp(Dot(query[t][h], key[s][shared]) / Math.Sqrt(size)))];
                for (int i = 0; i < size; i++) mixed.Add(scores.Select((s, at) => s * value[first + at][shared][i]).Sum() / scores.Sum());
            }

            return Matrix([.. mixed], p + output);
        })];

        (double[][], double[][], double[][]) Stacked(double[][] heads)
        {
            int n = c.HeadCount;
            return (heads[..n], heads[n..(2 * n)], heads[(2 * n)..]);
        }

        (double[][], double[][], double[][]) PerHead(double[][] heads) => (
            [.. heads.Where((_, i) => i % 3 == 0)], [.. heads.Where((_, i) => i % 3 == 1)], [.. heads.Where((_, i) => i % 3 == 2)]);
    }

    private double[] Rotate(double[] head, int position)
    {
        double[] rotated = [.. head];
        int half = c.RotaryDimension / 2;
        for (int i = 0; i < half; i++)
        {
            (double sine, double cosine) = Math.SinCos(position * Frequency(i));
            rotated[i] = head[i] * cosine - head[i + half] * sine;
            rotated[i + half] = head[i + half] * cosine + head[i] * sine;
        }

        return rotated;
    }

    private double Frequency(int i)
    {
        double frequency = Math.Pow(c.RotaryTheta, -2.0 * i / c.RotaryDimension);
        if (c.RotaryScaling is not { } s) return frequency;
        // Llama 3: full turns in the original context decide; few of them are slowed down, between the bounds by degrees.
        double turns = s.OriginalMaxPositions * frequency / (2 * Math.PI);
        double kept = Math.Clamp((turns - s.LowFrequencyFactor) / (s.HighFrequencyFactor - s.LowFrequencyFactor), 0, 1);
        return frequency * (kept + (1 - kept) / s.Factor);
    }

    private double[] FeedForward(double[] x, string up, string down) => Matrix([.. Matrix(x, up).Select(v => c.Activation switch
    {
        ActivationKind.Relu => Math.Max(v, 0),
        ActivationKind.GeluTanh => 0.5 * v * (1 + Math.Tanh(Math.Sqrt(2 / Math.PI) * (v + 0.044715 * v * v * v))),
        _ => v * NormalDistribution(v),
    })], down);

    /// <summary>The distribution function of the standard normal, by its series.</summary>
    private static double NormalDistribution(double x)
    {
        double term = x, sum = x;
        for (int n = 1; Math.Abs(term) > 1e-17 && n < 400; n++) sum += term *= x * x / (2 * n + 1);
        return 0.5 + sum * Math.Exp(-x * x / 2) / Math.Sqrt(2 * Math.PI);
    }

    private double[] Norm(double[] x, string name)
    {
        float[] weight = weights[name + ".weight"];
        if (c.Norm == NormKind.RootMeanSquare)
        {
            double scale = 1 / Math.Sqrt(x.Average(v => v * v) + c.NormEpsilon);
            return [.. x.Select((v, i) => v * scale * weight[i])];
        }

        double mean = x.Average(), deviation = Math.Sqrt(x.Average(v => (v - mean) * (v - mean)) + c.NormEpsilon);
        return [.. x.Select((v, i) => (v - mean) / deviation * weight[i] + weights[name + ".bias"][i])];
    }

    private double[] Matrix(double[] x, string name)
    {
        float[] weight = weights[name + ".weight"];
        float[]? bias = weights.GetValueOrDefault(name + ".bias");
        int outputs = weight.Length / x.Length;
        bool transposed = c.ModelType == "gpt2";
        return [.. Enumerable.Range(0, outputs).Select(o =>
            x.Select((v, i) => v * weight[transposed ? i * outputs + o : o * x.Length + i]).Sum() + (bias?[o] ?? 0))];
    }

    private static double[] Slice(float[] table, int row, int width) =>
        [.. table.AsSpan(row * width, width).ToArray().Select(v => (double)v)];

    private static double Dot(double[] a, double[] b) => a.Zip(b, (x, y) => x * y).Sum();

    private static double[] Sum(double[] a, double[] b) => [.. a.Zip(b, (x, y) => x + y)];

    private static double[][] Sum(double[][] a, double[][] b) => [.. a.Zip(b, Sum)];

    private static double[][] Map(double[][] rows, Func<double[], double[]> f) => [.. rows.Select(f)];
}
