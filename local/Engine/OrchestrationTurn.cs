using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Logging;

namespace Rlhf.Local.Engine;

/// <summary>What one turn decided; the store commits all of it or nothing.</summary>
internal sealed record TurnResult
{
    /// <summary>What the instance took in: the turn's start, then the messages of its inbox.</summary>
    public required IReadOnlyList<HistoryEvent> NewEvents { get; init; }

    public IReadOnlyList<ScheduledAction> Actions { get; init; } = [];
    public IReadOnlyList<int> CancelledTimers { get; init; } = [];
    public OrchestrationRuntimeStatus Status { get; init; } = OrchestrationRuntimeStatus.Running;
    public string? Output { get; init; }

    /// <summary>JSON; null keeps what there is.</summary>
    public string? CustomStatus { get; init; }

    public TaskFailureDetails? Failure { get; init; }

    /// <summary>Set when the instance continues as new.</summary>
    public ExecutionStarted? NextGeneration { get; init; }

    /// <summary>What the next generation takes in after its start.</summary>
    public IReadOnlyList<HistoryEvent> CarriedEvents { get; init; } = [];

    public static TurnResult Fail(TurnResult result, Exception error)
    {
        TaskFailureDetails failure = TaskFailureDetails.FromException(error);
        return result with { Status = OrchestrationRuntimeStatus.Failed, Output = failure.ToString(), Failure = failure };
    }
}

/// <summary>Replays a history through the orchestrator's code, feeds it the new events, collects what it asks for next.</summary>
internal sealed class OrchestrationTurn
{
    private readonly Func<string, Orchestrator?> _find;
    private readonly PayloadSerializer _payloads;
    private readonly OrchestratorThread _thread = new();
    private readonly ReplayContext _context;
    private readonly Queue<HistoryEvent> _heldBack = new();
    private Task<object?>? _main;
    private ExecutionStarted? _started;
    private string? _suspendedBecause;
    private bool _suspended;

    public OrchestrationTurn(string instanceId, PayloadSerializer payloads, ILoggerFactory loggers, Func<string, Orchestrator?> find)
    {
        _find = find;
        _payloads = payloads;
        _context = new ReplayContext(instanceId, _thread, payloads, loggers);
    }

    /// <param name="past">the generation's history; empty on its first turn</param>
    /// <param name="arrived">the messages of its inbox, in order</param>
    /// <param name="now">the clock's time; a turn is never earlier than the one before it</param>
    /// <exception cref="NonDeterminismException">the code no longer does what history says it did.</exception>
    public TurnResult Run(IReadOnlyList<HistoryEvent> past, IReadOnlyList<HistoryEvent> arrived, DateTime now)
    {
        DateTime last = past.OfType<TurnStarted>().LastOrDefault()?.Now ?? now;
        List<HistoryEvent> added = [new TurnStarted(now > last ? now : last), .. arrived];
        var result = new TurnResult { NewEvents = added };

        // Termination needs no code, so it also ends an instance whose code no longer replays.
        if (arrived.OfType<ExecutionTerminated>().FirstOrDefault() is { } terminated)
            return result with { Status = OrchestrationRuntimeStatus.Terminated, Output = terminated.Output };

        _context.IsReplayingNow = true;
        foreach (HistoryEvent e in past) Apply(e);
        foreach (HistoryEvent e in added)
        {
            Apply(e);
            _context.IsReplayingNow = false;
        }
        return Conclude(result);
    }

    private void Apply(HistoryEvent e)
    {
        switch (e)
        {
            case TurnStarted turn:
                _context.VerifyNothingUnexpected();
                _context.Now = turn.Now;
                break;
            case ScheduledAction action:
                _context.Confirm(action);
                break;
            case ExecutionSuspended suspended:
                (_suspended, _suspendedBecause) = (true, suspended.Reason);
                break;
            case ExecutionResumed:
                _suspended = false;
                while (_heldBack.TryDequeue(out HistoryEvent? held)) Deliver(held);
                break;
            default:
                if (_suspended) _heldBack.Enqueue(e);
                else Deliver(e);
                break;
        }
    }

    private void Deliver(HistoryEvent e)
    {
        if (IsOver)
        {
            if (e is EventRaised late) _context.Buffer(late);
            if (e is ActionOutcome unawaited) _thread.Run(() => _context.Complete(unawaited));
            return;
        }
        switch (e)
        {
            case ExecutionStarted started:
                _thread.Run(() => Start(started));
                break;
            case EventRaised raised:
                _thread.Run(() => _context.Raise(raised));
                break;
            case ActionOutcome outcome:
                _thread.Run(() => _context.Complete(outcome));
                break;
        }
        if (IsOver || (!_context.IsWaitingForNothing && !_thread.WasCalledFromOutside)) return;
        _main = Task.FromException<object?>(new InvalidOperationException(
            "The orchestrator awaits something that is not a durable task (Task.Delay, Task.Run, I/O), and would wait for ever. " +
            "Use the context's timers and activities instead."));
    }

    private bool IsOver => _main is { IsCompleted: true };

    private void Start(ExecutionStarted started)
    {
        _started = started;
        _context.Begin(started);
        try
        {
            _main = _find(started.Name) is { } orchestrator
                ? orchestrator(_context)
                : throw new InvalidOperationException(
                    $"The function '{started.Name}' doesn't exist, is disabled, or is not an orchestrator function.");
        }
        catch (Exception error) // thrown before there was a task, by an orchestrator that is no async method
        {
            _main = Task.FromException<object?>(error);
        }
    }

    private TurnResult Conclude(TurnResult result)
    {
        result = result with
        {
            Actions = _context.NewActions,
            CancelledTimers = _context.CancelledTimers,
            CustomStatus = _context.CustomStatus,
        };
        // As on the genuine host an instance is over when everything it has asked for is over.
        if (!IsOver || _context.HasOpenActions)
            return _suspended ? result with { Status = OrchestrationRuntimeStatus.Suspended, Output = _suspendedBecause } : result;
        if (_main!.IsFaulted) return TurnResult.Fail(result, _main.Exception!.InnerException!);
        if (_main.IsCanceled) return TurnResult.Fail(result, new TaskCanceledException());
        try
        {
            return _context.ContinuedAsNew is { } next ? Continue(result, next) : Complete(result, _main.Result);
        }
        catch (Exception error) when (error is not OutOfMemoryException)
        {
            // what the orchestrator returned cannot be serialized, or is too large
            return TurnResult.Fail(result, error);
        }
    }

    private TurnResult Complete(TurnResult result, object? output) => result with
    {
        Status = OrchestrationRuntimeStatus.Completed,
        Output = _payloads.Serialize(output, "output of orchestration", _context.InstanceId),
    };

    private TurnResult Continue(TurnResult result, ContinueAsNewOptions next) => result with
    {
        NextGeneration = _started! with
        {
            Input = _payloads.Serialize(next.NewInput, "next input of orchestration", _context.InstanceId),
            Version = next.NewVersion ?? _started.Version,
        },
        CarriedEvents = [.. Unprocessed().Where(e => next.PreserveUnprocessedEvents || e is not EventRaised)],
    };

    /// <summary>Events that nobody took; a suspension that came after the generation's end, and what it held back.</summary>
    private IEnumerable<HistoryEvent> Unprocessed() => _suspended
        ? [.. _context.UnprocessedEvents, new ExecutionSuspended(_suspendedBecause), .. _heldBack.OfType<EventRaised>()]
        : _context.UnprocessedEvents;
}
