using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.DurableTask.Client;
using Rlhf.Report;
using Rlhf.Rows;
using Xunit;

namespace Rlhf.Functions.Tests;

public sealed class RunTests(FunctionApp app)
{
    [Fact]
    public async Task A_run_goes_from_its_files_to_its_report()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("promotion.minRewardGain", 0.2).With("budget.pricePerTrainerHour", 3600);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);

        Assert.Equal(RunStates.Succeeded, view.State);
        Assert.Null(view.Error);
        Assert.Equal(
            [
                "data succeeded", "pretrain skipped", "sft succeeded", "reward succeeded", "ppo succeeded", "evaluate succeeded",
                "promote succeeded",
            ],
            view.Stages.Select(stage => $"{stage.Name} {stage.State}"));
        Assert.Equal(
            ["sft 1", "reward 1", "ppo 1", "ppo 2", "ppo 3", "evaluate 1"], trainer.Claims.Select(claim => $"{claim.Stage} {claim.Fence}"));
        Assert.Equal(6, view.Attempts);
        OrchestrationMetadata? instance = await app.Client.GetInstanceAsync(spec.RunId, getInputsAndOutputs: true, CancellationToken.None);
        Assert.Equal(OrchestrationRuntimeStatus.Completed, instance!.RuntimeStatus);
        Assert.InRange(instance.SerializedCustomStatus!.Length, 1, 8 * 1024);
        Assert.True(view.TrainerSeconds > 0);
        Assert.Equal(view.TrainerSeconds, view.Cost, 6);

        RunReport report = (await app.Http.GetFromJsonAsync<RunReport>($"api/runs/{spec.RunId}/report", RlhfJson.Compact))!;
        Assert.Equal(RunStates.Succeeded, report.State);
        Assert.Equal(["base", "ppo", "reward", "sft"], report.Models.Keys.Order());
        Assert.Equal([2, 4, 6], report.Curve.Select(point => point.Step));
        Assert.Equal([0.2, 0.4, 0.6], report.Curve.Select(point => Math.Round(point.ProxyReward, 6)));
        Assert.True(report.Promotion!.Promoted, report.Promotion.Reason);
        Assert.Equal(2, report.Evaluation!.Table.Count);
        Assert.Equal(60, report.Data!.Files.Single().Rows);
        Assert.Equal(3, report.Stages.Single(stage => stage.Name == "ppo").Attempts);
        Assert.InRange(report.Time.Overhead, 0, 1);
        LineageEntry policy = report.Lineage.Last(entry => entry.Stage == "ppo");
        Assert.Equal(report.Models["ppo"].Sha256, policy.Output);
        Assert.Contains(report.Models["reward"].Sha256, policy.Inputs);

        StoredProduction production = JsonSerializer.Deserialize<StoredProduction>(
            (await app.TextAsync(BlobLayout.ProductionModel("m")))!, JsonSerializerOptions.Web)!;
        Assert.NotNull(production.RunId);
        Assert.NotNull(await app.Blobs.ReadAsync(BlobLayout.ModelVersion("m", spec.RunId), CancellationToken.None));
    }

    [Fact]
    public async Task A_run_without_epochs_of_the_reward_model_ends_with_SFT()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app, "tuned")).With("reward.epochs", 0);
        await app.UploadAsync($"tests/{spec.RunId}/demos.jsonl", string.Join('\n', Enumerable.Range(0, 30).Select(i =>
            $$"""{"prompt": "Question {{i}}?", "completion": "Answer {{i}}."}""")));
        spec.With("data", System.Text.Json.Nodes.JsonNode.Parse($$"""
            { "demonstrations": [ { "file": "tests/{{spec.RunId}}/demos.jsonl" } ],
              "evaluation": [ { "file": "tests/{{spec.RunId}}/preferences.jsonl" } ] }
            """));
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);

        Assert.Null(view.Error);
        Assert.Equal(RunStates.Succeeded, view.State);
        Assert.Equal(
            [
                "data succeeded", "pretrain skipped", "sft succeeded", "reward skipped", "ppo skipped", "evaluate succeeded",
                "promote succeeded",
            ],
            view.Stages.Select(stage => $"{stage.Name} {stage.State}"));
        RunReport report = (await app.Http.GetFromJsonAsync<RunReport>($"api/runs/{spec.RunId}/report", RlhfJson.Compact))!;
        Assert.Equal(["base", "sft"], report.Models.Keys.Order());
        Assert.True(report.Promotion!.Promoted);
        string production = (await app.TextAsync(BlobLayout.ProductionModel("tuned")))!;
        Assert.Contains(report.Models["sft"].Sha256, production, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("dpo", "dpo 1")]
    [InlineData("rloo", "rloo 1, rloo 2, rloo 3")]
    [InlineData("grpo", "grpo 1, grpo 2, grpo 3")]
    public async Task A_method_gives_stage_model_and_report_its_name(string method, string attempts)
    {
        TestSpec spec = (await TestSpec.CreateAsync(app, $"by-{method}")).With("promotion.minRewardGain", 0.2).With("method", method);
        spec.Json.Remove("ppo");
        if (method != "dpo")
            spec.With($"{method}.iterations", 6).With($"{method}.iterationsPerSlice", 2);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);

        Assert.Null(view.Error);
        Assert.Equal(
            ["data", "pretrain", "sft", "reward", method, "evaluate", "promote"], view.Stages.Select(stage => stage.Name));
        Assert.Equal(
            $"sft 1, reward 1, {attempts}, evaluate 1", string.Join(", ", trainer.Claims.Select(claim => $"{claim.Stage} {claim.Fence}")));
        string metrics = await app.Http.GetStringAsync($"api/runs/{spec.RunId}/metrics?stage={method}");
        Assert.Contains($"\"stage\":\"{method}\"", metrics, StringComparison.Ordinal);
        Assert.Equal(
            System.Net.HttpStatusCode.BadRequest, (await app.Http.GetAsync($"api/runs/{spec.RunId}/metrics?stage=ppo")).StatusCode);

        RunReport report = await app.ReportAsync(spec.RunId);
        Assert.Equal(new[] { "base", method, "reward", "sft" }.Order(), report.Models.Keys.Order());
        Assert.Equal(method == "dpo" ? ["dpo 3"] : [$"{method} 2", $"{method} 4", $"{method} 6"], report.Curve.Select(point => point.Label));
        Assert.True(report.Promotion!.Promoted, report.Promotion.Reason);
        Assert.StartsWith($"{method.ToUpperInvariant()} raised the proxy reward", report.Summary, StringComparison.Ordinal);
        Assert.Equal("It is 1.", report.Evaluation!.Samples.Single().Aligned(report.Spec.Method));
        string page = (await app.TextAsync(BlobLayout.ReportPage(spec.RunId)))!;
        Assert.Contains($"after SFT and after {method.ToUpperInvariant()}", page, StringComparison.Ordinal);
        Assert.DoesNotContain("PPO", page, StringComparison.Ordinal);

        IReadOnlyDictionary<string, DatasetRef> inputs = (await app.JobAsync(spec.RunId, method))!.Spec.Datasets;
        Assert.Equal(
            method == "dpo" ? ["preferences.train", "preferences.validation", "prompts.validation"] : ["prompts.train", "prompts.validation"],
            inputs.Keys.Order());
        Assert.Contains(
            report.Models[method].Sha256, await app.TextAsync(BlobLayout.ProductionModel(spec.Name)) ?? "", StringComparison.Ordinal);
    }

    private sealed record StoredProduction(string RunId);
}
