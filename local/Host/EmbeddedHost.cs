using System.Net;
using System.Net.Sockets;
using System.Runtime.ExceptionServices;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.DurableTask.Converters;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Rlhf.Local.Engine;

namespace Rlhf.Local.Host;

/// <summary>
/// A function app in this process: Kestrel on loopback unless told otherwise, timer and queue triggers, and the durable engine on one SQLite file. It goes on
/// with every orchestration that it finds there.
/// </summary>
public sealed class EmbeddedHost : IAsyncDisposable
{
    private const long LargestBody = 100 * 1024 * 1024; // as the Functions host

    private readonly WebApplication _app;
    private readonly HubDatabase _db;
    private readonly TimeSpan _shutdownTimeout;
    private readonly CancellationTokenSource _stopping = new();
    private int _isStopped;
    private int _isDisposed;

    private EmbeddedHost(WebApplication app, HubDatabase db, TimeSpan shutdownTimeout)
    {
        (_app, _db, _shutdownTimeout) = (app, db, shutdownTimeout);
        BaseUrl = new Uri(app.Urls.First());
        Completion = RunAsync();
    }

    /// <summary>Such as http://127.0.0.1:7071/; function routes have host.json's prefix, api.</summary>
    public Uri BaseUrl { get; }

    /// <summary>What callers must send as x-functions-key; null when none is set.</summary>
    public string? FunctionsKey => Services.GetRequiredService<IConfiguration>()[HttpFunctions.KeySetting] is { Length: > 0 } key ? key : null;

    /// <summary>The functions' services.</summary>
    public IServiceProvider Services => _app.Services;

    /// <summary>The client that functions get.</summary>
    public DurableTaskClient Client => Services.GetRequiredService<DurableTaskClient>();

    /// <summary>Completes when the host is stopped; fails, with a message fit for people, when its database cannot be written.</summary>
    public Task Completion { get; }

    /// <summary>Builds the host and starts it.</summary>
    /// <exception cref="HostConfigurationException">a function or a setting is wrong.</exception>
    /// <exception cref="PortInUseException">the port is taken.</exception>
    /// <exception cref="HubUnavailableException">the database is in use, damaged or of a newer version.</exception>
    public static async Task<EmbeddedHost> CreateAsync(EmbeddedHostOptions options, CancellationToken cancellation = default)
    {
        IConfigurationRoot configuration = FunctionsSettings.Load(options.ContentRoot, options.Settings);
        if (!IPAddress.IsLoopback(options.Address) && string.IsNullOrEmpty(configuration[HttpFunctions.KeySetting]))
        {
            throw new HostConfigurationException(
                $"Listening on {options.Address} opens the API to the network: set FunctionsKey (in local.settings.json or in the "
                + "environment) to a secret that callers must send, or listen on 127.0.0.1.");
        }

        var catalog = new FunctionCatalog(options.Assemblies, name => configuration.GetValue<bool>($"AzureWebJobs.{name}.Disabled"));
        var db = new HubDatabase(options.DatabasePath);
        WebApplication? app = null;
        try
        {
            app = Build(options, configuration, catalog, db);
            await app.StartAsync(cancellation);
            return new EmbeddedHost(app, db, options.ShutdownTimeout);
        }
        catch (Exception error)
        {
            if (app is not null) await app.DisposeAsync();
            db.Dispose();
            throw error switch
            {
                IOException { InnerException: AddressInUseException inUse } => new PortInUseException(options.Port, inUse),
                SocketException refused => new HostConfigurationException(
                    $"Port {options.Port} on {options.Address} cannot be opened ({refused.Message}). " +
                    "Choose another (--port; 0 takes any free one).", refused),
                _ => error,
            };
        }
    }

    /// <summary>Takes no more requests, lets the turns at work commit, cancels activities (they run again on the next start).</summary>
    public async Task StopAsync()
    {
        if (Interlocked.Exchange(ref _isStopped, 1) == 0)
        {
            using var limit = new CancellationTokenSource(_shutdownTimeout);
            await _app.StopAsync(limit.Token);
            await _stopping.CancelAsync();
        }
        try
        {
            await Completion.WaitAsync(_shutdownTimeout);
        }
        catch (Exception error) when (error is TimeoutException or HubUnavailableException)
        {
            // Something does not heed its cancellation, or the hub has failed and Completion says so: in both cases it is left as it is.
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) != 0) return;
        await StopAsync();
        await _app.DisposeAsync();
        _db.Dispose();
        _stopping.Dispose();
    }

    private static WebApplication Build(
        EmbeddedHostOptions options, IConfigurationRoot configuration, FunctionCatalog catalog, HubDatabase db)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ContentRootPath = options.ContentRoot });
        builder.Configuration.AddConfiguration(configuration);
        // Its lines on each request hold the query, which may hold the functions key (?code=).
        builder.Logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning);
        options.ConfigureLogging?.Invoke(builder.Logging);
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.Listen(options.Address, options.Port);
            kestrel.Limits.MaxRequestBodySize = LargestBody;
            kestrel.AddServerHeader = false;
        });
        IServiceCollection services = builder.Services;
        services.AddMvcCore();
        services.AddSingleton<IHostLifetime, NoLifetime>();
        services.AddSingleton(options.Clock);
        services.AddSingleton<DataConverter>(JsonDataConverter.Default);
        services.AddSingleton(ReadEngineOptions(configuration));
        services.AddSingleton(db);
        services.AddSingleton(catalog);
        services.AddSingleton<PayloadSerializer>();
        services.AddSingleton<InstanceStore>();
        services.AddSingleton<FunctionInvoker>();
        services.AddSingleton<IDurableCode, DurableFunctions>();
        services.AddSingleton<DurableEngine>();
        services.AddSingleton<DurableTaskClient, EmbeddedDurableTaskClient>();
        services.AddSingleton<TimerTriggers>();
        services.AddSingleton<QueueTriggers>();
        options.ConfigureServices?.Invoke(services, configuration);

        WebApplication app = builder.Build();
        app.UseRouting();
        app.MapHttpFunctions(catalog, configuration);
        // Made now, so that a bad schedule or a missing connection keeps the host from starting.
        _ = app.Services.GetRequiredService<TimerTriggers>();
        _ = app.Services.GetRequiredService<QueueTriggers>();
        return app;
    }

    private static EngineOptions ReadEngineOptions(IConfiguration configuration)
    {
        const string section = "durableTask";
        var defaults = new EngineOptions();
        return defaults with
        {
            Versions = new VersionPolicy(
                configuration.Extension($"{section}:defaultVersion") ?? string.Empty,
                configuration.Extension($"{section}:versionMatchStrategy", VersionMatch.CurrentOrOlder, Enum.Parse<VersionMatch>),
                configuration.Extension($"{section}:versionFailureStrategy", VersionFailure.Reject, Enum.Parse<VersionFailure>)),
            ConcurrentActivities = configuration.Extension(
                $"{section}:maxConcurrentActivityFunctions", defaults.ConcurrentActivities, int.Parse),
        };
    }

    /// <summary>Starts engine and triggers, after Kestrel: a host whose port is taken must not touch an orchestration.</summary>
    private async Task RunAsync()
    {
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token);
        Exception? failure = null;
        await Task.WhenAll(
            GuardAsync(Services.GetRequiredService<DurableEngine>().RunAsync(ended.Token)),
            GuardAsync(Services.GetRequiredService<TimerTriggers>().RunAsync(ended.Token)),
            GuardAsync(Services.GetRequiredService<QueueTriggers>().RunAsync(ended.Token)));
        if (failure is not null) ExceptionDispatchInfo.Throw(failure);

        async Task GuardAsync(Task part)
        {
            try
            {
                await part;
            }
            catch (OperationCanceledException) when (ended.IsCancellationRequested)
            {
                // stopped
            }
            catch (Exception error)
            {
                failure ??= error;
                await ended.CancelAsync();
            }
        }
    }

    /// <summary>The host lives as long as its owner says; signals are the owner's matter.</summary>
    private sealed class NoLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;
        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
