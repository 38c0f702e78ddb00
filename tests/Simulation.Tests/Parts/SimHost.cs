using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.DurableTask.Converters;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Rlhf.Functions;
using Rlhf.Functions.Http;
using Rlhf.Functions.Queues;
using Rlhf.Jobs;
using Rlhf.Local.Engine;
using Rlhf.Local.Host;
using Rlhf.Simulation.Core;
using Rlhf.Simulation.Storage;
using Rlhf.Storage;

namespace Rlhf.Simulation.Parts;

/// <summary>
/// The function app's host: the embedded durable engine on its SQLite file, with the real orchestrators and activities. What is not the
/// product's is the web server, which nobody calls here, and the loop that receives messages of <c>rlhf-events</c>, which takes the place
/// of the storage SDK's and calls the real function. After a crash it starts again on the same file.
/// </summary>
internal sealed class SimHost(SimWorld world, Machine machine, StorageService storage, IFaults faults) : IDisposable
{
    private static readonly TimeSpan Invisibility = TimeSpan.FromMinutes(10);
    private static readonly FunctionCatalog Functions = new([typeof(RlhfServices).Assembly], _ => false);

    private HubDatabase? hub;
    private ServiceProvider? services;

    /// <summary>The present or last life of the host.</summary>
    public SimProcess Process { get; private set; } = null!;

    public bool IsUp => Process is { IsDead: false };

    /// <summary>The instances as they stand in the database; null while the host is down.</summary>
    public InstanceStore? Instances => IsUp ? services!.GetRequiredService<InstanceStore>() : null;

    /// <summary>Starts the host.</summary>
    public void Start()
    {
        Process = new SimProcess(world, machine);
        Process.Crashed += () =>
        {
            Dispose();
            world.After(world.Between(0.2, 15), null, Start);
        };
        SimProcess process = Process;
        hub = new HubDatabase(Path.Combine(machine.Disk, "durable.db"), new CommitScheduler(process, faults));
        services = Build(process, hub);
        DurableEngine engine = services.GetRequiredService<DurableEngine>();
        process.Start(() => engine.RunAsync(CancellationToken.None), Ended);
        process.Start(() => ReceiveEventsAsync(process, services), Ended);
    }

    /// <summary>Has a function of the app's done by the host, as a request to its web server would.</summary>
    public void Request(Func<IServiceProvider, DurableTaskClient, Task> handle)
    {
        if (!IsUp)
            return;
        ServiceProvider provider = services!;
        // An error is the caller's, who asks again.
        Process.Start(() => handle(provider, provider.GetRequiredService<DurableTaskClient>()));
    }

    /// <summary>Closes the database; what was not committed is lost.</summary>
    public void Dispose() => hub?.Dispose();

    private ServiceProvider Build(SimProcess process, HubDatabase database)
    {
        var client = new StorageClient(storage, process, faults);
        var blobs = new SimBlobStore(client);
        return new ServiceCollection()
            .AddSingleton(process.Clock)
            .AddSingleton<ILoggerFactory>(world.IsTraced ? new TraceLog(world, machine.Name) : NullLoggerFactory.Instance)
            .AddSingleton(typeof(ILogger<>), typeof(Logger<>))
            .AddSingleton<IBlobStore>(blobs)
            .AddSingleton(new JobControl(blobs, name => new SimMessageQueue(client, name)))
            .AddSingleton<RunStart>()
            .AddSingleton<DataConverter>(JsonDataConverter.Default)
            .AddSingleton(new EngineOptions { ConcurrentActivities = 4 })
            .AddSingleton(database)
            .AddSingleton(Functions)
            .AddSingleton<PayloadSerializer>()
            .AddSingleton<InstanceStore>()
            .AddSingleton<FunctionInvoker>()
            .AddSingleton<IDurableCode, DurableFunctions>()
            .AddSingleton<DurableEngine>()
            .AddSingleton<DurableTaskClient, EmbeddedDurableTaskClient>()
            .BuildServiceProvider();
    }

    /// <summary>As <see cref="QueueTriggers"/>: deleted after success, left to come back after a failure.</summary>
    private async Task ReceiveEventsAsync(SimProcess process, IServiceProvider provider)
    {
        var queue = new SimMessageQueue(new StorageClient(storage, process, faults), StorageAccount.EventsQueue);
        FunctionInvoker invoker = provider.GetRequiredService<FunctionInvoker>();
        Function function = Functions.With<Microsoft.Azure.Functions.Worker.QueueTriggerAttribute>()
            .Single(entry => entry.Function.Name == nameof(JobEvents.OnJobEvent)).Function;
        while (true)
        {
            try
            {
                if (await queue.ReceiveAsync(Invisibility, CancellationToken.None) is { } delivery)
                {
                    await invoker.InvokeAsync(function, delivery.Text, FunctionInvoker.NoData, CancellationToken.None);
                    await queue.DeleteAsync(delivery, CancellationToken.None);
                }
            }
            catch (Azure.RequestFailedException)
            {
                // The next round.
            }

            await Task.Delay(TimeSpan.FromSeconds(2), process.Clock);
        }
    }

    private void Ended(Exception? error) => world.Violate("host", $"a loop of the host ended: {error}");

    /// <summary>Runs the database's commits in their turn, where the host may die before or after each.</summary>
    private sealed class CommitScheduler(SimProcess host, IFaults faults) : TaskScheduler
    {
        protected override void QueueTask(Task task) => host.World.Post(host, () =>
        {
            CommitFate fate = faults.OnCommit(host);
            if (fate == CommitFate.CrashesBefore)
            {
                host.Crash("before a commit");
                return;
            }

            TryExecuteTask(task);
            if (fate == CommitFate.CrashesAfter)
                host.Crash("after a commit");
        });

        protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) => false;

        protected override IEnumerable<Task> GetScheduledTasks() => [];
    }
}
