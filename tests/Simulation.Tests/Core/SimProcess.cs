namespace Rlhf.Simulation.Core;

/// <summary>A machine: its clock may be wrong, its disk outlives its processes, and its network may be cut.</summary>
internal sealed class Machine(string name, string disk)
{
    public string Name { get; } = name;

    /// <summary>A folder that outlives the machine's processes.</summary>
    public string Disk { get; } = disk;

    /// <summary>How far the clock is off.</summary>
    public TimeSpan ClockError { get; set; }

    /// <summary>Until when the machine reaches no storage.</summary>
    public TimeSpan CutOffUntil { get; set; }
}

/// <summary>
/// One life of a process: a task scheduler on which all its continuations run. When it crashes, everything in memory is gone: what was
/// about to run never runs. When it stands still (SIGSTOP), it goes on later as if nothing had been, and does not know.
/// </summary>
internal sealed class SimProcess : TaskScheduler
{
    private readonly List<Action> held = [];
    private readonly List<SimThread> threads = [];

    public SimProcess(SimWorld world, Machine machine)
    {
        World = world;
        Machine = machine;
        Clock = new SimClock(world, this);
    }

    public SimWorld World { get; }

    public Machine Machine { get; }

    /// <summary>The machine's clock. Its monotonic time is the world's; the time of day may be off.</summary>
    public TimeProvider Clock { get; }

    public bool IsDead { get; private set; }

    public bool StandsStill { get; private set; }

    /// <summary>When it last went on after standing still, or was told to end; null when never.</summary>
    public TimeSpan? LastHindered { get; set; }

    /// <summary>Called once when the process has crashed.</summary>
    public event Action? Crashed;

    /// <summary>Starts an asynchronous function as the process's own.</summary>
    /// <param name="main">The function.</param>
    /// <param name="ended">Called with its exception or null when it has ended by itself.</param>
    public void Start(Func<Task> main, Action<Exception?>? ended = null) => World.Post(this, () =>
        Task.Factory.StartNew(main, CancellationToken.None, TaskCreationOptions.None, this).Unwrap().ContinueWith(
            task => ended?.Invoke(task.IsCanceled ? new TaskCanceledException(task) : task.Exception?.InnerException),
            CancellationToken.None, TaskContinuationOptions.None, this));

    /// <summary>Ends the process between two instructions.</summary>
    public void Crash(string why)
    {
        if (IsDead)
            return;
        World.Record(Machine.Name, $"crashes ({why})");
        Kill();
        Crashed?.Invoke();
    }

    /// <summary>Ends the process without a word, with its threads.</summary>
    public void Kill()
    {
        IsDead = true;
        held.Clear();
        World.Post(null, EndThreads);
    }

    /// <summary>Unwinds the process's threads; only the world's own thread may.</summary>
    public void EndThreads()
    {
        foreach (SimThread thread in threads)
            thread.Dispose();
        threads.Clear();
    }

    /// <summary>Stops the process for a while.</summary>
    public void StandStill(TimeSpan duration)
    {
        if (IsDead || StandsStill)
            return;
        World.Record(Machine.Name, $"stands still for {duration.TotalSeconds:0.0} s");
        StandsStill = true;
        World.After(duration, null, () =>
        {
            if (IsDead)
                return;
            World.Record(Machine.Name, "goes on");
            StandsStill = false;
            LastHindered = World.Now;
            foreach (Action action in held)
                World.Post(this, action);
            held.Clear();
        });
    }

    /// <summary>Does a piece of work, keeps it for later, or drops it.</summary>
    public void Take(Action action)
    {
        if (IsDead)
            return;
        if (StandsStill)
            held.Add(action);
        else
            action();
    }

    /// <summary>Runs a task of this scheduler on the calling thread.</summary>
    public void Execute(Task task) => TryExecuteTask(task);

    protected override void QueueTask(Task task)
    {
        if (!task.CreationOptions.HasFlag(TaskCreationOptions.LongRunning))
        {
            World.Post(this, () => TryExecuteTask(task));
            return;
        }

        var thread = new SimThread(this, task);
        threads.Add(thread);
        World.Post(this, thread.Resume);
    }

    protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) => false;

    protected override IEnumerable<Task> GetScheduledTasks() => [];
}
