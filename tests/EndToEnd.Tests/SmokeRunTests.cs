using System.Diagnostics;
using System.Security.Cryptography;
using System.Text.Json;
using Rlhf.Report;

namespace Rlhf.EndToEnd.Tests;

[Collection(PipelineRuns.Name)]
public sealed class SmokeRunTests(FinishedRun run)
{
    private static readonly string[] Models = ["base", "base_few_shot", "sft", "best_of_4", "best_of_16", "ppo"];
    private static readonly string[] Metrics = ["gold_reward", "proxy_reward", "helpful", "honest", "harmless", "held_out", "kl"];

    [Fact]
    public void Report_has_every_promised_field()
    {
        using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(run.Folder, "report.json")));
        JsonElement report = document.RootElement;
        AssertFields(report, "runId", "spec", "stages", "models", "evaluation", "lineage");
        Assert.Equal(FinishedRun.RunId, report.GetProperty("runId").GetString());
        foreach (JsonElement stage in report.GetProperty("stages").EnumerateArray())
            AssertFields(stage, "name", "state", "seconds", "gpuSeconds", "attempts", "metrics");
        foreach (string role in (string[])["base", "sft", "reward", "ppo"])
            AssertFields(report.GetProperty("models").GetProperty(role), "path", "sha256");
        AssertFields(report.GetProperty("evaluation"), "table", "samples");
        foreach (JsonElement row in report.GetProperty("evaluation").GetProperty("table").EnumerateArray())
            AssertFields(row, "model", "metric", "value", "n", "ci95");
        foreach (JsonElement sample in report.GetProperty("evaluation").GetProperty("samples").EnumerateArray())
            AssertFields(sample, "prompt", "base", "sft", "ppo");
        Assert.NotEmpty(report.GetProperty("evaluation").GetProperty("samples").EnumerateArray());
        Assert.NotEmpty(report.GetProperty("lineage").EnumerateArray());
    }

    [Fact]
    public void Evaluation_compares_every_model_on_every_metric()
    {
        IReadOnlyList<EvaluationRow> table = run.Report.Evaluation!.Table;
        foreach (string model in Models)
        {
            // Another prompt is another distribution: the few-shot model has no KL from the SFT model.
            foreach (string metric in Metrics.Where(metric => (model, metric) is not ("base_few_shot", "kl")))
            {
                EvaluationRow row = Assert.Single(table, row => row.Model == model && row.Metric == metric);
                Assert.True(double.IsFinite(row.Value) && row.Ci95 >= 0 && row.N > 0, $"{row}");
            }
        }
    }

    [Fact]
    public void Every_stage_succeeded_and_its_metrics_can_be_read()
    {
        Assert.Equal(Stages.All(run.Report.Spec), run.Report.Stages.Select(stage => stage.Name));
        Assert.All(run.Report.Stages, stage => Assert.Equal("succeeded", stage.State));
        foreach (string stage in (string[])[Stages.Pretrain, Stages.Sft, Stages.Reward, Stages.Ppo])
        {
            string[] lines = File.ReadAllLines(Path.Combine(run.Folder, "metrics", stage + ".jsonl"));
            MetricRow[] rows = [.. lines.Select(line => JsonSerializer.Deserialize<MetricRow>(line, RlhfJson.Compact)!)];
            Assert.NotEmpty(rows);
            Assert.Equal(rows.Select(row => row.Step).Order(), rows.Select(row => row.Step));
            Assert.NotEmpty(Directory.GetFiles(Path.Combine(run.Folder, "tensorboard", stage)));
        }
    }

    [Fact]
    public void Models_lie_beside_the_report_with_the_sums_it_names()
    {
        foreach ((string role, ModelReport model) in run.Report.Models)
        {
            string folder = Path.Combine(run.Folder, model.Path);
            Assert.Equal($"models/{role}", model.Path);
            foreach (string file in (string[])["config.json", "tokenizer.json"])
                Assert.True(File.Exists(Path.Combine(folder, file)), $"{role}/{file}");
            byte[] sum = SHA256.HashData(File.ReadAllBytes(Path.Combine(folder, "model.safetensors")));
            Assert.Equal(model.Sha256, Convert.ToHexStringLower(sum));
        }
    }

    [Fact]
    public void Redirected_output_is_plain_lines_from_start_to_table()
    {
        Assert.DoesNotContain('\u001b', run.Output);
        foreach (string words in (string[])["sft: started", "ppo: succeeded", "gold_reward", "report: "])
            Assert.Contains(words, run.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Page_draws_its_table_and_plots_without_network()
    {
        string page = Path.Combine(run.Folder, "report.html");
        Assert.DoesNotMatch("""(src|href)="(https?:)?//""", await File.ReadAllTextAsync(page, TestContext.Current.CancellationToken));

        string? chromium = ((string[])["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]).FirstOrDefault(File.Exists);
        Assert.SkipWhen(chromium is null, "No Chromium on this machine ('apt-get install chromium').");
        using var workspace = new Workspace();
        var start = new ProcessStartInfo(chromium!) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in (string[])
            [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", $"--user-data-dir={workspace.Root}/profile", "--dump-dom", "file://" + page,
            ])
        {
            start.ArgumentList.Add(argument);
        }

        using Process browser = Process.Start(start)!;
        Task<string> errors = browser.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        string dom = await browser.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await browser.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.Contains("<table", dom, StringComparison.Ordinal);
        Assert.Contains("<svg", dom, StringComparison.Ordinal);
        Assert.Contains(FinishedRun.RunId, dom, StringComparison.Ordinal);
        Assert.DoesNotContain("Uncaught", await errors, StringComparison.Ordinal);
    }

    private static void AssertFields(JsonElement value, params string[] names)
    {
        foreach (string name in names)
            Assert.True(value.TryGetProperty(name, out _), $"'{name}' is missing in {value.ToString()[..Math.Min(200, value.ToString().Length)]}");
    }
}
