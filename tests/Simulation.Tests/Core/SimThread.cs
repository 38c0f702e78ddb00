namespace Rlhf.Simulation.Core;

/// <summary>
/// A thread that may block, as the one that a job computes on. Of it and the world's thread only one runs at a time: the baton changes
/// hands when the thread waits and when what it waits for has come, so its blocking is as deterministic as everything else.
/// </summary>
internal sealed class SimThread : IDisposable
{
    [ThreadStatic]
    private static SimThread? current;

    private readonly SimProcess process;
    private readonly SemaphoreSlim mayRun = new(0);
    private readonly SemaphoreSlim hasPaused = new(0);
    private readonly Thread thread;
    private bool isStarted;
    private bool isOver;

    public SimThread(SimProcess process, Task task)
    {
        this.process = process;
        thread = new Thread(() => Run(task), maxStackSize: 1 << 20) { IsBackground = true, Name = process.Machine.Name };
    }

    /// <summary>The simulated thread that the caller is on.</summary>
    public static SimThread Current => current ?? throw new InvalidOperationException("The caller is on no simulated thread.");

    /// <summary>Lets the thread run until it waits or ends. On the world's thread.</summary>
    public void Resume()
    {
        if (isOver)
            return;
        if (!isStarted)
            thread.Start();
        isStarted = true;
        int caller = process.World.Holder;
        process.World.Holder = thread.ManagedThreadId;
        mayRun.Release();
        hasPaused.Wait();
        process.World.Holder = caller;
    }

    /// <summary>Unwinds the thread of a dead process. On the world's thread.</summary>
    public void Dispose()
    {
        if (isStarted)
        {
            Resume();
            thread.Join();
        }

        isOver = true;
        mayRun.Dispose();
        hasPaused.Dispose();
    }

    /// <summary>Holds this thread until the task has ended, and throws what it throws.</summary>
    /// <exception cref="ProcessDiedException">The process has died meanwhile: the thread is to unwind.</exception>
    public void Wait(Task task)
    {
        if (!task.IsCompleted && !process.IsDead)
        {
            _ = task.ContinueWith(_ => Resume(), CancellationToken.None, TaskContinuationOptions.None, process);
            hasPaused.Release();
            mayRun.Wait();
        }

        if (process.IsDead)
            throw new ProcessDiedException();
        task.GetAwaiter().GetResult();
    }

    /// <summary>Computes for a while of virtual time.</summary>
    public void Compute(TimeSpan duration) => Wait(Task.Delay(duration, process.Clock));

    private void Run(Task task)
    {
        current = this;
        mayRun.Wait();
        process.Execute(task);
        isOver = true;
        hasPaused.Release();
    }
}

/// <summary>Unwinds a thread whose process is dead.</summary>
internal sealed class ProcessDiedException() : Exception("The process has died.");
