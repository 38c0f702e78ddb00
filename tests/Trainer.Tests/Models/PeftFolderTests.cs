using System.Text.Json.Nodes;
using Rlhf.Trainer.Models;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>Adapters as PEFT lays them out: names, shapes and fields written out here from its source, not taken from ours.</summary>
public sealed class PeftFolderTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("llama", "model.layers.1.self_attn.k_proj", 24, 12, false)] // three of six heads of 4
    [InlineData("gpt2", "transformer.h.0.attn.c_attn", 24, 72, true)]
    [InlineData("gpt_neox, serial", "gpt_neox.layers.1.attention.query_key_value", 32, 96, false)]
    [InlineData("opt, untied", "model.decoder.layers.0.self_attn.out_proj", 24, 24, false)]
    public void Names_shapes_and_fields_are_PEFTs(string family, string module, int inputs, int outputs, bool fanInFanOut)
    {
        using Transformer trunk = Families.Load(family);
        using Transformer adapted = LoraTests.Learned(trunk, new LoraOptions(3, 6, []));
        PeftFolder.Save(folder.Path, adapted, "../base");

        using (SafetensorsFile tensors = Safetensors.Open(Path.Combine(folder.Path, "adapter_model.safetensors")))
        {
            Assert.Equal([3, inputs], tensors.ShapeOf($"base_model.model.{module}.lora_A.weight"));
            Assert.Equal([outputs, 3], tensors.ShapeOf($"base_model.model.{module}.lora_B.weight"));
            Assert.Equal(2 * adapted.Adapter!.Modules.Count, tensors.Names.Count);
        }

        JsonNode config = Config();
        Assert.Equal("LORA", config["peft_type"]!.GetValue<string>());
        Assert.Equal("CAUSAL_LM", config["task_type"]!.GetValue<string>());
        Assert.Equal(3, config["r"]!.GetValue<int>());
        Assert.Equal(6, config["lora_alpha"]!.GetValue<int>()); // PEFT's type: a whole number stays one
        Assert.Equal(0, config["lora_dropout"]!.GetValue<double>());
        Assert.Equal("none", config["bias"]!.GetValue<string>());
        Assert.Equal(fanInFanOut, config["fan_in_fan_out"]!.GetValue<bool>());
        Assert.Equal("../base", config["base_model_name_or_path"]!.GetValue<string>());
        Assert.Null(config["modules_to_save"]);
        // PEFT matches a module whose name ends so.
        string[] targets = [.. config["target_modules"]!.AsArray().Select(target => target!.GetValue<string>())];
        Assert.Equal(targets.Order(StringComparer.Ordinal), targets);
        Assert.Contains(targets, target => module.EndsWith($".{target}", StringComparison.Ordinal));
    }

    [Fact]
    public void A_reward_models_head_is_a_module_to_save()
    {
        using Transformer trunk = Families.Load("qwen2");
        using Transformer reward = trunk.WithAdapterAndScoreHead(new LoraOptions(2, 4, ["q_proj", "v_proj"]), 1, 2);
        PeftFolder.Save(folder.Path, reward, "../sft");
        Assert.Equal("""["score"]""", Config()["modules_to_save"]!.ToJsonString());
        Assert.Equal("""["q_proj","v_proj"]""", Config()["target_modules"]!.ToJsonString());
        Assert.Equal("SEQ_CLS", Config()["task_type"]!.GetValue<string>());
        using SafetensorsFile tensors = Safetensors.Open(Path.Combine(folder.Path, PeftFolder.WeightsFile));
        Assert.Equal([1, 24], tensors.ShapeOf("base_model.model.score.weight"));
        Assert.Equal(9, tensors.Names.Count);

        // On the language model that it was trained over, and on a model that has a head already.
        using Transformer again = PeftFolder.Load(folder.Path, trunk);
        using Transformer withHead = Transformer.WithScoreHead(trunk, 7);
        using Transformer replaced = PeftFolder.Load(folder.Path, withHead);
        AssertSame(reward.Trainable(), again.Trainable());
        AssertSame(reward.Trainable(), replaced.Trainable());
    }

    [Theory]
    [MemberData(nameof(FamilyTests.Names), MemberType = typeof(FamilyTests))]
    public void What_was_saved_loads_with_the_same_bits(string family)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        using Transformer trunk = Families.Load(family);
        using Transformer adapted = LoraTests.Learned(trunk, new LoraOptions(3, 5, [LoraOptions.AllLinear]));
        PeftFolder.Save(folder.Path, adapted, "../base");
        byte[] bytes = File.ReadAllBytes(Path.Combine(folder.Path, PeftFolder.WeightsFile));
        using Transformer loaded = PeftFolder.Load(folder.Path, trunk);
        AssertSame(adapted.Trainable(), loaded.Trainable());
        using Tensor ids = tensor((long[])[3, 17, 49, 0, 8, 31], [1, 6]);
        Assert.Equal(adapted.Hidden(ids).bytes.ToArray(), loaded.Hidden(ids).bytes.ToArray());

        PeftFolder.Save(folder.Path, loaded, "../base");
        Assert.Equal(bytes, File.ReadAllBytes(Path.Combine(folder.Path, PeftFolder.WeightsFile)));

        // Merged and saved, it is an ordinary model of the same numbers.
        string merged = Path.Combine(folder.Path, "merged");
        HuggingFaceFolder.Save(merged, adapted, null);
        using Transformer ordinary = HuggingFaceFolder.LoadModel(merged);
        Assert.Null(ordinary.Adapter);
        Assert.InRange((adapted.Logits(adapted.Hidden(ids)) - ordinary.Logits(ordinary.Hidden(ids))).abs().max().item<float>(), 0, 1e-5f);
    }

    [Fact]
    public void Half_precision_and_rank_stabilised_scales_are_read()
    {
        using DisposeScope scope = NewDisposeScope();
        using Transformer trunk = Families.Load("llama");
        using Transformer adapted = LoraTests.Learned(trunk, new LoraOptions(4, 8, ["v_proj"]));
        PeftFolder.Save(folder.Path, adapted, "../base");
        Safetensors.Write(
            Path.Combine(folder.Path, PeftFolder.WeightsFile),
            adapted.Trainable().Select(w => ($"base_model.model.{w.Name}", w.Value.to(ScalarType.BFloat16))));
        Edit(config => config["use_rslora"] = true);
        using Transformer loaded = PeftFolder.Load(folder.Path, trunk);
        Assert.Equal(8 * Math.Sqrt(4), loaded.Adapter!.Options.Alpha, 1e-12);
        foreach (((_, var expected), (_, var actual)) in adapted.Trainable().Zip(loaded.Trainable()))
            Assert.Equal(expected.to(ScalarType.BFloat16).to(ScalarType.Float32).bytes.ToArray(), actual.bytes.ToArray());
    }

    [Theory]
    [InlineData("peft_type", "\"IA3\"", "'peft_type' is \"IA3\"; only \"LORA\" is known here")]
    [InlineData("use_dora", "true", "'use_dora' is true")]
    [InlineData("bias", "\"all\"", "'bias' is \"all\"")]
    [InlineData("rank_pattern", """{"q_proj":8}""", "'rank_pattern' is")]
    [InlineData("init_lora_weights", "\"pissa\"", "'init_lora_weights' is \"pissa\"")]
    [InlineData("task_type", "\"SEQ_2_SEQ_LM\"", "'task_type' is \"SEQ_2_SEQ_LM\"")]
    [InlineData("r", "0", "'r' is 0")]
    [InlineData("r", "5", "has shape [3, 24]; the model and adapter_config.json ask for [5, 24]")]
    [InlineData("r", "\"x\"", "not an adapter's configuration")]
    [InlineData("lora_alpha", "null", "'lora_alpha' is missing")]
    public void What_would_compute_something_else_is_refused(string field, string value, string message)
    {
        using Transformer trunk = Families.Load("llama");
        SaveOne(trunk);
        Edit(config => config[field] = JsonNode.Parse(value));
        Assert.Contains(message, Assert.Throws<ModelFormatException>(() => PeftFolder.Load(folder.Path, trunk)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Tensors_that_are_missing_or_have_no_place_are_named()
    {
        using Transformer trunk = Families.Load("llama");
        SaveOne(trunk);
        string file = Path.Combine(folder.Path, PeftFolder.WeightsFile);
        Dictionary<string, Tensor> tensors;
        using (SafetensorsFile stored = Safetensors.Open(file))
            tensors = stored.Names.ToDictionary(name => name, stored.Read);
        const string module = "base_model.model.model.layers.0.self_attn.q_proj";
        Safetensors.Write(file, tensors.Where(t => t.Key != $"{module}.lora_B.weight").Select(t => (t.Key, t.Value)));
        Assert.Contains($"tensor '{module}.lora_B.weight' is missing", Refusal(), StringComparison.Ordinal);
        Safetensors.Write(file, tensors.Append(new("base_model.model.lm_head.weight", zeros(3))).Select(t => (t.Key, t.Value)));
        Assert.Contains("'base_model.model.lm_head.weight' is no part", Refusal(), StringComparison.Ordinal);
        File.Delete(file);
        Assert.Contains("safe_serialization", Refusal(), StringComparison.Ordinal);
        File.Delete(Path.Combine(folder.Path, "adapter_config.json"));
        Assert.Contains("is not an adapter", Refusal(), StringComparison.Ordinal);

        string Refusal() => Assert.Throws<ModelFormatException>(() => PeftFolder.Load(folder.Path, trunk)).Message;
    }

    [Fact]
    public void An_adapter_of_another_model_is_refused()
    {
        using Transformer trunk = Families.Load("llama"), other = Families.Load("gpt2"), score = Transformer.WithScoreHead(trunk, 1);
        SaveOne(trunk);
        Assert.Contains("the adapter is for another model. LoRA target", Assert.Throws<ModelFormatException>(
            () => PeftFolder.Load(folder.Path, other)).Message, StringComparison.Ordinal);
        Assert.Contains("the model is a reward model", Assert.Throws<ModelFormatException>(
            () => PeftFolder.Load(folder.Path, score)).Message, StringComparison.Ordinal);
    }

    private void SaveOne(Transformer trunk)
    {
        using Transformer adapted = LoraTests.Learned(trunk, new LoraOptions(3, 6, ["q_proj"]));
        PeftFolder.Save(folder.Path, adapted, "../base");
    }

    private JsonNode Config() => JsonNode.Parse(File.ReadAllText(Path.Combine(folder.Path, "adapter_config.json")))!;

    private void Edit(Action<JsonNode> change)
    {
        JsonNode config = Config();
        change(config);
        File.WriteAllText(Path.Combine(folder.Path, "adapter_config.json"), config.ToJsonString());
    }

    private static void AssertSame(
        IReadOnlyList<(string Name, TorchSharp.Modules.Parameter Value)> expected,
        IReadOnlyList<(string Name, TorchSharp.Modules.Parameter Value)> actual)
    {
        Assert.Equal(expected.Select(w => w.Name), actual.Select(w => w.Name));
        foreach ((var left, var right) in expected.Zip(actual))
            Assert.True(left.Value.bytes.SequenceEqual(right.Value.bytes), $"{left.Name} differs");
    }
}
