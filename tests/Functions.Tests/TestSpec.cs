using System.Text;
using System.Text.Json.Nodes;

namespace Rlhf.Functions.Tests;

/// <summary>
/// A run spec for the tests, as JSON that a test can change: files of its own, a base folder, a job queue of its own, short limits.
/// </summary>
public sealed class TestSpec
{
    private TestSpec(string runId, JsonObject json)
    {
        RunId = runId;
        Json = json;
    }

    public string RunId { get; }

    public JsonObject Json { get; }

    public string Name => Json["name"]!.GetValue<string>();

    public string Machine => Json["trainer"]!["machine"]!.GetValue<string>();

    /// <summary>Uploads data and a base folder, and makes the spec of a run that uses them.</summary>
    public static async Task<TestSpec> CreateAsync(FunctionApp app, string name = "m")
    {
        string id = $"t{Guid.NewGuid().ToString("N")[..10]}";
        await app.UploadAsync($"tests/{id}/preferences.jsonl", Preferences(id, 60));
        await app.UploadAsync($"tests/{id}/base/config.json", "{}");
        await app.UploadAsync($"tests/{id}/base/model.safetensors", $"weights of {id}");
        JsonObject json = JsonNode.Parse($$"""
            {
              "runId": "{{id}}", "name": "{{name}}", "seed": 7,
              "data": { "preferences": [ { "file": "tests/{{id}}/preferences.jsonl" } ], "validationFraction": 0.3, "testFraction": 0.3 },
              "model": { "base": "tests/{{id}}/base" },
              "trainer": { "machine": "{{id}}", "heartbeatSeconds": 0.2, "pollSeconds": 0.5,
                "startTimeoutSeconds": 60, "lostAfterSeconds": 30, "wedgedAfterSeconds": 60 },
              "ppo": { "iterations": 6, "iterationsPerSlice": 2, "episodes": 8, "minibatchSize": 8 }
            }
            """)!.AsObject();
        return new TestSpec(id, json);
    }

    /// <summary>Rows in hh-rlhf's form, each with a prompt of its own.</summary>
    public static string Preferences(string salt, int count)
    {
        var lines = new StringBuilder();
        for (int i = 0; i < count; i++)
        {
            string prompt = $"\\n\\nHuman: What is {salt} number {i}?\\n\\nAssistant:";
            lines.Append($$"""{"chosen": "{{prompt}} It is {{i}}.", "rejected": "{{prompt}} No idea."}""").Append('\n');
        }

        return lines.ToString();
    }

    /// <summary>Sets a field by its path, such as <c>trainer.lostAfterSeconds</c>.</summary>
    public TestSpec With(string path, JsonNode? value)
    {
        string[] names = path.Split('.');
        JsonObject node = Json;
        foreach (string name in names[..^1])
            node = (node[name] ??= new JsonObject()).AsObject();
        node[names[^1]] = value;
        return this;
    }

    public StringContent Content() => new(Json.ToJsonString(), Encoding.UTF8, "application/json");
}
