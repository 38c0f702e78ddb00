using System.Net;
using System.Net.Sockets;
using System.Text.Json.Nodes;

namespace Rlhf.EndToEnd.Tests;

/// <summary>What people get wrong: a message that names the thing and the remedy, exit code 2, no stack trace, nothing half-written.</summary>
public sealed class BadInputTests
{
    private const string GoodRow = """{"prompt": "What is 2 + 2?", "chosen": "4", "rejected": "5"}""";
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(3);

    [Fact]
    public async Task Malformed_json_line_is_named_with_its_file_and_line()
    {
        using var workspace = new Workspace();
        workspace.Write("pairs.jsonl", $"{GoodRow}\n{{\"prompt\": \"cut off\n");
        await AssertRefusedAsync(workspace, FileSpec("pairs.jsonl"), ["data.preferences[0].file", "line 2", "pairs.jsonl", "not valid JSON"]);
    }

    [Fact]
    public async Task Missing_data_file_is_named_with_the_folder_and_the_option()
    {
        using var workspace = new Workspace();
        await AssertRefusedAsync(workspace, FileSpec("absent.jsonl"), ["data.preferences[0].file", "absent.jsonl", workspace.Root, "--data"]);
    }

    [Fact]
    public async Task Missing_data_folder_is_named()
    {
        using var workspace = new Workspace();
        string nowhere = Path.Combine(workspace.Root, "nowhere");
        await AssertRefusedAsync(workspace, FileSpec("pairs.jsonl"), [nowhere, "--data"], "--data", nowhere);
    }

    [Fact]
    public async Task Empty_data_set_is_named()
    {
        using var workspace = new Workspace();
        workspace.Write("pairs.jsonl", "\n\n");
        await AssertRefusedAsync(workspace, FileSpec("pairs.jsonl"), ["data.preferences[0].file", "pairs.jsonl", "empty"]);
    }

    [Fact]
    public async Task File_without_a_usable_row_fails_the_run_and_says_why()
    {
        using var workspace = new Workspace();
        workspace.Write("pairs.jsonl", """{"question": "What is 2 + 2?"}""");
        string spec = workspace.Write("spec.json", FileSpec("pairs.jsonl").ToJsonString());
        await using LocalProcess local = LocalProcess.Start(workspace.Root, null, "run", "--spec", spec, "--port", "0");

        Assert.Equal(1, await local.ExitAsync(Limit));
        Assert.StartsWith("error: ", local.Error, StringComparison.Ordinal);
        Assert.Contains("pairs.jsonl", local.Error, StringComparison.Ordinal);
        AssertNoStackTrace(local);
    }

    [Fact]
    public async Task Cut_off_gzip_file_is_named()
    {
        using var workspace = new Workspace();
        workspace.Write("pairs.jsonl.gz", "this is no gzip");
        await AssertRefusedAsync(workspace, FileSpec("pairs.jsonl.gz"), ["pairs.jsonl.gz", "gzip"]);
    }

    [Fact]
    public async Task Every_wrong_type_and_unknown_field_of_the_spec_is_named_at_once()
    {
        using var workspace = new Workspace();
        JsonNode spec = FileSpec("pairs.jsonl");
        spec["ppo"] = new JsonObject { ["clipRnage"] = 0.2, ["episodes"] = "many" };
        spec["seed"] = -1;
        await AssertRefusedAsync(workspace, spec, ["ppo.clipRnage", "clipRange", "ppo.episodes", "whole number", "seed"]);
    }

    [Fact]
    public async Task Spec_that_is_no_json_is_named_with_its_place()
    {
        using var workspace = new Workspace();
        string spec = workspace.Write("spec.json", "{ \"name\": ");
        await AssertRefusedAsync(workspace, ["spec.json", "not valid JSON", "line 1"], "run", "--spec", spec);
    }

    [Fact]
    public async Task Missing_spec_is_named()
    {
        using var workspace = new Workspace();
        await AssertRefusedAsync(workspace, ["absent.json", "--spec"], "run", "--spec", "absent.json");
    }

    [Fact]
    public async Task Base_folder_that_is_no_model_is_named_with_what_it_lacks()
    {
        using var workspace = new Workspace();
        workspace.Write("pairs.jsonl", GoodRow);
        JsonNode spec = FileSpec("pairs.jsonl");
        spec["model"] = new JsonObject { ["base"] = "basis" };
        spec.AsObject().Remove("pretrain");
        await AssertRefusedAsync(workspace, spec, ["model.base", "basis", "no folder"]);
        workspace.Write("basis/notes.txt", "no model");
        await AssertRefusedAsync(workspace, spec, ["model.base", "basis", "no model", "config.json"]);
        workspace.Write("basis/config.json", """{"model_type": "llama"}""");
        await AssertRefusedAsync(workspace, spec, ["model.base", "basis", "model.safetensors"]);
    }

    [Fact]
    public async Task Port_in_use_is_named_with_the_option()
    {
        using var workspace = new Workspace();
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        string port = ((IPEndPoint)listener.LocalEndpoint).Port.ToString(System.Globalization.CultureInfo.InvariantCulture);
        await AssertRefusedAsync(workspace, [port, "in use", "--port"], "up", "--port", port);
    }

    [Fact]
    public async Task Missing_node_is_named_with_how_to_get_it()
    {
        using var workspace = new Workspace();
        string empty = Directory.CreateDirectory(Path.Combine(workspace.Root, "bin")).FullName;
        await using LocalProcess local = LocalProcess.Start(workspace.Root, empty, "up", "--port", "0");
        await AssertRefusedAsync(workspace, local, ["Node.js", "PATH", "nodejs.org"]);
    }

    [Fact]
    public async Task Result_folder_that_is_a_file_is_named_before_anything_starts()
    {
        using var workspace = new Workspace();
        workspace.Write("pairs.jsonl", GoodRow);
        string file = workspace.Write("results", "a file");
        await AssertRefusedAsync(workspace, FileSpec("pairs.jsonl"), [file, "--out"], "--out", file);
    }

    [Fact]
    public async Task State_in_use_is_named_with_its_owner()
    {
        using var workspace = new Workspace();
        Directory.CreateDirectory(workspace.State);
        using var held = new FileStream(Path.Combine(workspace.State, "lock"), FileMode.Create, FileAccess.ReadWrite, FileShare.None);
        workspace.Write(".rlhf/owner.json", """{"processId": 4321}""");
        await AssertRefusedAsync(workspace, [workspace.State, "in use", "4321", "--state"], "up", "--port", "0");
    }

    private static JsonNode FileSpec(string file) => JsonNode.Parse($$"""
        {
          "name": "bad-input",
          "data": { "preferences": [ { "file": "{{file}}" } ] },
          "model": {
            "scratch": { "layers": 1, "hiddenSize": 32, "heads": 2, "keyValueHeads": 2, "intermediateSize": 64, "contextLength": 64 },
            "maxPromptTokens": 32, "maxCompletionTokens": 16
          },
          "pretrain": { "steps": 1, "sequenceLength": 32 }
        }
        """)!;

    private static Task AssertRefusedAsync(Workspace workspace, JsonNode spec, string[] words, params string[] more) =>
        AssertRefusedAsync(workspace, words, ["run", "--spec", workspace.Write("spec.json", spec.ToJsonString()), "--port", "0", .. more]);

    private static async Task AssertRefusedAsync(Workspace workspace, string[] words, params string[] arguments)
    {
        await using LocalProcess local = LocalProcess.Start(workspace.Root, null, arguments);
        await AssertRefusedAsync(workspace, local, words);
    }

    private static async Task AssertRefusedAsync(Workspace workspace, LocalProcess local, string[] words)
    {
        int exit = await local.ExitAsync(Limit);
        Assert.Equal(2, exit);
        Assert.StartsWith("error: ", local.Error, StringComparison.Ordinal);
        foreach (string word in words)
            Assert.Contains(word, local.Error, StringComparison.Ordinal);
        AssertNoStackTrace(local);
        Assert.False(Directory.Exists(workspace.Out), "nothing half-written");
    }

    private static void AssertNoStackTrace(LocalProcess local)
    {
        Assert.DoesNotContain("   at ", local.Error + local.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("Exception", local.Error + local.Output, StringComparison.Ordinal);
    }
}
