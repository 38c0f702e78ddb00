using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.Azure.Functions.Worker;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using Rlhf.Functions.Activities;
using Rlhf.Functions.Http;
using Rlhf.Functions.Timers;
using Rlhf.Jobs;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>Feedback, and the timer that trains on it.</summary>
public sealed class FeedbackTests(FunctionApp app)
{
    private const string Row = """{"prompt": "How?", "chosen": "So.", "rejected": "No."}""";

    [Fact]
    public async Task Good_rows_are_kept_and_bad_ones_come_back_with_line_and_reason()
    {
        string model = NewModel();
        JsonElement answer = await SendAsync(model, $"{Row}\n\n{{\"prompt\": \"alone\"}}\nnonsense\r\n{Row}\r\n");
        Assert.Equal(2, answer.GetProperty("accepted").GetInt32());
        Assert.Equal([3, 4], answer.GetProperty("rejected").EnumerateArray().Select(line => line.GetProperty("line").GetInt32()));
        Assert.Contains("is no preference", answer.GetProperty("rejected")[0].GetProperty("reason").GetString(), StringComparison.Ordinal);

        List<string> blobs = [];
        await foreach (Storage.BlobEntry entry in app.Blobs.ListAsync(BlobLayout.Feedback(model), CancellationToken.None))
            blobs.Add(entry.Path);
        Assert.Equal($"{Row}\n{Row}\n", await app.TextAsync(blobs.Single()));
    }

    [Fact]
    public async Task Feedback_without_a_usable_row_stores_nothing()
    {
        string model = NewModel();
        Assert.Equal(0, (await SendAsync(model, "nonsense")).GetProperty("accepted").GetInt32());
        Assert.Equal(HttpStatusCode.BadRequest, await app.PostAsync($"api/feedback?model={model}", " \n "));
        Assert.Equal(HttpStatusCode.BadRequest, await app.PostAsync("api/feedback?model=No%2FGood", Row));
        await foreach (Storage.BlobEntry entry in app.Blobs.ListAsync(BlobLayout.Feedback(model), CancellationToken.None))
            Assert.Fail($"{entry.Path} was stored.");
    }

    [Fact]
    public async Task Too_much_feedback_at_once_is_refused() =>
        Assert.Equal(HttpStatusCode.RequestEntityTooLarge, await app.PostAsync("api/feedback", new string('x', (8 * 1024 * 1024) + 1)));

    [Fact]
    public async Task Enough_feedback_starts_one_run_and_the_next_waits_for_its_end()
    {
        (string model, Retrain timer, _) = await TimerAsync(minRows: 3);
        await SendAsync(model, $"{Row}\n{Row}\n");
        await TickAsync(timer);
        Assert.Null(await RunAsync(model, 1));

        await SendAsync(model, Row);
        await TickAsync(timer);
        RunDocument run = (await RunAsync(model, 1))!;
        Assert.Equal("feedback", run.Spec.Data.Preferences[^1].Subset);
        string? collected = await app.TextAsync(run.Spec.Data.Preferences[^1].File);
        Assert.Equal($"{Row}\n{Row}\n{Row}\n", collected);
        FeedbackWatermark watermark = await WatermarkAsync(model);
        Assert.Equal((1, $"{model}-retrain-0001", null), (watermark.Sequence, watermark.RunId, watermark.Plan));

        // What has gone into a run is not new any more, and while that run goes on no other starts.
        await TickAsync(timer);
        await SendAsync(model, $"{Row}\n{Row}\n{Row}\n{Row}\n");
        await TickAsync(timer);
        Assert.Null(await RunAsync(model, 2));

        await app.PostAsync($"api/runs/{model}-retrain-0001/cancel");
        await app.EndAsync($"{model}-retrain-0001");
        await TickAsync(timer);
        Assert.NotNull(await RunAsync(model, 2));
        await app.PostAsync($"api/runs/{model}-retrain-0002/cancel");
    }

    [Fact]
    public async Task A_tick_that_died_on_the_way_is_taken_up_as_it_was_planned()
    {
        (string model, Retrain timer, FakeTimeProvider clock) = await TimerAsync(minRows: 1);
        await SendAsync(model, Row);
        string first = await NewestAsync(model);
        var planned = new FeedbackWatermark(4, string.Empty, null, new RetrainPlan($"{model}-retrain-0005", first, 1));
        await app.Blobs.TryCreateAsync(BlobLayout.FeedbackWatermark(model), CasDocument.Serialize(planned), CancellationToken.None);
        clock.Advance(TimeSpan.FromSeconds(1));
        await SendAsync(model, $"{Row}\n{Row}\n"); // Came after the plan: for the run after.

        await TickAsync(timer);
        RunDocument run = (await RunAsync(model, 5))!;
        Assert.Equal($"{Row}\n", await app.TextAsync(run.Spec.Data.Preferences[^1].File));
        Assert.Equal((5, first), ((await WatermarkAsync(model)).Sequence, (await WatermarkAsync(model)).UpTo));
        await app.PostAsync($"api/runs/{model}-retrain-0005/cancel");
    }

    [Fact]
    public async Task Ticks_at_the_same_time_start_one_run()
    {
        (string model, Retrain timer, _) = await TimerAsync(minRows: 1);
        await SendAsync(model, Row);
        await Task.WhenAll(Enumerable.Range(0, 6).Select(_ => TickAsync(timer)));
        await TickAsync(timer);
        Assert.NotNull(await RunAsync(model, 1));
        Assert.Null(await RunAsync(model, 2));
        Assert.Equal(1, (await WatermarkAsync(model)).Sequence);
        await app.PostAsync($"api/runs/{model}-retrain-0001/cancel");
    }

    [Fact]
    public async Task A_run_of_the_model_started_by_hand_is_waited_for_too()
    {
        (string model, Retrain timer, _) = await TimerAsync(minRows: 1);
        TestSpec byHand = await TestSpec.CreateAsync(app, model);
        await app.StartAsync(byHand);
        await SendAsync(model, Row);
        await TickAsync(timer);
        Assert.Null(await RunAsync(model, 1));
        await app.PostAsync($"api/runs/{byHand.RunId}/cancel");
        await app.EndAsync(byHand.RunId);
        await TickAsync(timer);
        Assert.NotNull(await RunAsync(model, 1));
        await app.PostAsync($"api/runs/{model}-retrain-0001/cancel");
    }

    [Fact]
    public async Task A_promoted_model_is_the_next_run_s_base()
    {
        (string model, Retrain timer, _) = await TimerAsync(minRows: 1);
        var production = new ProductionModel(model, "earlier", new ModelRef("cas/ab/ab", "ab"), DateTime.UtcNow, null);
        await app.Blobs.TryCreateAsync(BlobLayout.ProductionModel(model), CasDocument.Serialize(production), CancellationToken.None);
        await SendAsync(model, Row);
        await TickAsync(timer);
        Assert.Equal($"model:{model}", (await RunAsync(model, 1))!.Spec.Model.Base);
        await app.PostAsync($"api/runs/{model}-retrain-0001/cancel");
    }

    [Fact]
    public async Task Feedback_that_has_just_come_waits_for_the_next_tick()
    {
        (string model, Retrain timer, FakeTimeProvider clock) = await TimerAsync(minRows: 1, settleSeconds: 60);
        await SendAsync(model, Row);
        await TickAsync(timer);
        Assert.Null(await RunAsync(model, 1));
        clock.Advance(TimeSpan.FromMinutes(2));
        await TickAsync(timer);
        Assert.NotNull(await RunAsync(model, 1));
        await app.PostAsync($"api/runs/{model}-retrain-0001/cancel");
    }

    private static string NewModel() => $"f{Guid.NewGuid().ToString("N")[..10]}";

    private static Task TickAsync(Retrain timer, FunctionApp app) => timer.RunAsync(new TimerInfo(), app.Client, CancellationToken.None);

    private Task TickAsync(Retrain timer) => TickAsync(timer, app);

    private async Task<(string Model, Retrain Timer, FakeTimeProvider Clock)> TimerAsync(int minRows, double settleSeconds = 0)
    {
        string model = NewModel();
        TestSpec spec = (await TestSpec.CreateAsync(app, model)).With("runId", null);
        await app.UploadAsync($"tests/{model}/retrain.json", spec.Json.ToJsonString());
        var settings = new RetrainSettings(minRows, $"tests/{model}/retrain.json", null, TimeSpan.FromSeconds(settleSeconds));
        var clock = new FakeTimeProvider(DateTimeOffset.UtcNow);
        if (settleSeconds == 0)
            clock.Advance(TimeSpan.FromHours(1)); // The API stamps feedback with the real time, which goes on.
        return (model, new Retrain(app.Blobs, app.Service<RunStart>(), settings, clock, NullLogger<Retrain>.Instance), clock);
    }

    private async Task<JsonElement> SendAsync(string model, string rows)
    {
        using HttpResponseMessage answer = await app.Http.PostAsync($"api/feedback?model={model}", new StringContent(rows));
        Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
        return await answer.Content.ReadFromJsonAsync<JsonElement>();
    }

    private Task<RunDocument?> RunAsync(string model, int sequence) =>
        app.Blobs.ReadJsonAsync<RunDocument>(BlobLayout.RunDocument($"{model}-retrain-{sequence:D4}"), CancellationToken.None);

    private async Task<FeedbackWatermark> WatermarkAsync(string model) =>
        (await app.Blobs.ReadJsonAsync<FeedbackWatermark>(BlobLayout.FeedbackWatermark(model), CancellationToken.None))!;

    private async Task<string> NewestAsync(string model)
    {
        string folder = BlobLayout.Feedback(model);
        string newest = string.Empty;
        await foreach (Storage.BlobEntry entry in app.Blobs.ListAsync(folder, CancellationToken.None))
            newest = entry.Path[folder.Length..];
        return newest;
    }
}
