using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Rlhf.EndToEnd.Tests;

/// <summary>The run API from outside, against the whole stack: what people do to a run while it goes.</summary>
[Collection(PipelineRuns.Name)]
public sealed partial class RunControlTests
{
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(3);

    [Fact]
    public async Task Pause_stops_the_steps_resume_lets_them_go_on_and_cancel_ends_the_run()
    {
        using var workspace = new Workspace();
        await using LocalProcess local = LocalProcess.Start(workspace.Root, null, "up", "--port", "0", "--state", workspace.State);
        Match url = Url().Match(await local.WaitForAsync("Ctrl+C", Limit));
        using var http = new HttpClient { BaseAddress = new Uri(url.Value.Replace("/runs", "/", StringComparison.Ordinal)) };

        string spec = LongPretraining("controlled");
        using (HttpResponseMessage started = await PostAsync(http, "runs", spec))
        {
            Assert.Equal(HttpStatusCode.Accepted, started.StatusCode);
            Assert.NotNull(started.Headers.Location);
        }

        using (HttpResponseMessage again = await PostAsync(http, "runs", spec))
            Assert.Equal(HttpStatusCode.OK, again.StatusCode);

        await WaitAsync(http, run => run is { Stage: Stages.Pretrain, Progress.Step: > 0 });
        using (HttpResponseMessage paused = await PostAsync(http, "runs/controlled/pause", string.Empty))
            Assert.True(paused.IsSuccessStatusCode, $"{paused.StatusCode}");
        RunView still = await WaitAsync(http, run => run.State == RunStates.Paused);
        await Task.Delay(TimeSpan.FromSeconds(2), TestContext.Current.CancellationToken);
        Assert.Equal(still.Progress!.Step, (await GetAsync(http)).Progress!.Step);

        using (HttpResponseMessage resumed = await PostAsync(http, "runs/controlled/resume", string.Empty))
            Assert.True(resumed.IsSuccessStatusCode, $"{resumed.StatusCode}");
        await WaitAsync(http, run => run.State == RunStates.Running && run.Progress?.Step > still.Progress.Step);

        using (HttpResponseMessage cancelled = await PostAsync(http, "runs/controlled/cancel", string.Empty))
            Assert.True(cancelled.IsSuccessStatusCode, $"{cancelled.StatusCode}");
        RunView end = await WaitAsync(http, run => RunStates.IsFinal(run.State));
        Assert.Equal(RunStates.Cancelled, end.State);

        local.Terminate();
        Assert.Equal(0, await local.ExitAsync(Limit));
        Assert.False(File.Exists(Path.Combine(workspace.State, "pids.json")), "nothing of the stack is left running");
    }

    /// <summary>The smoke run with so many pretraining steps that it cannot end before the test is through with it.</summary>
    private static string LongPretraining(string runId)
    {
        JsonNode spec = JsonNode.Parse(File.ReadAllText(Path.Combine(LocalProcess.Samples, "smoke.json")))!;
        spec["runId"] = runId;
        spec["pretrain"]!["steps"] = 100_000;
        return spec.ToJsonString();
    }

    private static async Task<HttpResponseMessage> PostAsync(HttpClient http, string path, string json)
    {
        using var body = new StringContent(json, Encoding.UTF8, "application/json");
        return await http.PostAsync(path, body, TestContext.Current.CancellationToken);
    }

    private static async Task<RunView> GetAsync(HttpClient http) =>
        (await http.GetFromJsonAsync<RunView>("runs/controlled", RlhfJson.Compact, TestContext.Current.CancellationToken))!;

    private static async Task<RunView> WaitAsync(HttpClient http, Func<RunView, bool> condition)
    {
        RunView run = await GetAsync(http);
        for (DateTime end = DateTime.UtcNow + Limit; !condition(run); run = await GetAsync(http))
        {
            Assert.True(DateTime.UtcNow < end, JsonSerializer.Serialize(run, RlhfJson.Indented));
            await Task.Delay(200, TestContext.Current.CancellationToken);
        }

        return run;
    }

    [GeneratedRegex("http://127\\.0\\.0\\.1:[0-9]+/api/runs")]
    private static partial Regex Url();
}
