using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Rlhf.Local.Host;
using Rlhf.Storage;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>What nobody outside may do or see.</summary>
public sealed class SecurityTests(FunctionApp app)
{
    [Theory]
    [InlineData("POST", "api/runs")]
    [InlineData("GET", "api/runs")]
    [InlineData("GET", "api/runs/some-run")]
    [InlineData("GET", "api/runs/some-run/metrics")]
    [InlineData("GET", "api/runs/some-run/report")]
    [InlineData("POST", "api/runs/some-run/cancel")]
    [InlineData("POST", "api/runs/some-run/pause")]
    [InlineData("POST", "api/runs/some-run/resume")]
    [InlineData("POST", "api/runs/some-run/approval")]
    [InlineData("POST", "api/feedback")]
    public async Task Every_route_asks_for_the_functions_key_where_one_is_set(string method, string route)
    {
        await using EmbeddedHost host = await LockedHostAsync();
        using var http = new HttpClient { BaseAddress = host.BaseUrl };
        using var none = new HttpRequestMessage(new HttpMethod(method), route);
        using HttpResponseMessage refused = await http.SendAsync(none);
        Assert.Equal(HttpStatusCode.Unauthorized, refused.StatusCode);
        Assert.Empty(await refused.Content.ReadAsStringAsync());
    }

    [Fact]
    public async Task No_function_answers_without_a_key_that_the_list_above_does_not_name()
    {
        await using EmbeddedHost host = await LockedHostAsync();
        int routes = host.Services.GetRequiredService<FunctionCatalog>().With<Microsoft.Azure.Functions.Worker.HttpTriggerAttribute>().Count();
        int listed = typeof(SecurityTests).GetMethod(nameof(Every_route_asks_for_the_functions_key_where_one_is_set))!
            .GetCustomAttributes(typeof(InlineDataAttribute), inherit: false).Length;
        Assert.Equal(listed, routes);
    }

    [Theory]
    [InlineData("../other")]
    [InlineData("a/b")]
    [InlineData("A")]
    [InlineData("a:sft")]
    [InlineData("a%00b")]
    [InlineData("con.")]
    [InlineData("a\n")]
    [InlineData("-a")]
    [InlineData("this-id-is-longer-than-the-forty-eight-characters-that-fit")]
    public async Task A_run_id_or_model_name_that_could_leave_its_place_is_refused(string name)
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("runId", name);
        using HttpResponseMessage run = await app.Http.PostAsync("api/runs", spec.Content());
        Assert.Equal(HttpStatusCode.BadRequest, run.StatusCode);
        using HttpResponseMessage model = await app.Http.PostAsync("api/runs", spec.With("runId", null).With("name", name).Content());
        Assert.Equal(HttpStatusCode.BadRequest, model.StatusCode);
        Assert.Equal(
            HttpStatusCode.BadRequest,
            await app.PostAsync($"api/feedback?model={Uri.EscapeDataString(name)}", """{"prompt":"a","chosen":"x","rejected":"y"}"""));
    }

    [Theory]
    [InlineData("../run.json")]
    [InlineData("/etc/passwd")]
    [InlineData("a/../../b.jsonl")]
    [InlineData("a\\b.jsonl")]
    [InlineData("a//b.jsonl")]
    [InlineData("a\u0000.jsonl")]
    public async Task A_data_file_outside_its_folder_is_refused(string file)
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        spec.Json["data"]!["preferences"]![0]!["file"] = file;
        using HttpResponseMessage answer = await app.Http.PostAsync("api/runs", spec.Content());
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Contains("data.preferences[0].file", await answer.Content.ReadAsStringAsync(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("../base")]
    [InlineData("/base")]
    [InlineData("a\\b")]
    [InlineData("model:../../other")]
    [InlineData("https://account.blob.core.windows.net/models?sv=2026&sig=c2VjcmV0LXNpZ25hdHVyZQ")]
    public async Task A_base_model_outside_the_container_is_refused_and_its_secret_kept_nowhere(string model)
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("model.base", model);
        using HttpResponseMessage answer = await app.Http.PostAsync("api/runs", spec.Content());
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        string text = await answer.Content.ReadAsStringAsync();
        Assert.Contains("model.base", text, StringComparison.Ordinal);
        Assert.DoesNotContain("c2VjcmV0", text, StringComparison.Ordinal);
        Assert.Null(await app.TextAsync(BlobLayout.RunDocument(spec.RunId)));
    }

    [Theory]
    [InlineData("https://me:c2VjcmV0@rewards.example/score")]
    [InlineData("https://rewards.example/score?sv=2026&sig=c2VjcmV0")]
    [InlineData("https://rewards.example/api/score?code=c2VjcmV0")]
    public async Task A_reward_endpoint_whose_address_holds_a_secret_is_refused_and_the_secret_kept_nowhere(string url)
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        spec.Json["rewards"] = new JsonArray(new JsonObject { ["source"] = "http", ["url"] = url });
        using HttpResponseMessage answer = await app.Http.PostAsync("api/runs", spec.Content());
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        string text = await answer.Content.ReadAsStringAsync();
        Assert.Contains("rewards[0].url", text, StringComparison.Ordinal);
        Assert.DoesNotContain("c2VjcmV0", text, StringComparison.Ordinal);
        Assert.Null(await app.TextAsync(BlobLayout.RunDocument(spec.RunId)));
    }

    [Theory]
    [InlineData("api/runs", 200_000)]
    [InlineData("api/runs/x/approval", 16_000)]
    public async Task A_body_nested_without_end_is_refused(string path, int depth)
    {
        Assert.Equal(HttpStatusCode.BadRequest, await app.PostAsync(path, new string('[', depth)));
    }

    [Fact]
    public async Task Feedback_nested_without_end_is_rejected_by_its_line()
    {
        using HttpResponseMessage answer = await app.Http.PostAsync("api/feedback?model=nested", new StringContent(new string('[', 500_000)));
        Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
        string text = await answer.Content.ReadAsStringAsync();
        Assert.Contains("\"accepted\":0", text, StringComparison.Ordinal);
        Assert.Contains("is not valid JSON", text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_stage_that_is_a_path_is_refused()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await app.StartAsync(spec);
        foreach (string stage in new[] { "../../other", "sft%2F..%2F..%2F", "..", "sft/" })
        {
            using HttpResponseMessage answer = await app.Http.GetAsync($"api/runs/{spec.RunId}/metrics?stage={stage}");
            Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        }

        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
    }

    [Theory]
    [InlineData("api/runs", 256 * 1024)]
    [InlineData("api/feedback", 8 * 1024 * 1024)]
    public async Task A_body_beyond_the_limit_is_refused_also_when_its_length_is_not_said(string path, int limit)
    {
        using var endless = new StreamContent(new Blanks(limit + 1));
        endless.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = endless };
        request.Headers.TransferEncodingChunked = true;
        using HttpResponseMessage answer = await app.Http.SendAsync(request);
        Assert.Equal(HttpStatusCode.RequestEntityTooLarge, answer.StatusCode);
    }

    [Fact]
    public async Task An_approval_beyond_the_limit_is_refused()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await app.StartAsync(spec);
        string note = new('x', 17 * 1024);
        Assert.Equal(
            HttpStatusCode.RequestEntityTooLarge,
            await app.PostAsync($"api/runs/{spec.RunId}/approval", $$"""{"approved":true,"note":"{{note}}"}"""));
        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
    }

    [Fact]
    public async Task The_storage_key_stands_in_no_blob_answer_log_or_history()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        await app.EndAsync(spec.RunId);

        string secret = app.StorageKey;
        Assert.True(secret.Length > 40);
        var places = new Dictionary<string, string>
        {
            ["status"] = await app.Http.GetStringAsync($"api/runs/{spec.RunId}"),
            ["metrics"] = await app.Http.GetStringAsync($"api/runs/{spec.RunId}/metrics"),
            ["report"] = await app.Http.GetStringAsync($"api/runs/{spec.RunId}/report"),
        };
        await foreach (BlobEntry blob in app.Blobs.ListAsync(BlobLayout.Run(spec.RunId), CancellationToken.None))
            places[blob.Path] = (await app.TextAsync(blob.Path))!;
        foreach (string file in app.LocalFiles())
            places[file] = Encoding.Latin1.GetString(await ReadSharedAsync(file));
        Assert.Contains(places.Keys, place => place.EndsWith(".db", StringComparison.Ordinal));
        Assert.Contains(places.Keys, place => place.EndsWith("job.json", StringComparison.Ordinal));
        Assert.Empty(places.Where(place => place.Value.Contains(secret, StringComparison.Ordinal)).Select(place => place.Key));
    }

    [Fact]
    public async Task An_approval_with_half_a_character_or_bytes_that_are_no_text_is_refused()
    {
        Assert.Equal(HttpStatusCode.BadRequest, await app.PostAsync("api/runs/x/approval", """{"approved":true,"note":"\ud800"}"""));
        using HttpResponseMessage answer = await app.Http.PostAsync("api/runs/x/approval", new ByteArrayContent([0xC3, 0x28]));
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
    }

    [Fact]
    public void A_connection_string_that_is_none_is_refused_without_being_repeated()
    {
        const string secret = "c2VjcmV0LWFjY291bnQta2V5LXRoYXQtbm9ib2R5LW1heS1zZWU";
        Exception error = Assert.ThrowsAny<Exception>(() => StorageAccount.FromSettings(
            name => name == "AzureWebJobsStorage" ? $"DefaultEndpointsProtocol=https;AccountName=a b;AccountKey={secret}" : null));
        Assert.DoesNotContain(secret, error.ToString(), StringComparison.Ordinal);
    }

    /// <summary>A second host on the same storage, with a key; its triggers stay out of the first one's way.</summary>
    private Task<EmbeddedHost> LockedHostAsync() => EmbeddedHost.CreateAsync(new EmbeddedHostOptions
    {
        DatabasePath = Path.Combine(Directory.CreateTempSubdirectory("rlhf-locked-").FullName, "durable.db"),
        Assemblies = [typeof(RlhfServices).Assembly],
        Settings = new Dictionary<string, string?>
        {
            ["FunctionsKey"] = "right",
            ["AzureWebJobsStorage"] = app.ConnectionString,
            ["AzureWebJobs.OnJobEvent.Disabled"] = "true",
            ["AzureWebJobs.Retrain.Disabled"] = "true",
            ["Retrain__Schedule"] = "0 0 0 1 1 *",
        },
        ConfigureServices = (services, configuration) => services.AddRlhf(configuration),
    });

    private static async Task<byte[]> ReadSharedAsync(string file)
    {
        await using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        using var content = new MemoryStream();
        await stream.CopyToAsync(content);
        return content.ToArray();
    }

    /// <summary>So many blanks; its length is not known beforehand.</summary>
    private sealed class Blanks(long count) : Stream
    {
        private long left = count;

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => throw new NotSupportedException();
            set => throw new NotSupportedException();
        }

        public override int Read(byte[] buffer, int offset, int count)
        {
            int read = (int)Math.Min(left, count);
            buffer.AsSpan(offset, read).Fill((byte)' ');
            left -= read;
            return read;
        }

        public override void Flush()
        {
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
