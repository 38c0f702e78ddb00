using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Rlhf.Functions.Tests;
using Rlhf.Jobs;
using Rlhf.Local.Host;
using Rlhf.Local.Stack;
using Rlhf.Report;
using Rlhf.Storage;
using Xunit;

[assembly: AssemblyFixture(typeof(FunctionApp))]
[assembly: Xunit.v3.Parallelization(MaxThreads = 8)]

namespace Rlhf.Functions.Tests;

/// <summary>The whole function app on the embedded host and a real Azurite, shared by all tests; each test has runs of its own.</summary>
public sealed class FunctionApp : IAsyncLifetime
{
    private readonly string folder = Directory.CreateTempSubdirectory("rlhf-functions-").FullName;
    private StateFolder state = null!;
    private ChildProcess azurite = null!;
    private EmbeddedHost host = null!;

    public HttpClient Http { get; private set; } = null!;

    public DurableTaskClient Client => host.Client;

    internal StorageAccount Storage { get; private set; } = null!;

    internal IBlobStore Blobs => Storage.Blobs;

    /// <summary>How the storage account is reached.</summary>
    internal string ConnectionString { get; private set; } = null!;

    /// <summary>The storage account's key.</summary>
    internal string StorageKey => ConnectionString.Split(';')
        .Single(part => part.StartsWith("AccountKey=", StringComparison.Ordinal))["AccountKey=".Length..];

    /// <summary>The host's log and database files.</summary>
    internal IEnumerable<string> LocalFiles() => Directory.GetFiles(folder, "*.log", SearchOption.AllDirectories)
        .Concat(Directory.GetFiles(folder, "durable.db", SearchOption.AllDirectories))
        .Concat(Directory.GetFiles(folder, "durable.db-wal", SearchOption.AllDirectories));

    public T Service<T>()
        where T : notnull => host.Services.GetRequiredService<T>();

    public async ValueTask InitializeAsync()
    {
        state = StateFolder.Open(folder);
        StoragePorts ports = state.TakePorts();
        azurite = await Azurite.StartAsync(state, ports, _ => { }, CancellationToken.None);
        var settings = new Dictionary<string, string?>
        {
            ["AzureWebJobsStorage"] = ports.ConnectionString,
            ["Retrain__Schedule"] = "0 0 0 1 1 *", // The tests tick themselves.
        };
        ConnectionString = ports.ConnectionString;
        Storage = StorageAccount.FromSettings(settings.GetValueOrDefault);
        host = await EmbeddedHost.CreateAsync(new EmbeddedHostOptions
        {
            DatabasePath = state.Database,
            Assemblies = [typeof(RlhfServices).Assembly],
            Settings = settings,
            ConfigureServices = (services, configuration) => services.AddRlhf(configuration),
            ConfigureLogging = logging => logging.AddProvider(new LogFile(state.Log("host"))).SetMinimumLevel(LogLevel.Warning),
        });
        Http = new HttpClient { BaseAddress = host.BaseUrl };
    }

    public async ValueTask DisposeAsync()
    {
        Http.Dispose();
        await host.DisposeAsync();
        await azurite.StopAsync(TimeSpan.FromSeconds(5));
        azurite.Dispose();
        state.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    /// <summary>Uploads a file below the container.</summary>
    public Task UploadAsync(string path, string content) => Blobs.WriteAsync(path, new BinaryData(content), CancellationToken.None);

    /// <summary>Starts a run and expects it to be new.</summary>
    public async Task StartAsync(TestSpec spec)
    {
        using HttpResponseMessage answer = await Http.PostAsync("api/runs", spec.Content());
        Assert.True(answer.StatusCode == HttpStatusCode.Accepted, await answer.Content.ReadAsStringAsync());
    }

    public async Task<RunView> ViewAsync(string runId) => (await Http.GetFromJsonAsync<RunView>($"api/runs/{runId}", RlhfJson.Compact))!;

    /// <summary>Polls the API until the run is as it should be. The deadline is for a machine with ten other things to do.</summary>
    public async Task<RunView> UntilAsync(string runId, Func<RunView, bool> there, double seconds = 300)
    {
        DateTime deadline = DateTime.UtcNow.AddSeconds(seconds);
        while (true)
        {
            RunView view = await ViewAsync(runId);
            if (there(view))
                return view;
            string seen = JsonSerializer.Serialize(view, RlhfJson.Compact);
            Assert.True(DateTime.UtcNow < deadline, $"The run did not get there in {seconds} s: {seen}");
            Assert.False(RunStates.IsFinal(view.State), $"The run ended before: {seen}");
            await Task.Delay(200);
        }
    }

    /// <summary>Waits for the run's end.</summary>
    public Task<RunView> EndAsync(string runId, double seconds = 300) => UntilAsync(runId, view => RunStates.IsFinal(view.State), seconds);

    public async Task<HttpStatusCode> PostAsync(string path, string? json = null)
    {
        using HttpResponseMessage answer = await Http.PostAsync(path, new StringContent(json ?? string.Empty));
        return answer.StatusCode;
    }

    /// <summary>The report of a run that is over, from storage.</summary>
    public async Task<RunReport> ReportAsync(string runId) =>
        (await Blobs.ReadJsonAsync<RunReport>(BlobLayout.Report(runId), CancellationToken.None))!;

    /// <summary>A blob's text; null when there is none.</summary>
    public async Task<string?> TextAsync(string path) => (await Blobs.ReadAsync(path, CancellationToken.None))?.Content.ToString();

    internal Task<JobDocument?> JobAsync(string runId, string stage) =>
        Blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), CancellationToken.None);

    internal FakeTrainer Trainer(TestSpec spec, Func<JobAttempt, FakeBehaviour>? behave = null) => new(Storage, spec.Machine, behave);
}
