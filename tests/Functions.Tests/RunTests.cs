using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.DurableTask.Client;
using Rlhf.Report;
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

    private sealed record StoredProduction(string RunId);
}
