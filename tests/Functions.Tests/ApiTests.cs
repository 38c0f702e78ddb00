using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Spec;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>Starting runs and asking after them.</summary>
public sealed class ApiTests(FunctionApp app)
{
    [Fact]
    public async Task A_start_answers_202_with_the_place_to_look_and_the_same_again_200()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        using HttpResponseMessage first = await app.Http.PostAsync("api/runs", spec.Content());
        Assert.Equal(HttpStatusCode.Accepted, first.StatusCode);
        Assert.Equal($"/api/runs/{spec.RunId}", first.Headers.Location!.ToString());
        JsonElement body = await first.Content.ReadFromJsonAsync<JsonElement>();
        Assert.Equal(spec.RunId, body.GetProperty("runId").GetString());
        Assert.Equal($"/api/runs/{spec.RunId}", body.GetProperty("statusUrl").GetString());

        using HttpResponseMessage again = await app.Http.PostAsync("api/runs", spec.Content());
        Assert.Equal(HttpStatusCode.OK, again.StatusCode);

        using HttpResponseMessage other = await app.Http.PostAsync("api/runs", spec.With("seed", 8).Content());
        Assert.Equal(HttpStatusCode.Conflict, other.StatusCode);
        Assert.Equal("application/problem+json", other.Content.Headers.ContentType!.MediaType);
        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
    }

    [Fact]
    public async Task Of_many_starts_at_once_exactly_one_makes_the_run()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        HttpStatusCode[] answers = await Task.WhenAll(Enumerable.Range(0, 12).Select(async _ =>
        {
            using HttpResponseMessage answer = await app.Http.PostAsync("api/runs", spec.Content());
            return answer.StatusCode;
        }));
        Assert.Equal(1, answers.Count(status => status == HttpStatusCode.Accepted));
        Assert.Equal(11, answers.Count(status => status == HttpStatusCode.OK));
        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
    }

    [Fact]
    public async Task A_spec_without_an_id_gets_one()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("runId", null);
        using HttpResponseMessage answer = await app.Http.PostAsync("api/runs", spec.Content());
        string runId = (await answer.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("runId").GetString()!;
        Assert.Matches("^m-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}$", runId);
        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{runId}/cancel"));
    }

    [Fact]
    public async Task A_bad_spec_is_answered_by_every_bad_field()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app))
            .With("ppo.clipRnage", 0.2).With("seed", "seven").With("trainer.device", "tpu").With("sft.epochs", -1).With("runId", "Nope!");
        using HttpResponseMessage answer = await app.Http.PostAsync("api/runs", spec.Content());
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Equal("application/problem+json", answer.Content.Headers.ContentType!.MediaType);
        JsonElement problem = await answer.Content.ReadFromJsonAsync<JsonElement>();
        Assert.Equal(400, problem.GetProperty("status").GetInt32());
        Assert.Equal(
            ["ppo.clipRnage", "runId", "seed", "sft.epochs", "trainer.device"],
            problem.GetProperty("errors").EnumerateArray().Select(error => error.GetProperty("field").GetString()!).Order());
        Assert.Contains("Did you mean 'clipRange'?", problem.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{", 400)]
    [InlineData("", 400)]
    [InlineData("[]", 400)]
    public async Task A_body_that_is_no_spec_is_refused(string body, int status) =>
        Assert.Equal(status, (int)await app.PostAsync("api/runs", body));

    [Fact]
    public async Task A_spec_larger_than_any_is_refused_unread() =>
        Assert.Equal(HttpStatusCode.RequestEntityTooLarge, await app.PostAsync("api/runs", new string(' ', 300 * 1024)));

    [Theory]
    [InlineData("GET", "api/runs/no-such-run")]
    [InlineData("GET", "api/runs/no-such-run/metrics")]
    [InlineData("GET", "api/runs/no-such-run/report")]
    [InlineData("POST", "api/runs/no-such-run/cancel")]
    [InlineData("POST", "api/runs/no-such-run/pause")]
    [InlineData("POST", "api/runs/no-such-run/resume")]
    [InlineData("GET", "api/runs/..%2F..%2Fsecret")]
    [InlineData("GET", "api/runs/a%3Asft")]
    public async Task A_run_that_is_not_there_is_404(string method, string path)
    {
        using HttpResponseMessage answer = await app.Http.SendAsync(new HttpRequestMessage(new HttpMethod(method), path));
        Assert.Equal(HttpStatusCode.NotFound, answer.StatusCode);
    }

    [Fact]
    public async Task A_start_that_died_before_its_orchestration_is_completed_by_whoever_asks()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        RunSpec parsed = SpecReader.Read(spec.Json.ToJsonString()) with { RunId = null };
        string sha256 = CasDocument.Sha256(CasDocument.Serialize(parsed));
        var died = new RunDocument(spec.RunId, parsed, sha256, DateTimeOffset.UtcNow.AddMinutes(-1));
        await app.Blobs.TryCreateAsync(BlobLayout.RunDocument(spec.RunId), CasDocument.Serialize(died), CancellationToken.None);
        Assert.Null(await app.Client.GetInstanceAsync(spec.RunId, CancellationToken.None));

        using HttpResponseMessage again = await app.Http.PostAsync("api/runs", spec.Content());
        Assert.Equal(HttpStatusCode.OK, again.StatusCode);
        Assert.NotNull(await app.Client.GetInstanceAsync(spec.RunId, CancellationToken.None));
        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
    }

    [Fact]
    public async Task Runs_are_listed_without_their_stages()
    {
        TestSpec spec = await TestSpec.CreateAsync(app, "listed");
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.Stage == Stages.Sft);
        RunView[] runs = (await app.Http.GetFromJsonAsync<RunView[]>("api/runs", RlhfJson.Compact))!;
        Assert.Equal("listed", runs.Single(run => run.RunId == spec.RunId).Name);
        Assert.All(runs, run => Assert.DoesNotContain(':', run.RunId));
        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
    }

    [Fact]
    public async Task The_view_shows_progress_metrics_and_what_is_waited_for()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await app.StartAsync(spec);
        RunView waiting = await app.UntilAsync(
            spec.RunId, view => view.Activity?.Contains("waiting for a trainer", StringComparison.Ordinal) == true);
        Assert.Equal((RunStates.Running, Stages.Sft), (waiting.State, waiting.Stage));

        await using FakeTrainer trainer = app.Trainer(spec, _ => new FakeBehaviour { Steps = 5, WedgeAt = 4 });
        RunView training = await app.UntilAsync(spec.RunId, view => view.Progress?.Step == 3);
        Assert.Equal(5, training.Progress!.Total);
        Assert.NotNull(training.Progress.EtaSeconds);
        Assert.Equal(0.25, training.Metrics["loss"]);
        Assert.True(training.TrainerSeconds > 0);
        Assert.Equal(1, training.Attempts);
        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
    }

    [Fact]
    public async Task The_report_is_JSON_or_a_page_as_the_client_prefers()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        using (HttpResponseMessage none = await NotYetAsync())
            Assert.Equal(HttpStatusCode.NotFound, none.StatusCode);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.EndAsync(spec.RunId);
        Assert.Equal("application/json", await TypeAsync(null));
        Assert.Equal("application/json", await TypeAsync("application/json, text/html;q=0.5"));
        Assert.Equal("text/html", await TypeAsync("text/html,application/xhtml+xml,*/*;q=0.8"));

        async Task<HttpResponseMessage> NotYetAsync()
        {
            await app.StartAsync(spec);
            return await app.Http.GetAsync($"api/runs/{spec.RunId}/report");
        }

        async Task<string> TypeAsync(string? accept)
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, $"api/runs/{spec.RunId}/report");
            if (accept is not null)
                request.Headers.TryAddWithoutValidation("Accept", accept);
            using HttpResponseMessage answer = await app.Http.SendAsync(request);
            Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
            return answer.Content.Headers.ContentType!.MediaType!;
        }
    }
}
