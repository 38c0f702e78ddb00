using System.Diagnostics;
using System.Text.Json.Nodes;
using Rlhf.Report;
using Rlhf.Tests;

namespace Rlhf.EndToEnd.Tests;

/// <summary>The smoke run, shortened, by each of the methods beside PPO.</summary>
[Collection(PipelineRuns.Name)]
public sealed class MethodRunTests
{
    [Theory]
    [InlineData("rloo")]
    [InlineData("grpo")]
    public async Task A_method_carries_a_run_to_its_report(string method)
    {
        const string settings = """
            {
              "iterations": 4, "iterationsPerSlice": 2, "episodes": 8, "groupSize": 4, "minibatchSize": 8, "maxNewTokens": 12,
              "validationPrompts": 8
            }
            """;
        using var workspace = new Workspace();
        RunReport report = await RunAsync(workspace, method, settings, $"smoke-{method}");
        Assert.Equal([2, 4], report.Curve.Select(point => point.Step));
        Assert.Equal(2, report.Stages.Single(stage => stage.Name == method).Attempts);
        AssertComplete(workspace, report, method);
    }

    [Fact]
    public async Task Dpo_ends_in_the_same_weights_when_its_trainer_is_killed()
    {
        const string settings = """{"epochs":2,"batchSize":4,"validationPrompts":8}""";
        using Workspace undisturbed = new(), disturbed = new();
        RunReport report = await RunAsync(undisturbed, "dpo", settings, "smoke-dpo");
        AssertComplete(undisturbed, report, "dpo");
        IReadOnlyDictionary<string, double> metrics = report.Stages.Single(stage => stage.Name == "dpo").Metrics;
        foreach (string name in (string[])["val/loss", "val/rewards/accuracies", "val/logps/chosen", "kl", "gold_reward"])
            Assert.Contains(name, metrics);

        RunReport killed = await RunAsync(disturbed, "dpo", settings, "smoke-dpo-killed", killAt: "dpo: step");
        Assert.NotEmpty(killed.Stages.Single(stage => stage.Name == "dpo").Failures);
        Assert.Equal(RunFingerprint.Of(report), RunFingerprint.Of(killed));
    }

    private static void AssertComplete(Workspace workspace, RunReport report, string method)
    {
        Assert.Equal(Stages.All(report.Spec), report.Stages.Select(stage => stage.Name));
        Assert.True(File.Exists(Path.Combine(workspace.Out, report.RunId, "models", method, "model.safetensors")));
        Assert.NotEqual(report.Models["sft"].Sha256, report.Models[method].Sha256);
        foreach (string metric in (string[])["gold_reward", "proxy_reward", "kl", "loss"])
            Assert.NotNull(Findings.Find(report.Evaluation, method, metric));
        Assert.All(report.Evaluation!.Samples, sample => Assert.NotEmpty(sample.Aligned(report.Spec.Method)));
        Assert.DoesNotContain(report.Evaluation.Table, row => row.Model == "ppo");
    }

    private static async Task<RunReport> RunAsync(Workspace workspace, string method, string settings, string runId, string? killAt = null)
    {
        JsonObject spec = JsonNode.Parse(File.ReadAllText(Path.Combine(LocalProcess.Samples, "smoke.json")))!.AsObject();
        spec.Remove("ppo");
        spec["method"] = method;
        spec[method] = JsonNode.Parse(settings);
        spec["pretrain"]!["steps"] = 8;
        spec["evaluate"]!["maxPrompts"] = 16;
        spec["evaluate"]!["bestOf"] = new JsonArray(2);
        spec["trainer"]!["checkpointEverySteps"] = 4;
        JsonNode world = spec["data"]!["world"]!;
        (world["pretrainDocuments"], world["demonstrations"], world["preferencePrompts"]) = (200, 64, 64);
        (world["prompts"], world["evaluationPrompts"]) = (200, 16);
        string file = Path.Combine(workspace.Root, "spec.json");
        File.WriteAllText(file, spec.ToJsonString());

        string[] arguments = FinishedRun.Arguments(workspace, runId);
        arguments[Array.IndexOf(arguments, "--spec") + 1] = file;
        await using LocalProcess local = LocalProcess.Start(workspace.Root, null, arguments);
        if (killAt is not null)
        {
            await local.WaitForAsync(killAt, FinishedRun.Limit);
            using var trainer = Process.GetProcessById(LocalProcess.StackProcess(workspace.State, "trainer"));
            trainer.Kill();
        }

        Assert.True(await local.ExitAsync(FinishedRun.Limit) == 0, local.Output + local.Error);
        return FinishedRun.Read(workspace, runId);
    }
}
