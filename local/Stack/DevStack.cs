using System.Net;
using Microsoft.Extensions.Logging;
using Rlhf.Functions;
using Rlhf.Local.Engine;
using Rlhf.Local.Host;
using Rlhf.Storage;

namespace Rlhf.Local.Stack;

/// <summary>What a start of the stack needs to know.</summary>
/// <param name="StatePath">The folder of everything that outlives it.</param>
/// <param name="Address">Where the API listens; any other than loopback needs the setting FunctionsKey.</param>
/// <param name="Port">The API's port; 0 takes any free one.</param>
/// <param name="Machine">The job queue that the trainer serves: <c>rlhf-jobs-{machine}</c>.</param>
/// <param name="Verbose">Log lines of the host go to standard error too.</param>
internal sealed record StackOptions(string StatePath, IPAddress Address, int Port, string Machine, bool Verbose);

/// <summary>
/// The whole product on one machine: Azurite as storage, the function app in the embedded host, one trainer process. Started in the
/// order in which they need each other, stopped in the reverse one.
/// </summary>
internal sealed class DevStack : IAsyncDisposable
{
    public const int DefaultPort = 7071;

    private static readonly TimeSpan AzuriteGrace = TimeSpan.FromSeconds(10);

    private readonly StateFolder state;
    private readonly ChildProcess azurite;
    private readonly EmbeddedHost host;
    private readonly TrainerSupervisor trainer;

    private DevStack(StateFolder state, StoragePorts ports, StorageAccount storage, ChildProcess azurite, EmbeddedHost host, TrainerSupervisor trainer)
    {
        this.state = state;
        this.azurite = azurite;
        this.host = host;
        this.trainer = trainer;
        Storage = storage;
        StorageUrl = new Uri($"http://127.0.0.1:{ports.Blob}/devstoreaccount1");
        Completion = WatchAsync();
    }

    public StateFolder State => state;

    public StorageAccount Storage { get; }

    /// <summary>Azurite's blob service.</summary>
    public Uri StorageUrl { get; }

    /// <summary>Such as http://127.0.0.1:7071/; the routes lie below <c>api/</c>.</summary>
    public Uri BaseUrl => host.BaseUrl;

    /// <inheritdoc cref="EmbeddedHost.FunctionsKey"/>
    public string? FunctionsKey => host.FunctionsKey;

    /// <summary>Fails when a part has ended that should not have, with a message that says which and why.</summary>
    public Task Completion { get; }

    /// <summary>Starts all parts.</summary>
    /// <param name="options">What to start.</param>
    /// <param name="tell">Takes one line for the person at the terminal.</param>
    /// <param name="cancellation">Cancels the start.</param>
    /// <exception cref="UserErrorException">A part cannot start, and what to do about it.</exception>
    public static async Task<DevStack> StartAsync(StackOptions options, Action<string> tell, CancellationToken cancellation)
    {
        StateFolder state = StateFolder.Open(options.StatePath);
        ChildProcess? azurite = null;
        EmbeddedHost? host = null;
        try
        {
            // Before anything starts: a taken port is the commonest reason why nothing can.
            if (options.Port != 0 && !StateFolder.IsFree(options.Port))
                throw new PortInUseException(options.Port, new IOException());
            foreach (string role in await state.StopLeftoversAsync())
                tell($"stopped the {role} that an earlier start left behind");

            StoragePorts ports = state.TakePorts();
            azurite = await Azurite.StartAsync(state, ports, tell, cancellation);
            StorageAccount storage = StorageAccount.FromSettings(name => name == "AzureWebJobsStorage" ? ports.ConnectionString : null);
            await storage.EnsureCreatedAsync(
                [StorageAccount.JobQueue(options.Machine), StorageAccount.EventsQueue, StorageAccount.PoisonQueue], cancellation);
            TrainerSupervisor trainer = TrainerSupervisor.Start(state, TrainerSettings(state, ports, options), tell);
            try
            {
                host = await EmbeddedHost.CreateAsync(HostOptions(state, ports, options), cancellation);
            }
            catch
            {
                await trainer.DisposeAsync();
                throw;
            }

            return new DevStack(state, ports, storage, azurite, host, trainer);
        }
        catch (Exception e)
        {
            if (azurite is not null)
                await azurite.StopAsync(AzuriteGrace);
            state.ForgetProcesses();
            state.Dispose();
            throw e is HostConfigurationException or PortInUseException or HubUnavailableException ? new UserErrorException(e.Message, e) : e;
        }
    }

    public async ValueTask DisposeAsync()
    {
        // The trainer first, while there is still storage for its last checkpoint; the host next, so that no activity fails for want of it.
        await trainer.DisposeAsync();
        await host.DisposeAsync();
        await azurite.StopAsync(AzuriteGrace);
        azurite.Dispose();
        state.ForgetProcesses();
        state.Dispose();
    }

    private async Task WatchAsync()
    {
        Task ended = await Task.WhenAny(trainer.Completion, host.Completion, azurite.Exit);
        if (ended == azurite.Exit && !trainer.Completion.IsCompleted)
        {
            throw new UserErrorException(
                $"Azurite ended with exit code {await azurite.Exit}. Its last words ({state.Log("azurite")}):\n"
                + $"{string.Join("\n", azurite.LastLines(5))}\nStart again to carry on.");
        }

        try
        {
            await ended;
        }
        catch (HubUnavailableException e)
        {
            throw new UserErrorException(e.Message, e);
        }
    }

    private static EmbeddedHostOptions HostOptions(StateFolder state, StoragePorts ports, StackOptions options) => new()
    {
        DatabasePath = state.Database,
        Assemblies = [typeof(DevStack).Assembly],
        Address = options.Address,
        Port = options.Port,
        Settings = new Dictionary<string, string?>
        {
            ["AzureWebJobsStorage"] = ports.ConnectionString,
            // Without Retrain__Spec the timer has nothing to start; its schedule must be there all the same.
            ["Retrain__Schedule"] = Environment.GetEnvironmentVariable("Retrain__Schedule") ?? "0 */10 * * * *",
        },
        ConfigureServices = (services, configuration) => services.AddRlhf(configuration),
        ConfigureLogging = logging => ConfigureLogging(logging, state.Log("host"), options.Verbose),
    };

    /// <summary>The host's lines go to a file, and where asked for to standard error too.</summary>
    internal static void ConfigureLogging(ILoggingBuilder logging, string file, bool verbose)
    {
        logging.AddProvider(new LogFile(file));
        // The display asks twice a second how the run stands: five lines for each request would bury everything else.
        logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning);
        if (verbose)
            logging.AddConsole(console => console.LogToStandardErrorThreshold = LogLevel.Trace);
    }

    private static Dictionary<string, string> TrainerSettings(StateFolder state, StoragePorts ports, StackOptions options) => new()
    {
        ["AzureWebJobsStorage"] = ports.ConnectionString,
        ["RLHF_MACHINE"] = options.Machine,
        ["RLHF_CACHE"] = Path.Combine(state.Root, "cache"),
        ["RLHF_GRACE_SECONDS"] = "10",
        // OpenMP's default is to spin while it waits, which starves a machine that also runs the host and the storage.
        ["OMP_WAIT_POLICY"] = Environment.GetEnvironmentVariable("OMP_WAIT_POLICY") ?? "PASSIVE",
    };
}
