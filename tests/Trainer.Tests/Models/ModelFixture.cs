using System.Text.Json;
using Rlhf.Trainer.Models;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>
/// A tiny model with the numbers that Hugging Face computes for it (fixtures/models; its README says how they were made).
/// </summary>
internal sealed class ModelFixture
{
    public static readonly string[] LanguageModels = ["gpt2", "gpt_neox", "llama3_rope", "llama_gqa", "opt", "qwen2"];
    public static readonly string[] RewardModels = ["gpt2_reward", "llama_reward"];

    private ModelFixture(string name)
    {
        Folder = FolderOf(name);
        Numbers = JsonDocument.Parse(File.ReadAllText(Path.Combine(Folder, "fixture.json"))).RootElement;
    }

    public string Folder { get; }

    public JsonElement Numbers { get; }

    public static ModelFixture Open(string name) => new(name);

    public static string FolderOf(string name) => Path.Combine(AppContext.BaseDirectory, "fixtures", "models", name);

    public Transformer Load() => HuggingFaceFolder.LoadModel(Folder);

    public Case CaseOf(string name) => new(Numbers.GetProperty("cases").GetProperty(name));

    public static Tensor Ids(JsonElement matrix)
    {
        long[][] rows = [.. matrix.EnumerateArray().Select(r => r.EnumerateArray().Select(v => v.GetInt64()).ToArray())];
        return tensor(rows.SelectMany(r => r).ToArray(), [rows.Length, rows[0].Length]);
    }

    internal sealed class Case(JsonElement json)
    {
        public JsonElement Json { get; } = json;

        public Tensor InputIds { get; } = Ids(json.GetProperty("input_ids"));

        public Tensor AttentionMask { get; } = Ids(json.GetProperty("attention_mask"));

        public bool HasPadding => AttentionMask.min().item<long>() == 0;

        /// <summary>Logits (B, T, V) where the mask is 1.</summary>
        public IEnumerable<(int Row, int Time, float[] Logits)> Logits()
        {
            int row = 0;
            foreach (JsonElement sequence in Json.GetProperty("logits_fp32").EnumerateArray())
            {
                int time = 0;
                foreach (JsonElement logits in sequence.EnumerateArray())
                {
                    if (AttentionMask[row, time].item<long>() == 1)
                        yield return (row, time, [.. logits.EnumerateArray().Select(v => v.GetSingle())]);
                    time++;
                }

                row++;
            }
        }
    }
}
