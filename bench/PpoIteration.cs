using System.Globalization;
using System.Text.Json;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using static TorchSharp.torch;

namespace Rlhf.Bench;

/// <summary>Where the time of a PPO iteration goes.</summary>
internal static class PpoIteration
{
    private const int PromptTokens = 24;

    /// <summary>With 52 million weights an iteration takes a minute or two.</summary>
    private const int IterationsOfLarge = 3;
    private static readonly string[] Phases = ["generate", "score", "logprob", "train", "save"];

    private static readonly PpoSpec Spec = new()
    {
        Iterations = 5,
        Episodes = 64,
        Epochs = 2,
        MinibatchSize = 16,
        MaxNewTokens = 32,
        ValidationPrompts = 0,
    };

    public static void Run(TextWriter page, ModelSize[] sizes)
    {
        page.WriteLine(
            $"""
            ## A PPO iteration

            {Spec.Episodes} episodes of {PromptTokens} prompt and up to {Spec.MaxNewTokens} new tokens, {Spec.Epochs} epochs in minibatches
            of {Spec.MinibatchSize}; policy, critic, reference and reward model of one size. Seconds, medians of {Spec.Iterations - 1}
            iterations ({IterationsOfLarge - 1} of the largest). "save" writes a whole checkpoint (weights and moments of policy and critic) to files.

            | parameters | {string.Join(" | ", Phases)} | iteration | generate's share | response tokens/s | peak memory, MiB |
            |---:|{string.Concat(Phases.Select(_ => "---:|"))}---:|---:|---:|---:|
            """);
        foreach (ModelSize size in sizes)
        {
            Machine.ResetPeakMemory();
            using Transformer policy = size.Create(), reward = Transformer.WithScoreHead(policy, seed: 2);
            int[][] prompts = size.Rows(4 * Spec.Episodes, PromptTokens);
            int iterations = size.Name == "52M" ? IterationsOfLarge : Spec.Iterations;
            using var method = new Ppo(
                policy, reward, Spec, [.. prompts.Select((ids, i) => new TokenizedPrompt($"{i}", ids))], [],
                new IdsOnly(size.Config.VocabularySize), seed: 1);
            string folder = Directory.CreateTempSubdirectory("rlhf-bench-").FullName;
            try
            {
                var seconds = Phases.ToDictionary(phase => phase, _ => new List<double>());
                var tokens = new List<double>();
                for (int iteration = 0; iteration < iterations; iteration++)
                {
                    IReadOnlyDictionary<string, double> metrics = method.Advance();
                    double save = Machine.Time(() => method.Save(new FolderCheckpoint(folder))).Wall;
                    if (iteration == 0) continue; // the preflight and the first use of everything
                    foreach (string phase in Phases[..^1]) seconds[phase].Add(metrics[$"timing/{phase}"]);
                    seconds["save"].Add(save);
                    tokens.Add(metrics["rollout/response_length_mean"] * Spec.Episodes);
                }

                double[] medians = [.. Phases.Select(phase => Machine.Median(seconds[phase]))];
                double whole = medians.Sum();
                page.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"| {policy.ParameterCount / 1e6:0.0}M | {Row(medians)} | {whole:0.00} | {medians[0] / whole:0%} ")
                    + string.Create(
                        CultureInfo.InvariantCulture, $"| {Machine.Median(tokens) / whole:0} | {Machine.PeakMemory():0} |"));
            }
            finally
            {
                Directory.Delete(folder, recursive: true);
            }
        }

        page.WriteLine();
    }

    private static string Row(double[] seconds) => string.Join(" | ", seconds.Select(s => s.ToString("0.00", CultureInfo.InvariantCulture)));

    private sealed class FolderCheckpoint(string folder) : ICheckpointWriter
    {
        public void WriteTensors(string part, IEnumerable<(string Name, Tensor Value)> tensors) =>
            Safetensors.Write(Path.Combine(folder, $"{part}.safetensors"), tensors);

        public void WriteState<T>(string part, T state)
            where T : class => File.WriteAllBytes(Path.Combine(folder, $"{part}.json"), JsonSerializer.SerializeToUtf8Bytes(state));
    }
}
