using System.Diagnostics;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Rlhf.Functions;
using Rlhf.Local.Engine;
using Rlhf.Local.Host;
using Rlhf.Local.Stack;

namespace Rlhf.Chaos.Tests;

/// <summary>The whole function app in the embedded host, as a process that can be killed alone: storage and trainers are others'.</summary>
internal sealed class FunctionHost : IAsyncDisposable
{
    public const string Command = "function-host";

    private static readonly TimeSpan StartLimit = TimeSpan.FromMinutes(2);
    private readonly OsProcess process;

    private FunctionHost(OsProcess process, Uri url)
    {
        this.process = process;
        Url = url;
    }

    /// <summary>The API.</summary>
    public Uri Url { get; }

    public bool HasExited => process.HasExited;

    /// <summary>What it has printed.</summary>
    public string Output => process.Output;

    /// <summary>The process: says when it answers, and when an orchestration has moved.</summary>
    public static async Task<int> RunAsync(string folder)
    {
        DateTimeOffset started = DateTimeOffset.UtcNow;
        await using EmbeddedHost host = await EmbeddedHost.CreateAsync(new EmbeddedHostOptions
        {
            DatabasePath = Path.Combine(folder, "durable.db"),
            Assemblies = [typeof(RlhfServices).Assembly],
            Settings = new Dictionary<string, string?> { ["Retrain__Schedule"] = "0 0 0 1 1 *" },
            ConfigureServices = (services, configuration) => services.AddRlhf(configuration),
            ConfigureLogging = logging => logging.AddProvider(new LogFile(Path.Combine(folder, "host.log"))).SetMinimumLevel(LogLevel.Warning),
        });
        Console.WriteLine($"ready {host.BaseUrl}");
        var store = host.Services.GetRequiredService<InstanceStore>();
        for (Task change = store.NextChange; !await HasMovedAsync(host, started) && !host.Completion.IsCompleted; change = store.NextChange)
            await Task.WhenAny(change, host.Completion);
        Console.WriteLine("progress");
        await host.Completion;
        return 0;
    }

    /// <summary>Starts it and waits until it answers.</summary>
    /// <param name="folder">Where its database lies.</param>
    /// <param name="connection">The storage account.</param>
    /// <param name="name">Tells its output from that of the host before it.</param>
    public static async Task<FunctionHost> StartAsync(string folder, string connection, string name)
    {
        OsProcess process = OsProcess.Start(
            [typeof(FunctionHost).Assembly.Location, Command, folder],
            new Dictionary<string, string> { ["AzureWebJobsStorage"] = connection, ["DOTNET_TieredPGO"] = "0" }, // as local/Rlhf.Local.csproj
            Path.Combine(folder, name + ".out"));
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(10))
        {
            if (process.Output.Split('\n').FirstOrDefault(line => line.StartsWith("ready ", StringComparison.Ordinal)) is { } ready)
                return new FunctionHost(process, new Uri(ready["ready ".Length..]));
            if (process.HasExited || clock.Elapsed > StartLimit)
                throw new TimeoutException($"The host did not start.\n{process.Output}");
        }
    }

    /// <summary>Waits until an orchestration has moved since the start.</summary>
    public Task MovedAsync(TimeSpan limit) => process.WaitForAsync("progress\n", limit);

    /// <summary>SIGKILL.</summary>
    public Task KillAsync() => process.KillAsync();

    public ValueTask DisposeAsync() => process.DisposeAsync();

    private static async Task<bool> HasMovedAsync(EmbeddedHost host, DateTimeOffset since)
    {
        await foreach (OrchestrationMetadata instance in host.Client.GetAllInstancesAsync())
        {
            if (instance.LastUpdatedAt > since)
                return true;
        }

        return false;
    }
}
