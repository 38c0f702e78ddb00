using System.Text.Json.Nodes;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Models;

/// <summary>A model with its tokenizer.</summary>
public sealed record LoadedModel(Transformer Model, ITokenizer Tokenizer, ModelConfig Config) : IDisposable
{
    public void Dispose() => Model.Dispose();
}

/// <summary>Folders in Hugging Face's layout: config.json, model.safetensors (or shards with an index), tokenizer files.</summary>
public static class HuggingFaceFolder
{
    private const string ConfigFile = "config.json";
    private const string GenerationConfigFile = "generation_config.json";
    private const string WeightsFile = "model.safetensors";
    private const string IndexFile = "model.safetensors.index.json";

    /// <summary>Buffers that older checkpoints carry beside the weights; they are computed here.</summary>
    private static readonly string[] KnownBuffers =
        [".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"];

    /// <summary>Loads model and tokenizer. If the tokenizer needed a padding token of its own, the embedding gets a row for it.</summary>
    /// <exception cref="ModelFormatException">
    /// The folder is no model, or one that is not supported; the message says what is missing.
    /// </exception>
    public static LoadedModel Load(string directory, Device? device = null)
    {
        Transformer model = LoadModel(directory, device);
        try
        {
            ITokenizer tokenizer = TokenizerFolder.Load(directory);
            if (tokenizer.VocabularySize > model.Config.VocabularySize)
            {
                using Transformer small = model;
                model = WithVocabulary(small, tokenizer.VocabularySize);
            }

            return new LoadedModel(model, tokenizer, model.Config);
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>Loads the model of a folder that need not hold a tokenizer.</summary>
    /// <exception cref="ModelFormatException">
    /// The folder is no model, or one that is not supported; the message says what is missing.
    /// </exception>
    public static Transformer LoadModel(string directory, Device? device = null)
    {
        ModelConfig config = ReadConfig(directory);
        Dictionary<string, SafetensorsFile> tensors = OpenTensors(directory);
        Transformer? model = null;
        try
        {
            CheckSize(config, tensors, directory);
            model = new Transformer(config, device);
            Fill(model, tensors, directory);
            return model;
        }
        catch
        {
            model?.Dispose();
            throw;
        }
        finally
        {
            foreach (SafetensorsFile file in tensors.Values.Distinct()) file.Dispose();
        }
    }

    /// <summary>The configuration of a folder, without its weights.</summary>
    /// <exception cref="ModelFormatException">The folder is no model, or one that is not supported.</exception>
    public static ModelConfig ReadConfig(string directory)
    {
        if (!Directory.Exists(directory)) throw new ModelFormatException(directory, "no such folder.");
        if (!File.Exists(Path.Combine(directory, ConfigFile)))
            throw new ModelFormatException(
                directory, "is not a model folder: config.json is missing. Point to a folder in Hugging Face's format.");
        return WithGenerationConfig(ModelConfig.Read(Path.Combine(directory, ConfigFile)), directory);
    }

    /// <summary>
    /// Writes a folder from which Hugging Face (and <see cref="Load"/>) loads the model; equal weights give equal bytes. An adapter is
    /// merged into the weights.
    /// </summary>
    public static void Save(string directory, Transformer model, ITokenizer? tokenizer)
    {
        Directory.CreateDirectory(directory);
        ModelConfig config = model.Config;
        if (tokenizer is not null)
        {
            IReadOnlyList<int> eos = config.EosIds.Contains(tokenizer.EosId) ? config.EosIds : [tokenizer.EosId, .. config.EosIds];
            config = config with { EosIds = eos, PadId = tokenizer.PadId };
            tokenizer.Save(directory);
        }

        config.Write(Path.Combine(directory, ConfigFile));
        using DisposeScope scope = NewDisposeScope();
        Safetensors.Write(Path.Combine(directory, WeightsFile), model.MergedWeights());
    }

    /// <summary>Models for dialogues name further end tokens in generation_config.json.</summary>
    private static ModelConfig WithGenerationConfig(ModelConfig config, string directory)
    {
        string file = Path.Combine(directory, GenerationConfigFile);
        if (!File.Exists(file)) return config;
        try
        {
            int[] ends = JsonFile.ReadObject(file)["eos_token_id"] switch
            {
                JsonArray several => [.. several.Select(id => id?.GetValue<int>() ?? throw new FormatException("null is none"))],
                JsonValue one => [one.GetValue<int>()],
                _ => [],
            };
            return config with { EosIds = [.. config.EosIds.Union(ends)] };
        }
        catch (Exception e) when (e is InvalidOperationException or FormatException)
        {
            throw new ModelFormatException(file, $"'eos_token_id' must be a token id or a list of them: {e.Message}", e);
        }
    }

    /// <summary>Before memory is taken: a config.json that asks for more numbers than the files hold does not belong to them.</summary>
    private static void CheckSize(ModelConfig config, Dictionary<string, SafetensorsFile> tensors, string directory)
    {
        UInt128 held = 0, hidden = (uint)config.HiddenSize, attention = (UInt128)(uint)config.HeadCount * (uint)config.HeadDimension;
        foreach ((string name, SafetensorsFile file) in tensors)
            held += file.ShapeOf(name).Aggregate((UInt128)1, (product, extent) => product * (ulong)extent);
        UInt128 least = (UInt128)(uint)config.VocabularySize * (uint)config.EmbeddingDimension
            + (WeightNames.For(config.ModelType).Positions is null ? 0 : (uint)config.MaxPositions * hidden)
            + (UInt128)(uint)config.LayerCount * hidden * (attention + (uint)config.IntermediateSize);
        if (least > held)
        {
            throw new ModelFormatException(
                directory, $"the weights are {held} numbers, and config.json asks for more than {least}; the two do not belong together.");
        }
    }

    private static void Fill(Transformer model, Dictionary<string, SafetensorsFile> tensors, string directory)
    {
        using var noGradient = no_grad();
        string prefix = WeightNames.For(model.Config.ModelType).Prefix;
        var used = new HashSet<string>();
        foreach ((string name, Parameter weight) in model.NamedWeights())
        {
            // A checkpoint saved from the base model alone lacks the prefix: GPT-2's on the hub, for one.
            string stored = tensors.ContainsKey(name) || !name.StartsWith(prefix, StringComparison.Ordinal) ? name : name[prefix.Length..];
            if (!tensors.TryGetValue(stored, out SafetensorsFile? file))
                throw new ModelFormatException(directory, $"tensor '{name}' is missing; the weights do not belong to this config.json.");
            long[] shape = file.ShapeOf(stored);
            if (!shape.SequenceEqual(weight.shape))
            {
                throw new ModelFormatException(
                    directory,
                    $"tensor '{name}' has shape [{string.Join(", ", shape)}]; config.json asks for [{string.Join(", ", weight.shape)}].");
            }

            file.ReadInto(stored, weight);
            used.Add(stored);
        }

        // A tensor that nothing reads would change the numbers in silence. A tied head may be stored as a copy, and a trunk that becomes
        // a reward model may come with the head of its language model.
        string head = WeightNames.For(model.Config.ModelType).Head + ".weight";
        string? unknown = tensors.Keys.Order(StringComparer.Ordinal)
            .FirstOrDefault(n => !used.Contains(n) && n != head && !KnownBuffers.Any(b => n.EndsWith(b, StringComparison.Ordinal)));
        if (unknown is not null)
            throw new ModelFormatException(
                directory, $"tensor '{unknown}' has no place in a model of type {model.Config.ModelType} as config.json describes it.");
    }

    private static Dictionary<string, SafetensorsFile> OpenTensors(string directory)
    {
        var tensors = new Dictionary<string, SafetensorsFile>();
        string single = Path.Combine(directory, WeightsFile), index = Path.Combine(directory, IndexFile);
        if (File.Exists(single))
        {
            SafetensorsFile file = Safetensors.Open(single);
            foreach (string name in file.Names) tensors[name] = file;
            return tensors;
        }

        if (!File.Exists(index))
        {
            bool pickled = Directory.EnumerateFiles(directory, "pytorch_model*.bin").Any();
            throw new ModelFormatException(directory, pickled
                ? "holds its weights as pytorch_model.bin, which is not read; save the model with safe_serialization=True."
                : $"is not a model folder: neither {WeightsFile} nor {IndexFile} is there.");
        }

        try
        {
            if (JsonFile.ReadObject(index)["weight_map"] is not JsonObject map)
                throw new ModelFormatException(index, "field 'weight_map' is missing.");
            var shards = new Dictionary<string, SafetensorsFile>();
            foreach ((string name, JsonNode? shard) in map)
            {
                string file = shard?.GetValue<string>() ?? "";
                if (!PlainNames.IsFileName(file))
                    throw new ModelFormatException(index, $"shard '{file}' is not a file name.");
                string path = Path.Combine(directory, file);
                if (!shards.TryGetValue(file, out SafetensorsFile? opened)) shards[file] = opened = Safetensors.Open(path);
                if (!opened.Contains(name)) throw new ModelFormatException(
                    path, $"tensor '{name}' is missing; {IndexFile} says it is here.");
                tensors[name] = opened;
            }

            return tensors;
        }
        catch (Exception e)
        {
            foreach (SafetensorsFile file in tensors.Values.Distinct()) file.Dispose();
            if (e is InvalidOperationException)
                throw new ModelFormatException(index, $"not a safetensors index: {e.Message}", e);
            throw;
        }
    }

    /// <summary>A copy with more rows in the embedding (and head); new rows are the mean of the old ones (Hewitt 2021).</summary>
    private static Transformer WithVocabulary(Transformer model, int vocabularySize)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        var larger = new Transformer(model.Config with { VocabularySize = vocabularySize }, model.Device);
        foreach (((_, Parameter to), (_, Parameter from)) in larger.NamedWeights().Zip(model.NamedWeights()))
        {
            long rows = from.shape[0];
            if (to.shape[0] == rows)
            {
                to.copy_(from);
                continue;
            }

            to.narrow(0, 0, rows).copy_(from);
            to.narrow(0, rows, to.shape[0] - rows).copy_(from.mean([0], keepdim: true));
        }

        return larger;
    }
}
