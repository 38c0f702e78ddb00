using Rlhf.Simulation.Core;
using Rlhf.Simulation.Storage;
using Rlhf.Storage;
using Rlhf.Trainer.Work;

namespace Rlhf.Simulation.Parts;

/// <summary>
/// A machine with a trainer that is started again whenever it ends: the real job worker with all that is below it, on a backend that
/// computes hash chains instead of weights. What it has on its disk outlives it, as a container's cache does.
/// </summary>
internal sealed class SimTrainer(
    SimWorld world, Machine machine, StorageService storage, IFaults faults, Ledger ledger, Func<IBlobStore, IBlobStore> protocol)
    : IDisposable
{
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(25);
    private static readonly TimeSpan LogEvery = TimeSpan.FromSeconds(5);

    private CancellationTokenSource? preempted;
    private CancellationTokenSource? graceOver;

    public SimProcess Process { get; private set; } = null!;

    public void Start()
    {
        Process = new SimProcess(world, machine);
        SimProcess process = Process;
        Dispose();
        preempted = new CancellationTokenSource();
        graceOver = new CancellationTokenSource(Timeout.InfiniteTimeSpan, process.Clock);
        var client = new StorageClient(storage, process, faults);
        var log = new WorkerLog(world.IsTraced ? new TraceWriter(world, machine.Name) : TextWriter.Null, process.Clock);
        var settings = new WorkerSettings(RunUnderTest.Machine, Path.Combine(machine.Disk, "cache"), null, null, Grace, LogEvery);
        var worker = new JobWorker(
            protocol(new SimBlobStore(client)), name => new SimMessageQueue(client, name), settings, log, process.Clock,
            cache => new HashChainBackend(process, cache, ledger));
        (CancellationToken stop, CancellationToken kill) = (preempted.Token, graceOver.Token);
        process.Start(() => worker.WorkAsync(stop, kill), error => Ended(process, error));
        process.Crashed += StartAgain;
    }

    public void Dispose()
    {
        preempted?.Dispose();
        graceOver?.Dispose();
    }

    /// <summary>SIGTERM: the machine is to be taken away.</summary>
    public void Preempt() => world.Post(Process, () =>
    {
        world.Record(machine.Name, "is preempted");
        Process.LastHindered = world.Now;
        graceOver!.CancelAfter(Grace);
        preempted!.Cancel();
    });

    /// <summary>Cuts the machine off from storage for a while.</summary>
    public void CutOff(TimeSpan duration)
    {
        world.Record(machine.Name, $"reaches no storage for {duration.TotalSeconds:0.0} s");
        machine.CutOffUntil = world.Now + duration;
    }

    private void Ended(SimProcess process, Exception? error)
    {
        if (error is not (null or OperationCanceledException or WedgedStepException))
            world.Violate("trainer", $"the worker ended: {error}");
        world.Record(machine.Name, "ends");
        process.Kill();
        StartAgain();
    }

    private void StartAgain() => world.After(world.Between(0.2, 15), null, Start);
}
