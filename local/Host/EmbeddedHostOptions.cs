using System.Net;
using System.Reflection;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Rlhf.Local.Host;

/// <summary>What an <see cref="EmbeddedHost"/> runs, and where.</summary>
public sealed record EmbeddedHostOptions
{
    /// <summary>The durable hub's SQLite file; its folder is made when it is missing.</summary>
    public required string DatabasePath { get; init; }

    /// <summary>Where the [Function] methods are.</summary>
    public required IReadOnlyList<Assembly> Assemblies { get; init; }

    /// <summary>Where it listens; any other than loopback needs the setting FunctionsKey.</summary>
    public IPAddress Address { get; init; } = IPAddress.Loopback;

    /// <summary>The HTTP port; 0 takes any free one.</summary>
    public int Port { get; init; }

    /// <summary>Where host.json and local.settings.json are looked for; both may be missing.</summary>
    public string ContentRoot { get; init; } = AppContext.BaseDirectory;

    /// <summary>Settings above host.json, local.settings.json and the environment. A__B and A:B are the same name.</summary>
    public IReadOnlyDictionary<string, string?> Settings { get; init; } = new Dictionary<string, string?>();

    /// <summary>Registers what the functions' constructors take; the configuration is complete when it is called.</summary>
    public Action<IServiceCollection, IConfiguration>? ConfigureServices { get; init; }

    /// <summary>Where log lines go; nowhere unless told.</summary>
    public Action<ILoggingBuilder>? ConfigureLogging { get; init; }

    /// <summary>The one source of time of engine and triggers.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>How long a stop waits for requests, activities and triggers that do not heed their cancellation token.</summary>
    public TimeSpan ShutdownTimeout { get; init; } = TimeSpan.FromSeconds(5);
}
