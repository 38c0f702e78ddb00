using System.Text.Json;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Models;

/// <summary>
/// Adapters in the layout of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors, in which the pair of a module is
/// <c>base_model.model.{module}.lora_A.weight</c> (r, inputs) and <c>.lora_B.weight</c> (outputs, r), and a reward model's head is
/// <c>base_model.model.score.weight</c> (peft/tuners/lora/config.py and peft/utils/save_and_load.py, 0.17).
/// </summary>
public static class PeftFolder
{
    /// <summary>The file that holds the adapter's matrices.</summary>
    public const string WeightsFile = "adapter_model.safetensors";

    private const string ConfigFile = "adapter_config.json";
    private const string Prefix = "base_model.model.";

    /// <summary>Fields that change what an adapter computes, and the values under which it is the one that is known here.</summary>
    private static readonly (string Field, Func<JsonNode?, bool> IsPlain, string Plain)[] PlainFields =
    [
        ("use_dora", IsNullOrFalse, "false"),
        ("use_qalora", IsNullOrFalse, "false"),
        ("lora_bias", IsNullOrFalse, "false"),
        ("bias", value => value is null || IsText(value, "none"), "\"none\""),
        ("rank_pattern", IsNullOrEmpty, "{}"),
        ("alpha_pattern", IsNullOrEmpty, "{}"),
        ("layer_replication", IsNullOrEmpty, "null"),
        ("trainable_token_indices", IsNullOrEmpty, "null"),
        ("target_parameters", IsNullOrEmpty, "null"),
        ("alora_invocation_tokens", IsNullOrEmpty, "null"),
        // Other starts (pissa, olora, loftq, ...) take their part out of the base weights, which then are not those of the base's folder.
        ("init_lora_weights",
            value => value is null || value.GetValueKind() is JsonValueKind.True or JsonValueKind.False || IsText(value, "gaussian"), "true"),
    ];

    /// <summary>Writes a model's adapter, and its head if it is a reward model; equal adapters give equal bytes.</summary>
    /// <param name="directory">Made where it is missing.</param>
    /// <param name="model">A model with an adapter.</param>
    /// <param name="baseModel">Where the model without the adapter is, for <c>base_model_name_or_path</c>.</param>
    public static void Save(string directory, Transformer model, string baseModel)
    {
        Lora adapter = model.Adapter ?? throw new ArgumentException("The model has no adapter.", nameof(model));
        bool scores = model.Config.Head == HeadKind.Score;
        bool byName = adapter.Options.Targets.Count > 0 && !adapter.Options.Targets.Contains(LoraOptions.AllLinear);
        IEnumerable<string> targets = byName ? adapter.Options.Targets : Lora.Endings(adapter.Modules);
        var config = new JsonObject
        {
            ["alpha_pattern"] = new JsonObject(),
            ["auto_mapping"] = null,
            ["base_model_name_or_path"] = baseModel,
            ["bias"] = "none",
            ["fan_in_fan_out"] = WeightNames.For(model.Config.ModelType).Transposed,
            ["inference_mode"] = true,
            ["init_lora_weights"] = true,
            ["layers_pattern"] = null,
            ["layers_to_transform"] = null,
            ["lora_alpha"] = adapter.Options.Alpha,
            ["lora_dropout"] = 0.0,
            ["modules_to_save"] = scores ? new JsonArray(WeightNames.For(model.Config.ModelType).Score) : null,
            ["peft_type"] = "LORA",
            ["r"] = adapter.Options.Rank,
            ["rank_pattern"] = new JsonObject(),
            ["revision"] = null,
            ["target_modules"] = new JsonArray([.. targets.Order(StringComparer.Ordinal).Select(name => JsonValue.Create(name))]),
            ["task_type"] = scores ? "SEQ_CLS" : "CAUSAL_LM",
            ["use_dora"] = false,
            ["use_rslora"] = false,
        };
        Directory.CreateDirectory(directory);
        File.WriteAllText(Path.Combine(directory, ConfigFile), config.ToJsonString(RlhfJson.Indented) + "\n");
        Safetensors.Write(
            Path.Combine(directory, WeightsFile), model.Trainable().Select(weight => (Prefix + weight.Name, (Tensor)weight.Value)));
    }

    /// <summary>Puts the adapter of a folder on a model.</summary>
    /// <param name="directory">The adapter's folder.</param>
    /// <param name="model">The model that it was trained on; it is shared, and must outlive the result.</param>
    /// <exception cref="ModelFormatException">No adapter, one of a kind that is not known here, or one for another model.</exception>
    public static Transformer Load(string directory, Transformer model)
    {
        string file = Path.Combine(directory, ConfigFile);
        if (!File.Exists(file))
            throw new ModelFormatException(directory, $"is not an adapter: {ConfigFile} is missing. Point to a folder that PEFT saved.");
        if (!File.Exists(Path.Combine(directory, WeightsFile)))
            throw new ModelFormatException(directory, $"{WeightsFile} is missing; save the adapter with safe_serialization=True.");
        (int rank, double alpha, bool scores) = ReadConfig(file);
        if (!scores && model.Config.Head == HeadKind.Score)
            throw new ModelFormatException(directory, "the adapter is for a language model, and the model is a reward model.");

        using SafetensorsFile tensors = Safetensors.Open(Path.Combine(directory, WeightsFile));
        string[] modules =
        [
            .. tensors.Names.Where(name => name.EndsWith(".lora_A.weight", StringComparison.Ordinal))
                .Select(name => name[(name.StartsWith(Prefix, StringComparison.Ordinal) ? Prefix.Length : 0)..^".lora_A.weight".Length]),
        ];
        if (modules.Length == 0)
            throw new ModelFormatException(directory, $"{WeightsFile} holds no 'lora_A' matrix.");
        Transformer adapted = Adapt(directory, model, new LoraOptions(rank, alpha, modules), scores);
        try
        {
            Fill(directory, adapted, tensors, headIsGiven: model.Config.Head == HeadKind.Score);
            return adapted;
        }
        catch
        {
            adapted.Dispose();
            throw;
        }
    }

    private static Transformer Adapt(string directory, Transformer model, LoraOptions options, bool scores)
    {
        try
        {
            // What is drawn here is replaced by what the folder holds.
            return scores && model.Config.Head == HeadKind.LanguageModel
                ? model.WithAdapterAndScoreHead(options, 0, 0)
                : model.WithAdapter(options, 0);
        }
        catch (LoraTargetException e)
        {
            throw new ModelFormatException(directory, $"the adapter is for another model. {e.Message}", e);
        }
    }

    private static void Fill(string directory, Transformer adapted, SafetensorsFile tensors, bool headIsGiven)
    {
        var unused = new SortedSet<string>(tensors.Names, StringComparer.Ordinal);
        foreach ((string name, Parameter weight) in adapted.Trainable())
        {
            string stored = Prefix + name;
            if (!unused.Remove(stored))
            {
                if (headIsGiven && !name.Contains(".lora_", StringComparison.Ordinal)) continue;
                throw new ModelFormatException(directory, $"tensor '{stored}' is missing.");
            }

            if (!tensors.ShapeOf(stored).SequenceEqual(weight.shape))
            {
                throw new ModelFormatException(
                    directory,
                    $"tensor '{stored}' has shape [{string.Join(", ", tensors.ShapeOf(stored))}]; "
                    + $"the model and {ConfigFile} ask for [{string.Join(", ", weight.shape)}].");
            }

            tensors.ReadInto(stored, weight);
        }

        if (unused.Min is { } unknown)
            throw new ModelFormatException(directory, $"tensor '{unknown}' is no part of a LoRA adapter of this model.");
    }

    private static (int Rank, double Alpha, bool Scores) ReadConfig(string file)
    {
        try
        {
            JsonObject config = JsonFile.ReadObject(file);
            if (!IsText(config["peft_type"], "LORA"))
                throw new ModelFormatException(file, $"'peft_type' is {Text(config["peft_type"])}; only \"LORA\" is known here.");
            foreach ((string field, Func<JsonNode?, bool> isPlain, string plain) in PlainFields)
            {
                if (!isPlain(config[field]))
                    throw new ModelFormatException(file, $"'{field}' is {Text(config[field])}; only {plain} is known here.");
            }

            bool scores = IsText(config["task_type"], "SEQ_CLS");
            if (!scores && config["task_type"] is { } task && !IsText(task, "CAUSAL_LM"))
                throw new ModelFormatException(file, $"'task_type' is {Text(task)}; \"CAUSAL_LM\" and \"SEQ_CLS\" are known here.");
            int rank = config["r"]?.GetValue<int>() ?? 0;
            double alpha = config["lora_alpha"]?.GetValue<double>() ?? double.NaN;
            if (rank < 1) throw new ModelFormatException(file, $"'r' is {Text(config["r"])}; it must be at least 1.");
            if (!double.IsFinite(alpha)) throw new ModelFormatException(file, "'lora_alpha' is missing.");
            // Rank-stabilised LoRA scales by alpha / sqrt(r) (Kalajdzievski 2023).
            bool stabilised = !IsNullOrFalse(config["use_rslora"]);
            return (rank, stabilised ? alpha * Math.Sqrt(rank) : alpha, scores);
        }
        catch (Exception e) when (e is InvalidOperationException or FormatException)
        {
            throw new ModelFormatException(file, $"not an adapter's configuration: {e.Message}", e);
        }
    }

    private static bool IsNullOrFalse(JsonNode? value) => value is null || value.GetValueKind() == JsonValueKind.False;

    private static bool IsNullOrEmpty(JsonNode? value) => value is null or JsonObject { Count: 0 } or JsonArray { Count: 0 };

    private static bool IsText(JsonNode? value, string text) =>
        value is not null && value.GetValueKind() == JsonValueKind.String && value.GetValue<string>() == text;

    private static string Text(JsonNode? value) => value?.ToJsonString() ?? "missing";
}
