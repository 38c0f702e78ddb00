using Rlhf.Simulation.Core;

namespace Rlhf.Simulation.Storage;

/// <summary>The storage account of the world: one container, queues by name, and how it can be reached.</summary>
internal sealed class StorageService(SimWorld world, BlobServer blobs, Func<string, TimeSpan[]> copies)
{
    private readonly SortedDictionary<string, QueueServer> queues = new(StringComparer.Ordinal);

    public BlobServer Blobs { get; } = blobs;

    /// <summary>Whose request is being served; null when it is nobody's.</summary>
    public SimProcess? Caller { get; set; }

    /// <summary>Until when nobody reaches the service.</summary>
    public TimeSpan DownUntil { get; private set; }

    /// <summary>The share of requests that fail while the service is neither up nor down.</summary>
    public double FailureRate { get; set; }

    public QueueServer Queue(string name)
    {
        if (!queues.TryGetValue(name, out QueueServer? queue))
            queues[name] = queue = new QueueServer(world, () => copies(name));
        return queue;
    }

    /// <summary>Takes the service away for a while.</summary>
    public void GoDown(TimeSpan duration)
    {
        world.Record("storage", $"goes down for {duration.TotalSeconds:0.0} s");
        DownUntil = world.Now + duration;
    }

    /// <summary>True when a request from the machine arrives and is served.</summary>
    public bool Reaches(Machine machine) =>
        world.Now >= DownUntil && world.Now >= machine.CutOffUntil && !world.Happens(FailureRate);
}
