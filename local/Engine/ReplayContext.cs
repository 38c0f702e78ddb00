using System.Security.Cryptography;
using System.Text;
using Microsoft.DurableTask;
using Microsoft.Extensions.Logging;

namespace Rlhf.Local.Engine;

/// <summary>
/// The context an orchestrator sees: hands out durable tasks, checks them against the history, completes them from it. Actions are numbered
/// in the order the code asks for them; history must have the same action under the same number.
/// </summary>
internal sealed class ReplayContext(string instanceId, OrchestratorThread thread, PayloadSerializer payloads, ILoggerFactory loggers)
    : TaskOrchestrationContext
{
    private readonly SortedDictionary<int, ScheduledAction> _unconfirmed = [];
    private readonly Dictionary<int, (ScheduledAction Action, TaskCompletionSource<string?> Task)> _open = [];
    private readonly List<(string Name, Action<string?> Take)> _waiters = [];
    private readonly List<EventRaised> _buffered = [];
    private readonly List<int> _cancelledTimers = [];
    private ExecutionStarted _started = null!;
    private int _nextId;
    private int _nextGuid;

    public DateTime Now { get; set; }
    public bool IsReplayingNow { get; set; }

    /// <summary>JSON; null while this generation has set none.</summary>
    public string? CustomStatus { get; private set; }

    public ContinueAsNewOptions? ContinuedAsNew { get; private set; }
    public bool HasOpenActions => _open.Count > 0;
    public bool IsWaitingForNothing => _open.Count == 0 && _waiters.Count == 0;

    /// <summary>What the code has asked for and history does not have.</summary>
    public IReadOnlyList<ScheduledAction> NewActions => [.. _unconfirmed.Values];

    public IReadOnlyList<int> CancelledTimers => _cancelledTimers;
    public IReadOnlyList<EventRaised> UnprocessedEvents => _buffered;

    public override TaskName Name => _started.Name;
    public override string InstanceId => instanceId;
    public override string Version => _started.Version;
    public override ParentOrchestrationInstance? Parent => _started.Parent is { } parent ? new(parent.Name, parent.InstanceId) : null;
    public override DateTime CurrentUtcDateTime => Now;
    public override bool IsReplaying => IsReplayingNow;
    protected override ILoggerFactory LoggerFactory => loggers;

    // ---- what the orchestrator calls

    public override T? GetInput<T>() where T : default => payloads.Converter.Deserialize<T>(_started.Input);

    public object? GetInput(Type type) => payloads.Converter.Deserialize(_started.Input, type);

    public override Task<TResult> CallActivityAsync<TResult>(TaskName name, object? input = null, TaskOptions? options = null)
    {
        string? json = payloads.Serialize(input, "input of activity", name);
        return WithRetriesAsync<TResult>(options?.Retry, id => new TaskScheduled(id, name, json));
    }

    public override Task<TResult> CallSubOrchestratorAsync<TResult>(
        TaskName orchestratorName, object? input = null, TaskOptions? options = null)
    {
        thread.Verify();
        string? json = payloads.Serialize(input, "input of sub-orchestration", orchestratorName);
        var sub = options as SubOrchestrationOptions;
        string child = sub?.InstanceId ?? NewGuid().ToString("N");
        string? version = sub?.Version?.Version;
        return WithRetriesAsync<TResult>(
            options?.Retry, id => new SubOrchestrationCreated(id, orchestratorName, child, version, json));
    }

    public override Task CreateTimer(DateTime fireAt, CancellationToken cancellationToken)
    {
        (int id, TaskCompletionSource<string?> fired) = Schedule(next => new TimerCreated(next, fireAt.ToUniversalTime()));
        cancellationToken.Register(() =>
        {
            if (!_open.Remove(id)) return;
            if (!IsReplayingNow) _cancelledTimers.Add(id); // on replay its row is long gone
            fired.TrySetCanceled(cancellationToken);
        });
        return fired.Task;
    }

    public override Task<T> WaitForExternalEvent<T>(string eventName, CancellationToken cancellationToken = default)
    {
        thread.Verify();
        var raised = new TaskCompletionSource<T>();
        Action<string?> take = input =>
        {
            T value;
            try
            {
                value = payloads.Converter.Deserialize<T>(input)!;
            }
            catch (Exception unreadable)
            {
                raised.TrySetException(unreadable);
                return;
            }
            raised.TrySetResult(value);
        };
        int early = _buffered.FindIndex(e => IsNamed(e.Name, eventName));
        if (early >= 0)
        {
            string? input = _buffered[early].Input;
            _buffered.RemoveAt(early);
            take(input);
            return raised.Task;
        }
        _waiters.Add((eventName, take));
        // No async method that throws: an orchestrator that waits in a loop leaves many waits, and replays all of them at each turn.
        cancellationToken.Register(() =>
        {
            if (_waiters.RemoveAll(waiter => waiter.Take == take) > 0) raised.TrySetCanceled(cancellationToken);
        });
        return raised.Task;
    }

    public override void SendEvent(string instanceId, string eventName, object payload)
    {
        string? json = payloads.Serialize(payload, "payload of event", eventName);
        (int id, _) = Schedule(next => new EventSent(next, instanceId, eventName, json));
        _open.Remove(id); // nobody answers it
    }

    public override void SetCustomStatus(object? customStatus)
    {
        thread.Verify();
        CustomStatus = payloads.SerializeStatus(customStatus, instanceId);
    }

    public override void ContinueAsNew(object? newInput = null, bool preserveUnprocessedEvents = true) =>
        ContinueAsNew(new ContinueAsNewOptions { NewInput = newInput, PreserveUnprocessedEvents = preserveUnprocessedEvents });

    public override void ContinueAsNew(ContinueAsNewOptions options)
    {
        thread.Verify();
        ContinuedAsNew = options;
    }

    /// <summary>A version 8 UUID (RFC 9562) of the instance, the turn's time and a counter.</summary>
    public override Guid NewGuid()
    {
        thread.Verify();
        Span<byte> hash = SHA256.HashData(Encoding.UTF8.GetBytes($"{instanceId}\n{Now.Ticks}\n{_nextGuid++}")).AsSpan(0, 16);
        hash[6] = (byte)((hash[6] & 0x0F) | 0x80);
        hash[8] = (byte)((hash[8] & 0x3F) | 0x80);
        return new Guid(hash, bigEndian: true);
    }

    // ---- what the turn calls

    public void Begin(ExecutionStarted started) => _started = started;

    /// <summary>History has this action: the code must have asked for the same, under the same number.</summary>
    /// <exception cref="NonDeterminismException">it has not.</exception>
    public void Confirm(ScheduledAction recorded)
    {
        if (!_unconfirmed.Remove(recorded.Id, out ScheduledAction? asked))
            throw new NonDeterminismException(instanceId, recorded.ToString(), "nothing there");
        if (!RecordedInput.Fits(recorded, asked)) throw new NonDeterminismException(instanceId, recorded.ToString(), asked.ToString());
    }

    /// <summary>History has no more actions of this turn: the code must not have asked for more.</summary>
    /// <exception cref="NonDeterminismException">it has.</exception>
    public void VerifyNothingUnexpected()
    {
        if (_unconfirmed.Count > 0)
            throw new NonDeterminismException(instanceId, "nothing there", _unconfirmed.First().Value.ToString());
    }

    public void Complete(ActionOutcome outcome)
    {
        if (!_open.Remove(outcome.Id, out (ScheduledAction Action, TaskCompletionSource<string?> Task) open))
            return; // cancelled, or told twice
        switch (outcome)
        {
            case TaskCompleted done:
                open.Task.TrySetResult(done.Output);
                break;
            case TaskFailed failed:
                open.Task.TrySetException(new TaskFailedException(NameOf(open.Action), failed.Id, failed.Failure));
                break;
            case TimerFired:
                open.Task.TrySetResult(null);
                break;
        }
    }

    /// <summary>The newest waiter gets the event, as in the Durable Task SDK; without one it waits in the buffer.</summary>
    public void Raise(EventRaised raised)
    {
        int waiter = _waiters.FindLastIndex(w => IsNamed(w.Name, raised.Name));
        if (waiter < 0)
        {
            Buffer(raised);
            return;
        }
        Action<string?> take = _waiters[waiter].Take;
        _waiters.RemoveAt(waiter);
        take(raised.Input);
    }

    public void Buffer(EventRaised raised) => _buffered.Add(raised);

    // ---- inside

    private (int Id, TaskCompletionSource<string?> Task) Schedule(Func<int, ScheduledAction> create)
    {
        thread.Verify();
        int id = _nextId++;
        ScheduledAction action = create(id);
        var task = new TaskCompletionSource<string?>();
        _unconfirmed.Add(id, action);
        _open.Add(id, (action, task));
        return (id, task);
    }

    /// <summary>Each attempt and each pause between two is an action of its own in history.</summary>
    private async Task<T> WithRetriesAsync<T>(TaskRetryOptions? retry, Func<int, ScheduledAction> create)
    {
        DateTime firstAttempt = Now;
        for (int attempt = 1; ; attempt++)
        {
            Task<string?> answer = Schedule(create).Task.Task;
            // A failure that is tried again is not thrown: a history may hold hundreds, and each turn replays them all.
            await ((Task)answer).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
            if (retry is null || answer.Exception?.InnerException is not TaskFailedException failed)
                return payloads.Converter.Deserialize<T>(await answer)!;
            TimeSpan elapsed = Now - firstAttempt;
            if (retry.Handler is { } handler)
            {
                var context = new RetryContext(this, attempt, failed.FailureDetails, elapsed, CancellationToken.None);
                if (await handler(context)) continue;
                throw failed;
            }
            RetryPolicy policy = retry.Policy!;
            bool outOfTime = policy.RetryTimeout != Timeout.InfiniteTimeSpan && elapsed >= policy.RetryTimeout;
            if (attempt >= policy.MaxNumberOfAttempts || outOfTime || !policy.Handles(failed.FailureDetails)) throw failed;
            await CreateTimer(policy.DelayAfter(attempt), CancellationToken.None);
        }
    }

    private static bool IsNamed(string a, string b) => string.Equals(a, b, StringComparison.OrdinalIgnoreCase);

    private static string NameOf(ScheduledAction action) => action switch
    {
        TaskScheduled task => task.Name,
        SubOrchestrationCreated sub => sub.Name,
        _ => action.GetType().Name,
    };
}
