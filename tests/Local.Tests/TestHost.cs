using System.Collections.Concurrent;
using System.Globalization;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Rlhf.Local.Engine;
using Rlhf.Local.Host;
using Xunit;

namespace Rlhf.Local.Tests;

/// <summary>A real embedded host on a hub of its own, with the functions of this assembly; it can be stopped and started again.</summary>
internal sealed class TestHost : IAsyncDisposable
{
    private readonly EmbeddedHostOptions _options;
    private readonly string _folder;

    private TestHost(EmbeddedHostOptions options, string folder) => (_options, _folder) = (options, folder);

    public EmbeddedHost Host { get; private set; } = null!;
    public DurableTaskClient Client => Host.Client;
    public InstanceStore Store => Host.Services.GetRequiredService<InstanceStore>();
    public DurableEngine Engine => Host.Services.GetRequiredService<DurableEngine>();
    public LogLines Log { get; } = new();
    public string DatabasePath => _options.DatabasePath;

    public static async Task<TestHost> StartAsync(
        Dictionary<string, string?>? settings = null, TimeProvider? clock = null,
        Func<EmbeddedHostOptions, EmbeddedHostOptions>? with = null)
    {
        string folder = Directory.CreateTempSubdirectory("rlhf-local-").FullName;
        var options = new EmbeddedHostOptions
        {
            DatabasePath = Path.Combine(folder, "durable.db"),
            Assemblies = [typeof(TestHost).Assembly],
            ContentRoot = folder,
            Clock = clock ?? TimeProvider.System,
            ConfigureServices = AddServices,
            Settings = new Dictionary<string, string?>(settings ?? [])
            {
                // Its connection string is set by the tests that have a queue.
                ["AzureWebJobs.QueueProbe.Disabled"] = settings?.ContainsKey("AzureWebJobsStorage") == true ? "false" : "true",
                ["Probe__Schedule"] = settings?.GetValueOrDefault("Probe__Schedule") ?? "0 0 0 1 1 *",
            },
        };
        var host = new TestHost(with?.Invoke(options) ?? options, folder);
        await host.StartAgainAsync();
        return host;
    }

    public static void AddServices(IServiceCollection services, IConfiguration configuration) =>
        services.AddSingleton<FailureCounter>().AddSingleton<TriggerProbe>();

    public async Task StartAgainAsync(Func<EmbeddedHostOptions, EmbeddedHostOptions>? with = null)
    {
        EmbeddedHostOptions options = with?.Invoke(_options) ?? _options;
        Host = await EmbeddedHost.CreateAsync(options with { ConfigureLogging = logging => logging.AddProvider(Log) });
    }

    public Task<string> BeginAsync(string orchestrator, object? input = null, string? id = null) =>
        Client.ScheduleNewOrchestrationInstanceAsync(orchestrator, input, new StartOrchestrationOptions(id));

    /// <summary>Starts an instance and waits until it is over.</summary>
    public async Task<OrchestrationMetadata> RunAsync(string orchestrator, object? input = null, string? id = null) =>
        await CompletionAsync(await BeginAsync(orchestrator, input, id));

    public async Task<OrchestrationMetadata> CompletionAsync(string id)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        limit.CancelAfter(TimeSpan.FromSeconds(60));
        return await Client.WaitForInstanceCompletionAsync(id, getInputsAndOutputs: true, limit.Token);
    }

    /// <summary>Waits until an instance looks as told; fails after a while, saying how it looks.</summary>
    public async Task<OrchestrationMetadata> UntilAsync(string id, Func<OrchestrationMetadata, bool> isReached)
    {
        OrchestrationMetadata? instance = null;
        for (int i = 0; i < 6000; i++)
        {
            instance = await Client.GetInstanceAsync(id, getInputsAndOutputs: true);
            if (instance is not null && isReached(instance)) return instance;
            await Task.Delay(5);
        }
        throw new TimeoutException(string.Create(CultureInfo.InvariantCulture,
            $"{instance} {instance?.SerializedOutput} {instance?.SerializedCustomStatus}"));
    }

    public Task<OrchestrationMetadata> UntilStatusIsAsync(string id, string status) =>
        UntilAsync(id, instance => instance.SerializedCustomStatus == $"\"{status}\"");

    public async ValueTask DisposeAsync()
    {
        await Host.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }
}

/// <summary>Keeps what the host logs.</summary>
internal sealed class LogLines : ILoggerProvider
{
    private readonly ConcurrentQueue<string> _lines = new();

    public IReadOnlyCollection<string> Lines => _lines;

    public ILogger CreateLogger(string categoryName) => new Logger(_lines);

    public void Dispose() { }

    private sealed class Logger(ConcurrentQueue<string> lines) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;
        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(
            LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            lines.Enqueue($"{logLevel}: {formatter(state, exception)} {exception?.Message}");
    }
}
