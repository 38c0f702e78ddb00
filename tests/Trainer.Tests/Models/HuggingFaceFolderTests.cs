using System.Text.Json.Nodes;
using Rlhf.Trainer.Models;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Models;

public sealed class HuggingFaceFolderTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public static TheoryData<string> FamilyNames => [.. Families.Names];

    public static TheoryData<string> AllModels => [.. ModelFixture.LanguageModels, .. ModelFixture.RewardModels];

    [Theory]
    [MemberData(nameof(AllModels))]
    public void A_saved_model_loads_with_the_same_weights_and_saves_to_the_same_bytes(string name)
    {
        using Transformer model = ModelFixture.Open(name).Load();
        HuggingFaceFolder.Save(folder.Path, model, null);
        using Transformer again = HuggingFaceFolder.LoadModel(folder.Path);
        AssertSameWeights(model, again);
        using var second = new TemporaryFolder();
        HuggingFaceFolder.Save(second.Path, again, null);
        foreach (string file in (string[])["config.json", "model.safetensors"])
            Assert.Equal(File.ReadAllBytes(Path.Combine(folder.Path, file)), File.ReadAllBytes(Path.Combine(second.Path, file)));
    }

    [Theory]
    [MemberData(nameof(AllModels))]
    public void A_saved_config_says_what_the_original_said(string name)
    {
        string file = Path.Combine(ModelFixture.FolderOf(name), "config.json");
        var original = (JsonObject)JsonNode.Parse(File.ReadAllText(file))!;
        JsonObject saved = ModelConfig.Read(file).ToJson();
        // Widths that the family derives are written out, and an absent inner width becomes its value.
        foreach ((string field, JsonNode? value) in original.Where(f => f.Key != "n_inner"))
            Assert.True(JsonNode.DeepEquals(value, saved[field]), $"{field}: {value} became {saved[field]}");
    }

    [Fact]
    public void Shards_are_put_together_by_the_index()
    {
        using var scope = NewDisposeScope();
        using Transformer model = ModelFixture.Open("llama_gqa").Load();
        (string Name, Tensor Value)[] weights = [.. model.NamedWeights().Select(w => (w.Name, (Tensor)w.Value))];
        var map = new JsonObject();
        foreach ((int shard, (string Name, Tensor Value)[] part) in weights.Chunk(8).Index())
        {
            string file = $"model-{shard + 1:D5}.safetensors";
            Safetensors.Write(Path.Combine(folder.Path, file), part);
            foreach ((string name, _) in part) map[name] = file;
        }

        File.WriteAllText(
            Path.Combine(folder.Path, "model.safetensors.index.json"), new JsonObject { ["weight_map"] = map }.ToJsonString());
        model.Config.Write(Path.Combine(folder.Path, "config.json"));
        using (Transformer loaded = HuggingFaceFolder.LoadModel(folder.Path)) AssertSameWeights(model, loaded);

        File.Delete(Path.Combine(folder.Path, "model-00002.safetensors"));
        AssertRefused("model-00002.safetensors: no such file");
    }

    [Theory]
    [InlineData("../other/model.safetensors")]
    [InlineData("/etc/passwd")]
    [InlineData("a/model.safetensors")]
    [InlineData("a\\model.safetensors")]
    [InlineData("..")]
    [InlineData("")]
    public void A_shard_outside_its_folder_is_refused_unread(string shard)
    {
        using Transformer model = ModelFixture.Open("llama_gqa").Load();
        model.Config.Write(Path.Combine(folder.Path, "config.json"));
        File.WriteAllText(
            Path.Combine(folder.Path, "model.safetensors.index.json"),
            new JsonObject { ["weight_map"] = new JsonObject { ["w"] = shard } }.ToJsonString());
        AssertRefused($"shard '{shard}' is not a file name");
    }

    [Theory]
    [InlineData("config.json")]
    [InlineData("generation_config.json")]
    [InlineData("model.safetensors.index.json")]
    public void A_file_nested_without_end_is_refused_by_name(string file)
    {
        using (Transformer model = ModelFixture.Open("llama_gqa").Load())
            model.Config.Write(Path.Combine(folder.Path, "config.json"));
        File.WriteAllText(Path.Combine(folder.Path, file), string.Concat(Enumerable.Repeat("{\"a\":", 50_000)));
        AssertRefused(file);
    }

    [Fact]
    public void A_GPT2_of_the_hub_has_no_prefix_and_carries_buffers()
    {
        using var scope = NewDisposeScope();
        using Transformer model = ModelFixture.Open("gpt2").Load();
        IEnumerable<(string, Tensor)> weights = model.NamedWeights().Select(w => (w.Name["transformer.".Length..], (Tensor)w.Value));
        Write(model.Config, [.. weights, ("h.0.attn.bias", ones(1, 1, 64, 64)), ("h.0.attn.masked_bias", tensor(-1e4f))]);
        using Transformer loaded = HuggingFaceFolder.LoadModel(folder.Path);
        AssertSameWeights(model, loaded);
    }

    [Fact]
    public void Half_precision_weights_are_read_as_float32()
    {
        using var scope = NewDisposeScope();
        using Transformer model = ModelFixture.Open("llama3_rope").Load();
        foreach (ScalarType type in (ScalarType[])[ScalarType.BFloat16, ScalarType.Float16])
        {
            Write(model.Config, model.NamedWeights().Select(w => (w.Name, w.Value.to(type))));
            using Transformer loaded = HuggingFaceFolder.LoadModel(folder.Path);
            foreach (((_, var expected), (_, var actual)) in model.NamedWeights().Zip(loaded.NamedWeights()))
            {
                Assert.Equal(ScalarType.Float32, actual.dtype);
                Assert.True(expected.to(type).to(ScalarType.Float32).equal(actual).all().item<bool>());
            }
        }
    }

    /// <summary>
    /// What checkpoints on the hub have, all at once: no prefix, a tied head as a copy, mask and rotation buffers, half precision, shards.
    /// </summary>
    [Theory]
    [MemberData(nameof(FamilyNames))]
    public void A_folder_as_the_hub_has_them_loads(string name)
    {
        using var scope = NewDisposeScope();
        using Transformer model = Families.Load(name);
        WeightNames names = WeightNames.For(model.Config.ModelType);
        string head = $"{names.Head}.weight", layer = $"{names.Layer}0."[names.Prefix.Length..];
        string attention = layer + names.QueryKeyValue[0].Split('.')[0];
        (string Name, Tensor Value)[] stored =
        [
            .. model.NamedWeights().Select(w => (w.Name.StartsWith(names.Prefix, StringComparison.Ordinal)
                ? w.Name[names.Prefix.Length..] : w.Name, w.Value.to(ScalarType.Float16))),
            .. model.NamedWeights().Take(model.Config.TiedEmbeddings ? 1 : 0).Select(w => (head, w.Value.to(ScalarType.Float16))),
            ..
            from buffer in model.Config.ModelType switch
            {
                "gpt2" => ["bias", "masked_bias"],
                "gpt_neox" => ["bias", "masked_bias", "rotary_emb.inv_freq"],
                "opt" => [],
                _ => (string[])["rotary_emb.inv_freq"],
            }
            select ($"{attention}.{buffer}", ones(4, dtype: ScalarType.Float16)),
        ];
        var map = new JsonObject();
        foreach ((int shard, (string Name, Tensor Value)[] part) in stored.Chunk(7).Index())
        {
            string file = $"model-{shard + 1:D5}-of-{(stored.Length + 6) / 7:D5}.safetensors";
            Safetensors.Write(Path.Combine(folder.Path, file), part);
            foreach ((string tensor, _) in part) map[tensor] = file;
        }

        var index = new JsonObject { ["metadata"] = new JsonObject { ["total_size"] = 1 }, ["weight_map"] = map };
        File.WriteAllText(Path.Combine(folder.Path, "model.safetensors.index.json"), index.ToJsonString());
        model.Config.Write(Path.Combine(folder.Path, "config.json"));
        using Transformer loaded = HuggingFaceFolder.LoadModel(folder.Path);
        foreach (((string weight, var expected), (_, var actual)) in model.NamedWeights().Zip(loaded.NamedWeights()))
            Assert.True(expected.to(ScalarType.Float16).to(ScalarType.Float32).equal(actual).all().item<bool>(), weight);
    }

    [Theory]
    [MemberData(nameof(FamilyNames))]
    public void A_saved_language_model_has_the_layout_that_transformers_loads(string name)
    {
        using Transformer model = Families.Load(name);
        (JsonObject config, JsonObject header) = SaveAndRead(model);
        string prefix = ClassPrefixes[model.Config.ModelType];
        Assert.Equal(prefix == "GPT2" ? "GPT2LMHeadModel" : $"{prefix}ForCausalLM", config["architectures"]![0]!.GetValue<string>());
        Assert.Null(config["id2label"]); // else transformers would count labels
        // Without "format": "pt" transformers refuses a file of weights.
        Assert.Equal("pt", header["__metadata__"]!["format"]!.GetValue<string>());
        WeightNames names = WeightNames.For(model.Config.ModelType);
        Assert.Equal(model.Config.TiedEmbeddings, !header.ContainsKey($"{names.Head}.weight"));
        Assert.All(
            header.Select(tensor => tensor.Key).Where(tensor => tensor != "__metadata__" && tensor != $"{names.Head}.weight"),
            tensor => Assert.StartsWith(names.Prefix, tensor, StringComparison.Ordinal));
        Assert.All(header.Where(t => t.Key != "__metadata__"), t => Assert.Equal("F32", t.Value!["dtype"]!.GetValue<string>()));
    }

    [Theory]
    [MemberData(nameof(FamilyNames))]
    public void A_saved_reward_model_is_a_sequence_classifier_with_one_label(string name)
    {
        using Transformer language = Families.Load(name), model = Transformer.WithScoreHead(language, seed: 1);
        (JsonObject config, JsonObject header) = SaveAndRead(model);
        Assert.Equal(
            $"{ClassPrefixes[model.Config.ModelType]}ForSequenceClassification", config["architectures"]![0]!.GetValue<string>());
        // transformers takes the number of labels from this map, and the width of `score` from the number of labels.
        Assert.Equal("""{"0":"LABEL_0"}""", config["id2label"]!.ToJsonString());
        Assert.Equal($"[1,{model.Config.EmbeddingDimension}]", header["score.weight"]!["shape"]!.ToJsonString());
        Assert.False(header.ContainsKey($"{WeightNames.For(model.Config.ModelType).Head}.weight"));
        using Transformer loaded = HuggingFaceFolder.LoadModel(folder.Path);
        Assert.Equal(HeadKind.Score, loaded.Config.Head);
        AssertSameWeights(model, loaded);
    }

    /// <summary>The names of transformers' classes.</summary>
    private static readonly Dictionary<string, string> ClassPrefixes = new()
    {
        ["llama"] = "Llama",
        ["mistral"] = "Mistral",
        ["qwen2"] = "Qwen2",
        ["qwen3"] = "Qwen3",
        ["gpt2"] = "GPT2",
        ["gpt_neox"] = "GPTNeoX",
        ["opt"] = "OPT",
    };

    private (JsonObject Config, JsonObject Header) SaveAndRead(Transformer model)
    {
        HuggingFaceFolder.Save(folder.Path, model, null);
        byte[] weights = File.ReadAllBytes(Path.Combine(folder.Path, "model.safetensors"));
        JsonNode header = JsonNode.Parse(weights.AsSpan(8, (int)BitConverter.ToUInt64(weights)))!;
        return ((JsonObject)JsonNode.Parse(File.ReadAllText(Path.Combine(folder.Path, "config.json")))!, (JsonObject)header);
    }

    [Fact]
    public void The_reward_bias_is_kept()
    {
        using Transformer model = ModelFixture.Open("llama_reward").Load();
        using Transformer biased = model.WithConfig(model.Config with { RewardBias = -0.375 });
        HuggingFaceFolder.Save(folder.Path, biased, null);
        using Transformer loaded = HuggingFaceFolder.LoadModel(folder.Path);
        Assert.Equal(-0.375, loaded.Config.RewardBias);
    }

    [Theory]
    [InlineData("""{"eos_token_id": [2, 5, 7]}""", new[] { 2, 5, 7 })]
    [InlineData("""{"eos_token_id": 5}""", new[] { 2, 5 })]
    [InlineData("""{"temperature": 0.6}""", new[] { 2 })]
    public void End_tokens_of_the_generation_config_are_added(string generationConfig, int[] expected)
    {
        foreach (string file in (string[])["config.json", "model.safetensors"])
            File.Copy(Path.Combine(ModelFixture.FolderOf("llama_gqa"), file), Path.Combine(folder.Path, file));
        File.WriteAllText(Path.Combine(folder.Path, "generation_config.json"), generationConfig);
        using Transformer model = HuggingFaceFolder.LoadModel(folder.Path);
        Assert.Equal(expected, model.Config.EosIds);
        File.WriteAllText(Path.Combine(folder.Path, "generation_config.json"), """{"eos_token_id": "x"}""");
        AssertRefused("'eos_token_id' must be a token id");
    }

    [Fact]
    public void A_tokenizer_without_padding_gets_a_token_and_the_model_a_row()
    {
        ModelConfig config = ModelConfig.Llama(857, 32, 1, 2, 2, 64, 64);
        using (var model = new Transformer(config))
        {
            model.InitialiseWeights(3);
            HuggingFaceFolder.Save(folder.Path, model, null);
        }

        File.Copy(
            Path.Combine(AppContext.BaseDirectory, "fixtures", "tokenizer", "tokenizer.json"), Path.Combine(folder.Path, "tokenizer.json"));
        using LoadedModel loaded = HuggingFaceFolder.Load(folder.Path);
        Assert.Equal((856, 857, 858), (loaded.Tokenizer.EosId, loaded.Tokenizer.PadId, loaded.Tokenizer.VocabularySize));
        Assert.Equal(858, loaded.Config.VocabularySize);

        using var second = new TemporaryFolder();
        HuggingFaceFolder.Save(second.Path, loaded.Model, loaded.Tokenizer);
        using LoadedModel again = HuggingFaceFolder.Load(second.Path);
        AssertSameWeights(loaded.Model, again.Model);
        Assert.Equal(857, again.Config.PadId);
        Assert.Equal([856], again.Config.EosIds);
    }

    [Fact]
    public void A_folder_that_is_no_model_says_what_is_missing()
    {
        AssertRefused("config.json is missing");
        File.WriteAllText(Path.Combine(folder.Path, "config.json"), "{");
        AssertRefused("not a JSON object");
        File.WriteAllText(Path.Combine(folder.Path, "config.json"), "{}");
        AssertRefused("'model_type' is missing");
        File.WriteAllText(Path.Combine(folder.Path, "config.json"), """{"model_type": "bert"}""");
        AssertRefused("'bert' is not supported");
        File.WriteAllText(Path.Combine(folder.Path, "config.json"), """{"model_type": "llama", "hidden_size": "wide"}""");
        AssertRefused("'num_attention_heads' is missing");
        File.Copy(
            Path.Combine(ModelFixture.FolderOf("llama_gqa"), "config.json"), Path.Combine(folder.Path, "config.json"), overwrite: true);
        AssertRefused("neither model.safetensors nor");
        File.WriteAllText(Path.Combine(folder.Path, "pytorch_model.bin"), "");
        AssertRefused("safe_serialization=True");
        Assert.Contains("no such folder", Assert.Throws<ModelFormatException>(
            () => HuggingFaceFolder.LoadModel("/no/such/folder")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Weights_that_do_not_fit_the_config_are_refused()
    {
        using var scope = NewDisposeScope();
        using Transformer model = ModelFixture.Open("llama_gqa").Load();
        (string Name, Tensor Value)[] weights = [.. model.NamedWeights().Select(w => (w.Name, (Tensor)w.Value))];
        Write(model.Config, weights.Where(w => w.Name != "model.norm.weight"));
        AssertRefused("tensor 'model.norm.weight' is missing");
        Write(model.Config, weights.Append(("model.layers.0.self_attn.q_norm.weight", ones(8))));
        AssertRefused("'model.layers.0.self_attn.q_norm.weight' has no place");
        Write(model.Config with { IntermediateSize = 64 }, weights);
        AssertRefused("has shape [88, 32]; config.json asks for [64, 32]");
    }

    public void Dispose() => folder.Dispose();

    private void Write(ModelConfig config, IEnumerable<(string Name, Tensor Value)> weights)
    {
        config.Write(Path.Combine(folder.Path, "config.json"));
        Safetensors.Write(Path.Combine(folder.Path, "model.safetensors"), weights);
    }

    private void AssertRefused(string reason) =>
        Assert.Contains(
            reason, Assert.Throws<ModelFormatException>(() => HuggingFaceFolder.LoadModel(folder.Path)).Message, StringComparison.Ordinal);

    private static void AssertSameWeights(Transformer expected, Transformer actual)
    {
        Assert.Equal(expected.NamedWeights().Select(w => w.Name), actual.NamedWeights().Select(w => w.Name));
        foreach (((string name, var e), (_, var a)) in expected.NamedWeights().Zip(actual.NamedWeights()))
            Assert.True(e.bytes.SequenceEqual(a.bytes), name);
    }
}
