namespace Rlhf.Local.Engine;

/// <summary>Runs an orchestrator and all its continuations on the calling thread, in the order they were posted.</summary>
internal sealed class OrchestratorThread : SynchronizationContext
{
    private readonly Queue<(SendOrPostCallback Callback, object? State)> _work = new();
    private readonly int _thread = Environment.CurrentManagedThreadId;
    private volatile bool _wasCalledFromOutside;

    /// <summary>Something that is no durable task has ended on another thread, and the orchestrator waits for it.</summary>
    public bool WasCalledFromOutside => _wasCalledFromOutside;

    /// <summary>From another thread nothing is taken: whether it came in time would differ from replay to replay.</summary>
    public override void Post(SendOrPostCallback d, object? state)
    {
        if (Environment.CurrentManagedThreadId == _thread) _work.Enqueue((d, state));
        else _wasCalledFromOutside = true;
    }

    public void Run(Action action)
    {
        SynchronizationContext? outer = Current;
        SetSynchronizationContext(this);
        try
        {
            action();
            while (_work.TryDequeue(out (SendOrPostCallback Callback, object? State) next)) next.Callback(next.State);
        }
        finally
        {
            SetSynchronizationContext(outer);
        }
    }

    /// <exception cref="InvalidOperationException">the caller is not on the orchestrator's thread.</exception>
    public void Verify()
    {
        if (Environment.CurrentManagedThreadId == _thread && Current == this) return;
        throw new InvalidOperationException(
            "An orchestrator may await only durable tasks: this call came from another thread " +
            "(Task.Run, Task.Delay, I/O or ConfigureAwait(false)).");
    }
}
