using System.Globalization;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;

namespace Rlhf.Bench;

/// <summary>The decoder in C# against one libtorch operation after the other, on the same prompts, to the same tokens.</summary>
internal static class Sampling
{
    private const int PromptTokens = 16;
    private const int NewTokens = 48;

    public static void Run(TextWriter page, ModelSize[] sizes)
    {
        page.WriteLine(
            $"""
            ## Sampling

            {NewTokens} tokens after prompts of {PromptTokens}, at temperature 1, all rows of a batch at once. Both decoders give the same
            tokens, or this program stops. A new token counts as two operations a weight; the prompt's work and the packing of weights are
            in the time.

            | parameters | batch | C#, tokens/s | libtorch, tokens/s | ratio | ratio per CPU second | C# of the matrix peak | peak MiB |
            |---:|---:|---:|---:|---:|---:|---:|---:|
            """);
        foreach (ModelSize size in sizes)
        {
            using Transformer model = size.Create();
            foreach (int batch in (int[])[1, 8, 64])
            {
                Machine.ResetPeakMemory();
                double peak = Machine.MatrixPeak();
                int[][] prompts = size.Rows(batch, PromptTokens);
                var options = new SamplingOptions { MaxNewTokens = NewTokens, EosId = -1, Seed = 3, BatchSize = batch };
                if (!CpuDecoder.Suits(model)) throw new InvalidOperationException($"The decoder does not take the {size.Name} model.");
                var decoder = new Measured();
                var libtorch = new Measured();
                // In turn, so that other load on the machine meets both; the first round warms up.
                for (int round = 0; round < (batch * model.ParameterCount > 1_000_000_000 ? 3 : 6); round++)
                {
                    int[][] tokens = decoder.Time(round, rows => CpuDecoder.Decode(model, rows, options), prompts);
                    int[][] expected = libtorch.Time(round, rows => Sampler.DecodeWithLibtorch(model, rows, options), prompts);
                    if (!tokens.Zip(expected).All(pair => pair.First.SequenceEqual(pair.Second)))
                        throw new InvalidOperationException($"The decoders disagree ({size.Name}, batch {batch}).");
                }

                peak = Math.Max(peak, Machine.MatrixPeak());
                double operations = decoder.Rate * 2 * ModelSize.Multiplied(model);
                page.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"| {model.ParameterCount / 1e6:0.0}M | {batch} | {decoder.Rate:0} | {libtorch.Rate:0} | {decoder.Rate / libtorch.Rate:0.0} ")
                    + string.Create(
                        CultureInfo.InvariantCulture,
                        $"| {decoder.CpuRate / libtorch.CpuRate:0.0} | {operations / peak:0%} | {Machine.PeakMemory():0} |"));
            }
        }

        page.WriteLine();
    }

    private sealed class Measured
    {
        private readonly List<(double Wall, double Cpu)> seconds = [];
        private int tokens;

        public double Rate => Machine.Median(seconds.Select(s => tokens / s.Wall));

        public double CpuRate => Machine.Median(seconds.Select(s => tokens / s.Cpu));

        public int[][] Time(int round, Action<SamplingRow[]> decode, int[][] prompts)
        {
            SamplingRow[] rows = [.. prompts.Select((prompt, i) => new SamplingRow(prompt, i, NewTokens))];
            (double Wall, double Cpu) taken = Machine.Time(() => decode(rows));
            if (round > 0) seconds.Add(taken);
            tokens = rows.Sum(row => row.New.Count);
            return [.. rows.Select(row => row.New.ToArray())];
        }
    }
}
