using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using FsCheck;
using FsCheck.Fluent;
using Rlhf.Spec;
using Xunit;

namespace Rlhf.Shared.Tests.Spec;

public sealed class SpecReaderTests
{
    private const string Minimal = """{"name":"m","data":{"world":{}},"model":{"base":"b"}}""";
    private const string Scratch = """
        {"name":"m","data":{"preferences":[{"file":"a.jsonl"}]},"pretrain":{},"model":{"scratch":{},"maxPromptTokens":64,"maxCompletionTokens":32}}
        """;

    [Fact]
    public void A_minimal_spec_has_the_defaults_of_the_types()
    {
        RunSpec spec = SpecReader.Read(Minimal);

        Assert.Equal(("m", 1L, 2, 0.2), (spec.Name, spec.Seed, spec.Sft.Epochs, spec.Ppo.ClipRange));
        Assert.Equal([4, 16], spec.Evaluate.BestOf);
    }

    [Fact]
    public void Each_method_has_defaults_of_its_own_and_answers_as_it_samples()
    {
        RunSpec dpo = SpecReader.Read(With(Minimal, "method", "\"dpo\"")), grpo = SpecReader.Read(With(Minimal, "method", "\"grpo\""));

        Assert.Null(dpo.Online());
        Assert.Equal(new AnswerSampling(dpo.Evaluate.MaxNewTokens, dpo.Evaluate.Temperature, 128), dpo.Answers());
        Assert.Equal(1e-4, new DpoSpec().LearningRate);
        Assert.Equal(8, Assert.IsType<GrpoSpec>(grpo.Online()).GroupSize);
        Assert.Equal(new AnswerSampling(24, 1, 128), grpo.Answers());
        Assert.Equal(["data", "pretrain", "sft", "reward", "grpo", "evaluate", "promote"], Stages.All(grpo));
    }

    [Fact]
    public void Comments_trailing_commas_nulls_of_optional_fields_and_a_schema_are_welcome()
    {
        RunSpec spec = SpecReader.Read("""
            {
              "$schema": "../docs/run-spec.schema.json", // for the editor
              "runId": null, "pretrain": null,
              "name": "m", "data": { "world": { "seed": null } }, "model": { "base": "b" },
            }
            """);

        Assert.Null(spec.RunId);
    }

    [Theory]
    [InlineData("ppo")]
    [InlineData("dpo")]
    [InlineData("rloo")]
    [InlineData("grpo")]
    public void What_was_read_comes_back_the_same_when_written_and_read_again(string method)
    {
        string given = With(With(Scratch, "method", $"\"{method}\""), method, "{}");
        string once = JsonSerializer.Serialize(SpecReader.Read(given), RlhfJson.Indented);

        Assert.Equal(once, JsonSerializer.Serialize(SpecReader.Read(once), RlhfJson.Indented));
    }

    [Theory]
    [InlineData("""{"name":"m",""", "$", "is not valid JSON (line 1, column")]
    [InlineData("[]", "$", "must be an object, not a list")]
    [InlineData("""{"name":"m","data":{"world":{}}}""", "model", "is missing")]
    [InlineData("""{"name":"m","data":{"preferences":[{}]},"model":{"base":"b"}}""", "data.preferences[0].file", "is missing")]
    public void What_is_no_spec_at_all_is_named(string json, string field, string message) => Refused(json, field, message);

    [Theory]
    [InlineData("seeds", "1", "seeds", "is not a field of the spec. Did you mean 'seed'?")]
    [InlineData("Name", "\"x\"", "Name", "Did you mean 'name'?")]
    [InlineData("ppo", """{"clip_range":0.1}""", "ppo.clip_range", "Did you mean 'clipRange'?")]
    [InlineData("ppo", """{"zzzzzz":1}""", "ppo.zzzzzz", "Known: criticLearningRate, valueClipRange, gamma")]
    [InlineData("name", "5", "name", "must be a string, not 5")]
    [InlineData("name", "null", "name", "must be a string, not null")]
    [InlineData("name", "\"Not OK\"", "name", "must be 1 to 48 lower-case letters, digits and hyphens")]
    [InlineData("runId", "\"-a\"", "runId", "begin and end with a letter or digit")]
    [InlineData("seed", "-1", "seed", "must be from 0 to")]
    [InlineData("seed", "1.5", "seed", "must be a whole number, not 1.5")]
    [InlineData("seed", "\"1\"", "seed", "must be a whole number, not \"1\"")]
    [InlineData("seed", "1e30", "seed", "must be a whole number, not 1e30")]
    [InlineData("sft", "[]", "sft", "must be an object, not a list")]
    [InlineData("sft", "null", "sft", "must be an object, not null")]
    [InlineData("sft", """{"epochs":99999999999}""", "sft.epochs", "must be a whole number, not 99999999999")]
    [InlineData("sft", """{"learningRate":"fast"}""", "sft.learningRate", "must be a number, not \"fast\"")]
    [InlineData("sft", """{"learningRate":1e999}""", "sft.learningRate", "must be a number, not 1e999")]
    [InlineData("sft", """{"learningRate":2}""", "sft.learningRate", "must be from 0 to 1, not 2")]
    [InlineData("sft", """{"schedule":"Cosine"}""", "sft.schedule", "must be one of 'constant', 'linear', 'cosine', not \"Cosine\"")]
    [InlineData("sft", """{"schedule":2}""", "sft.schedule", "must be one of")]
    [InlineData("ppo", """{"whitenRewards":1}""", "ppo.whitenRewards", "must be true or false, not 1")]
    [InlineData("ppo", """{"klTarget":0}""", "ppo.klTarget", "must be from 0.001 to 10000, not 0")]
    [InlineData("lora", """{"rank":0}""", "lora.rank", "must be from 1 to 4096, not 0")]
    [InlineData("lora", """{"dropout":0.1}""", "lora.dropout", "is not a field of the spec")]
    [InlineData("lora", """{"stages":["pretrain"]}""", "lora.stages[0]", "must be one of 'sft', 'reward', 'policy', not \"pretrain\"")]
    [InlineData("evaluate", """{"bestOf":4}""", "evaluate.bestOf", "must be a list, not 4")]
    [InlineData("evaluate", """{"bestOf":[4,"x"]}""", "evaluate.bestOf[1]", "must be a whole number, not \"x\"")]
    [InlineData("trainer", """{"machine":"A100"}""", "trainer.machine", "must be 1 to 20 lower-case letters and digits")]
    [InlineData("data", """{"preferences":[{"file":""}]}""", "data.preferences[0].file", "must not be empty")]
    [InlineData("data", """{"preferences":["a"]}""", "data.preferences[0]", "must be an object, not \"a\"")]
    public void A_bad_field_is_named_with_what_would_be_right(string field, string value, string path, string message) =>
        Refused(With(Minimal, field, value), path, message);

    [Theory]
    [InlineData("model", "{}", "model", "needs either 'base'")]
    [InlineData("model", """{"base":"b","scratch":{}}""", "model", "and not both")]
    [InlineData("pretrain", "{}", "pretrain", "is only for a model made from scratch")]
    [InlineData("data", """{"world":{},"text":[{"file":"a"}]}""", "data.world", "excludes files")]
    [InlineData("data", "{}", "data.preferences", "is empty")]
    [InlineData("data", """{"preferences":[{"file":"../a"}]}""", "data.preferences[0].file", "must be a plain relative path")]
    [InlineData("data", """{"preferences":[{"file":"a"}],"prompts":[{"file":"/etc/passwd"}]}""", "data.prompts[0].file", "must be a plain relative path")]
    [InlineData("lora", """{"stages":[]}""", "lora.stages", "is empty")]
    [InlineData("lora", """{"stages":["sft","reward","sft"]}""", "lora.stages[2]", "names 'sft' again")]
    [InlineData("lora", """{"targets":["q_proj","all-linear"]}""", "lora.targets[1]", "'all-linear' takes every matrix already")]
    [InlineData("lora", """{"targets":["q_proj","q_proj"]}""", "lora.targets[1]", "names 'q_proj' again")]
    [InlineData("lora", """{"targets":[".*proj"]}""", "lora.targets[0]", "must be a module name")]
    [InlineData("lora", """{"targets":[""]}""", "lora.targets[0]", "must be a module name")]
    [InlineData("ppo", """{"episodes":8,"minibatchSize":16}""", "ppo.minibatchSize", "must be at most ppo.episodes (8)")]
    [InlineData("ppo", """{"episodes":4,"minibatchSize":4}""", "ppo.episodes", "must be at least 8 to whiten advantages")]
    [InlineData("ppo", """{"validationPrompts":0}""", "ppo.validationPrompts", "must be above 0", "guard", """{"metric":"goldReward"}""")]
    [InlineData("method", "\"PPO\"", "method", "must be one of 'ppo', 'dpo', 'rloo', 'grpo', not \"PPO\"")]
    [InlineData("dpo", "{}", "dpo", "would not be read: method is 'ppo'; remove the section, or set method to 'dpo'")]
    [InlineData("ppo", """{"gamma":0.9}""", "ppo", "would not be read: method is 'dpo'", "method", "\"dpo\"")]
    [InlineData("grpo", "{}", "grpo", "would not be read: method is 'rloo'", "method", "\"rloo\"")]
    [InlineData("rloo", """{"episodes":30}""", "rloo.episodes", "must be a multiple of rloo.groupSize (4)", "method", "\"rloo\"")]
    [InlineData("grpo", """{"groupSize":6}""", "grpo.episodes", "must be a multiple of grpo.groupSize (6)", "method", "\"grpo\"")]
    [InlineData("grpo", """{"minibatchSize":65}""", "grpo.minibatchSize", "must be at most grpo.episodes (64)", "method", "\"grpo\"")]
    [InlineData("dpo", """{"loss":"hinge"}""", "dpo.loss", "must be one of 'sigmoid', 'ipo'", "method", "\"dpo\"")]
    [InlineData("dpo", """{"loss":"ipo","labelSmoothing":0.1}""", "dpo.labelSmoothing", "is for loss 'sigmoid'", "method", "\"dpo\"")]
    [InlineData("guard", """{"maxKl":5}""", "guard", "is for methods that train in slices", "method", "\"dpo\"")]
    [InlineData("data", """{"flan":{"templates":"t","heldOutCluster":"b","tasks":[{"file":"a","cluster":"a"},{"file":"b","cluster":"b"}]}}""", "data.flan", "set reward.epochs to 0")]
    [InlineData("reward", """{"epochs":0}""", "method", "would not be run", "method", "\"rloo\"")]
    [InlineData("reward", """{"epochs":0}""", "guard.metric", "needs a reward model", "guard", """{"metric":"proxyReward"}""")]
    [InlineData("reward", """{"epochs":0}""", "gates.minRewardAccuracy", "needs a reward model", "gates", """{"minRewardAccuracy":0.6}""")]
    [InlineData("reward", """{"epochs":0}""", "promotion.minRewardGain", "needs a reward model", "promotion", """{"minRewardGain":0.1}""")]
    [InlineData("evaluate", """{"bestOf":[1]}""", "evaluate.bestOf[0]", "must be from 2 to 1024")]
    public void A_contradiction_is_named(string field, string value, string path, string message, string? other = null, string otherValue = "") =>
        Refused(other is null ? With(Minimal, field, value) : With(With(Minimal, field, value), other, otherValue), path, message);

    [Theory]
    [InlineData("pretrain", null, "pretrain", "is missing")]
    [InlineData("pretrain", """{"sequenceLength":512}""", "pretrain.sequenceLength", "must be at most model.scratch.contextLength (256)")]
    [InlineData("model", """{"scratch":{"hiddenSize":100,"heads":8},"maxPromptTokens":64,"maxCompletionTokens":32}""", "model.scratch.hiddenSize", "must be an even multiple")]
    [InlineData("model", """{"scratch":{"keyValueHeads":3},"maxPromptTokens":64,"maxCompletionTokens":32}""", "model.scratch.keyValueHeads", "must divide")]
    [InlineData("model", """{"scratch":{}}""", "model.maxPromptTokens", "must fit model.scratch.contextLength (256)")]
    [InlineData("guard", """{"metric":"goldReward"}""", "guard.metric", "needs the sample world's judge")]
    [InlineData("gates", """{"minRewardGoldCorrelation":0.5}""", "gates.minRewardGoldCorrelation", "needs the sample world's judge")]
    public void A_contradiction_of_a_run_from_scratch_is_named(string field, string? value, string path, string message)
    {
        SpecReader.Read(Scratch);
        Refused(With(Scratch, field, value), path, message);
    }

    [Theory]
    [InlineData("""{"templates":"../t","heldOutCluster":"b","tasks":[{"file":"a","cluster":"a"},{"file":"b","cluster":"b"}]}""", "data.flan.templates", "must be a plain relative path")]
    [InlineData("""{"templates":"t","heldOutCluster":"b","tasks":[{"file":"/a","cluster":"a"},{"file":"b","cluster":"b"}]}""", "data.flan.tasks[0].file", "must be a plain relative path")]
    [InlineData("""{"templates":"t","heldOutCluster":"b","tasks":[{"file":"a","cluster":"a","labels":["yes"]},{"file":"b","cluster":"b"}]}""", "data.flan.tasks[0].labels", "must be at least two different options")]
    [InlineData("""{"templates":"t","heldOutCluster":"c","tasks":[{"file":"a","cluster":"a"},{"file":"b","cluster":"b"}]}""", "data.flan.heldOutCluster", "'c' is the cluster of no task")]
    [InlineData("""{"templates":"t","heldOutCluster":"b","tasks":[{"file":"b","cluster":"b"}]}""", "data.flan.tasks", "are all of the held-out cluster")]
    public void A_contradiction_among_FLANs_tasks_is_named(string flan, string path, string message) =>
        Refused(With(With(Minimal, "reward", """{"epochs":0}"""), "data", $$"""{"flan":{{flan}}}"""), path, message);

    [Fact]
    public void All_faults_come_at_once_in_the_order_of_the_document()
    {
        var failure = Assert.Throws<InvalidSpecException>(() => SpecReader.Read(
            """{"seed":-1,"seed":2,"name":7,"sft":{"epoch":1,"batchSize":0},"data":{"world":{"completionsPerPrompt":10}},"model":{"base":"b"}}"""));

        Assert.Equal(
            ["seed", "seed", "name", "sft.epoch", "sft.batchSize", "data.world.completionsPerPrompt"],
            failure.Errors.Select(error => error.Field));
        Assert.Equal("appears twice", failure.Errors[1].Message);
        Assert.Contains("  sft.batchSize: must be from 1 to 65536, not 0", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_range_refuses_what_lies_just_outside()
    {
        // From the schema, so that no field is forgotten.
        var fields = new List<(string Path, double Outside)>();
        Walk(JsonNode.Parse(SpecSchema.Json())!.AsObject(), []);
        Assert.True(fields.Count > 100);
        foreach ((string path, double outside) in fields)
        {
            JsonObject spec = JsonNode.Parse(path.StartsWith("model.scratch", StringComparison.Ordinal) || path.StartsWith("pretrain", StringComparison.Ordinal) ? Scratch : Minimal)!.AsObject();
            string[] names = path.Split('.');
            JsonObject at = spec;
            foreach (string name in names[..^1])
                at = (JsonObject)(at[name] ??= new JsonObject());
            at[names[^1]] = JsonNode.Parse(outside.ToString(System.Globalization.CultureInfo.InvariantCulture));
            var failure = Assert.Throws<InvalidSpecException>(() => SpecReader.Read(spec.ToJsonString()));
            Assert.Contains(failure.Errors, error => error.Field == path);
        }

        void Walk(JsonObject schema, string[] path)
        {
            foreach ((string name, JsonNode? node) in schema["properties"]!.AsObject())
            {
                if (node!["properties"] is not null)
                    Walk(node.AsObject(), [.. path, name]);
                if (node["minimum"] is { } minimum)
                    fields.Add((string.Join('.', path.Append(name)), (double)minimum - 1));
                if (node["maximum"] is { } maximum)
                    fields.Add((string.Join('.', path.Append(name)), (double)maximum + 1));
            }
        }
    }

    [Fact]
    public void Whatever_the_text_the_answer_is_a_spec_or_a_list_of_faults()
    {
        JsonObject full = JsonSerializer.SerializeToNode(SpecReader.Read(Scratch), RlhfJson.Compact)!.AsObject();
        string[] paths = [.. Leaves(full, "")];
        Gen<string> value = Gen.OneOf(
            Gen.Elements("null", "true", "-1", "0", "1e9", "0.5", "[]", "{}", "[1,null]", "\"cpu\"", "\"\""),
            ArbMap.Default.GeneratorFor<string>().Select(text => JsonSerializer.Serialize(text ?? "")));
        Gen<string> mutated =
            from path in Gen.Elements(paths)
            from other in Gen.Elements(paths)
            from first in value
            from second in value
            select Set(Set(full.DeepClone().AsObject(), path, first), other, second).ToJsonString();
        Gen<string> texts = Gen.OneOf(mutated, ArbMap.Default.GeneratorFor<string>().Select(text => text ?? ""), mutated.Select(text => text[..^1]));

        Prop.ForAll(texts.ToArbitrary(), text =>
        {
            try
            {
                return SpecReader.Read(text) is not null;
            }
            catch (InvalidSpecException e)
            {
                return e.Errors.Count > 0 && e.Errors.All(error => error.Field.Length > 0 && error.Message.Length > 0);
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(500));

        static IEnumerable<string> Leaves(JsonObject node, string path) => node.SelectMany(
            member => member.Value is JsonObject inner ? Leaves(inner, $"{path}{member.Key}.").Prepend(path + member.Key) : [path + member.Key]);

        static JsonObject Set(JsonObject root, string path, string json)
        {
            string[] names = path.Split('.');
            JsonNode? at = root;
            foreach (string name in names[..^1])
                at = (at as JsonObject)?[name];
            if (at is JsonObject target)
                target[names[^1]] = JsonNode.Parse(json);
            return root;
        }
    }

    [Theory]
    [InlineData("a/b.jsonl", true)]
    [InlineData("a..b", true)]
    [InlineData("", false)]
    [InlineData("/a", false)]
    [InlineData("a//b", false)]
    [InlineData("a/./b", false)]
    [InlineData("a/..", false)]
    [InlineData("a\\b", false)]
    [InlineData("a\nb", false)]
    public void A_path_stays_below_its_folder(string path, bool plain) => Assert.Equal(plain, SpecReader.IsPlainRelativePath(path));

    [Fact]
    public void The_specs_in_samples_are_valid_and_name_the_schema()
    {
        string folder = Path.GetFullPath(Path.Combine(Path.GetDirectoryName(ThisFile())!, "../../../samples"));
        string[] files = Directory.GetFiles(folder, "*.json");
        Assert.NotEmpty(files);
        foreach (string file in files)
        {
            RunSpec spec = SpecReader.Read(File.ReadAllText(file));
            Assert.Equal("../docs/run-spec.schema.json", spec.Schema);
        }

        static string ThisFile([CallerFilePath] string path = "") => path;
    }

    [Theory]
    [InlineData("models/base")]
    [InlineData("models/base/")]
    [InlineData("inputs/abc")]
    [InlineData("model:my-model")]
    public void A_base_model_in_the_container_is_a_plain_path_or_a_registered_name(string model) =>
        Assert.Equal(model, SpecReader.ReadStored(Minimal.Replace("\"b\"", $"\"{model}\"", StringComparison.Ordinal)).Model.Base);

    [Theory]
    [InlineData("../other")]
    [InlineData("/etc")]
    [InlineData("a/../../b")]
    [InlineData("a\\\\b")]
    [InlineData("a//b")]
    [InlineData("")]
    [InlineData("a\\u0000b")]
    [InlineData("model:")]
    [InlineData("model:../../other/production")]
    [InlineData("model:A")]
    [InlineData("https://account.blob.core.windows.net/models/base?sv=2026&sig=c2VjcmV0")]
    public void A_base_model_anywhere_else_is_refused_without_being_repeated(string model)
    {
        string json = Minimal.Replace("\"b\"", $"\"{model}\"", StringComparison.Ordinal);
        SpecReader.Read(json); // the local command finds it on its own machine
        SpecError error = Assert.Single(Assert.Throws<InvalidSpecException>(() => SpecReader.ReadStored(json)).Errors);
        Assert.Equal("model.base", error.Field);
        Assert.StartsWith("must be a plain path in the container", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("c2VjcmV0", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("[")]
    [InlineData("{\"data\":")]
    [InlineData("{\"name\":\"m\",\"data\":{\"world\":{}},\"model\":{\"base\":[")]
    public void Nesting_without_end_is_refused(string opening) =>
        Assert.NotEmpty(Assert.Throws<InvalidSpecException>(() => SpecReader.Read(string.Concat(Enumerable.Repeat(opening, 20_000)))).Errors);

    private static void Refused(string json, string field, string message)
    {
        var failure = Assert.Throws<InvalidSpecException>(() => SpecReader.Read(json));
        SpecError error = Assert.Single(failure.Errors, error => error.Field == field);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    private static string With(string json, string field, string? value)
    {
        // As text, since a node holds no number such as 1e999.
        JsonObject spec = JsonNode.Parse(json)!.AsObject();
        spec.Remove(field);
        string rest = spec.ToJsonString()[1..];
        return value is null ? "{" + rest : $"{{\"{field}\":{value},{rest}";
    }
}
