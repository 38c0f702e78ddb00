using System.Globalization;
using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;

namespace Rlhf.Bench;

/// <summary>Whole optimizer steps of next-token prediction: forward, backward, clipping, AdamW.</summary>
internal static class Training
{
    private const int Rows = 16;
    private const int Length = 128;

    public static void Run(TextWriter page, ModelSize[] sizes)
    {
        page.WriteLine($"## Training\n\nSteps of {Rows} rows of {Length} tokens. A token counts as six operations a weight.\n");
        page.WriteLine("| parameters | tokens/s | tokens per CPU second | GFLOP/s | of the matrix peak | peak memory, MiB |");
        page.WriteLine("|---:|---:|---:|---:|---:|---:|");
        foreach (ModelSize size in sizes)
        {
            Machine.ResetPeakMemory();
            double peak = Machine.MatrixPeak();
            using Transformer model = size.Create();
            int steps = model.ParameterCount < 20_000_000 ? 9 : 3;
            var spec = new PretrainSpec { Steps = steps + 2, BatchSize = Rows, SequenceLength = Length };
            using var method = new Pretrain(
                model, spec, size.Rows(4 * Rows, Length - 1), [], new IdsOnly(size.Config.VocabularySize), seed: 1);
            method.Advance();
            method.Advance();
            (double Tokens, double Wall, double Cpu)[] measured = [.. Enumerable.Range(0, steps).Select(_ =>
            {
                double tokens = 0;
                (double wall, double cpu) = Machine.Time(() => tokens = method.Advance()["tokens"]);
                return (tokens, wall, cpu);
            })];
            peak = Math.Max(peak, Machine.MatrixPeak());
            double rate = Machine.Median(measured.Select(m => m.Tokens / m.Wall));
            double operations = rate * 6 * ModelSize.Multiplied(model);
            page.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"| {model.ParameterCount / 1e6:0.0}M | {rate:0} | {Machine.Median(measured.Select(m => m.Tokens / m.Cpu)):0} ")
                + string.Create(
                    CultureInfo.InvariantCulture,
                    $"| {operations / 1e9:0} | {operations / peak:0%} | {Machine.PeakMemory():0} |"));
        }

        page.WriteLine();
    }
}
