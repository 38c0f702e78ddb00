using System.Collections.Concurrent;
using System.Runtime.ExceptionServices;
using System.Threading.Channels;
using Microsoft.DurableTask;
using Microsoft.Extensions.Logging;

namespace Rlhf.Local.Engine;

/// <summary>
/// Takes turns for instances that have something in their inbox, runs activities, fires timers. Everything it must not forget is in the
/// store; what it keeps in memory is only who to look at next, and a restart finds that again.
/// </summary>
internal sealed class DurableEngine(
    InstanceStore store, IDurableCode code, PayloadSerializer payloads, EngineOptions options, TimeProvider clock, ILoggerFactory loggers)
{
    /// <summary>Every turn replays the whole history: an orchestration that gets this long should continue as new.</summary>
    private const int LongHistory = 5_000; // events

    /// <summary>The system's clock may jump: timers are looked at this often at least.</summary>
    private static readonly TimeSpan LongestSleep = TimeSpan.FromSeconds(30);

    private readonly ILogger _logger = loggers.CreateLogger<DurableEngine>();
    private readonly Channel<string> _ready = Channel.CreateUnbounded<string>();
    private readonly Channel<PendingActivity> _activities = Channel.CreateUnbounded<PendingActivity>();
    private readonly Channel<DateTime> _timers = Channel.CreateUnbounded<DateTime>();
    private readonly ConcurrentDictionary<string, bool> _claims = new(); // instance -> was woken again while its turn ran
    private readonly ConcurrentDictionary<string, bool> _rejected = new(); // instances of a version that waits for another host

    /// <summary>Runs until it is told to stop, or until the hub cannot be written.</summary>
    /// <exception cref="HubUnavailableException">the disk is full or failing.</exception>
    public async Task RunAsync(CancellationToken stopping)
    {
        await store.UnparkAllAsync(); // the code may have been put right
        // No leases: the hub's lock makes this the only host, so every activity that is still listed runs again.
        foreach (PendingActivity activity in store.Activities()) _activities.Writer.TryWrite(activity);

        using var ended = CancellationTokenSource.CreateLinkedTokenSource(stopping);
        Task[] loops =
        [
            Start(FireTimersAsync),
            .. Enumerable.Range(0, options.ConcurrentTurns).Select(_ => Start(TakeTurnsAsync)),
            .. Enumerable.Range(0, options.ConcurrentActivities).Select(_ => Start(RunActivitiesAsync)),
        ];
        await Task.WhenAny(loops);
        await ended.CancelAsync();
        await Task.WhenAll(loops).ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        if (loops.FirstOrDefault(loop => loop.IsFaulted)?.Exception?.InnerException is { } failure) ExceptionDispatchInfo.Throw(failure);

        Task Start(Func<CancellationToken, Task> loop) => Begin(() => loop(ended.Token));
    }

    /// <summary>Has a look at the instance's inbox, soon and at least once after this call.</summary>
    public void Wake(string instanceId)
    {
        while (true)
        {
            if (_claims.TryAdd(instanceId, false))
            {
                _ready.Writer.TryWrite(instanceId);
                return;
            }
            // It is queued or running already: have it look again.
            if (_claims.TryUpdate(instanceId, true, false) || (_claims.TryGetValue(instanceId, out bool again) && again)) return;
        }
    }

    /// <summary>Has a look at the timers when the time comes.</summary>
    public void WakeAt(DateTime due) => _timers.Writer.TryWrite(due);

    private async Task TakeTurnsAsync(CancellationToken stopping)
    {
        bool replaced = false;
        using var watchdog = new TurnWatchdog(options.TurnLimit, clock, _logger, () =>
        {
            Volatile.Write(ref replaced, true);
            _ = Begin(() => TakeTurnsAsync(stopping));
        });
        while (true)
        {
            string id = await _ready.Reader.ReadAsync(stopping);
            _claims[id] = false;
            try
            {
                await TakeTurnAsync(id, watchdog);
            }
            catch (NonDeterminismException mismatch)
            {
                _logger.LogError("{Reason}", mismatch.Message);
                await store.ParkAsync(id, mismatch.Message);
            }
            catch (Exception error) when (error is not HubUnavailableException)
            {
                _logger.LogError(error, "The turn of {Instance} failed in the engine; it is parked as it was before the turn", id);
                await store.ParkAsync(id, $"The engine failed in this orchestration's turn: {TaskFailureDetails.FromException(error)}");
            }
            if (!_claims.TryRemove(KeyValuePair.Create(id, false))) _ready.Writer.TryWrite(id);
            if (Volatile.Read(ref replaced)) return;
        }
    }

    private async Task TakeTurnAsync(string id, TurnWatchdog watchdog)
    {
        if (store.LoadTurn(id) is not { } pending) return;
        List<HistoryEvent> arrived = [.. pending.Inbox.Select(row => row.Event)];
        if (Decide(pending, arrived, watchdog) is not { } result) return;
        int before = pending.Past.Count;
        if (await store.CommitAsync(pending, result) is not { } wakeups) return;

        if (before < LongHistory && pending.Past.Count >= LongHistory)
        {
            _logger.LogWarning(
                "The history of {Instance} has {Count} events, and each turn replays them all: let its orchestrator {Name} continue as new",
                id, pending.Past.Count, pending.Instance.Name);
        }
        foreach (PendingActivity activity in wakeups.Activities) _activities.Writer.TryWrite(activity);
        foreach (string instance in wakeups.Instances) Wake(instance);
        if (wakeups.NextTimer is { } due) WakeAt(due);
    }

    /// <returns>null when this host may not run the instance.</returns>
    private TurnResult? Decide(PendingTurn pending, List<HistoryEvent> arrived, TurnWatchdog watchdog)
    {
        InstanceRow instance = pending.Instance;
        if (!options.Versions.Accepts(instance.Version) && !arrived.OfType<ExecutionTerminated>().Any())
        {
            string reason = $"Orchestration '{instance.Id}' has version '{instance.Version}', this host runs '{options.Versions.Default}'";
            if (options.Versions.OnMismatch == VersionFailure.Fail)
                return TurnResult.Fail(new TurnResult { NewEvents = arrived }, new InvalidOperationException(reason));
            if (_rejected.TryAdd(instance.Id, true)) _logger.LogWarning("{Reason}: it waits for a host that runs its version", reason);
            return null;
        }
        watchdog.Begin(instance);
        try
        {
            var turn = new OrchestrationTurn(instance.Id, payloads, loggers, code.FindOrchestrator);
            return turn.Run(pending.Past, arrived, pending.Now);
        }
        finally
        {
            watchdog.End();
        }
    }

    private async Task RunActivitiesAsync(CancellationToken stopping)
    {
        while (true)
        {
            PendingActivity activity = await _activities.Reader.ReadAsync(stopping);
            if (await store.StartActivityAsync(activity) is not { } attempt) continue; // its orchestration was terminated
            ActionOutcome outcome;
            try
            {
                if (attempt > options.MaxActivityAttempts)
                    throw new ActivityAbandonedException(activity.Name, activity.InstanceId, attempt - 1);
                object? output = await code.RunActivityAsync(activity.Name, activity.InstanceId, activity.Input, stopping);
                outcome = new TaskCompleted(activity.TaskId, payloads.Serialize(output, "output of activity", activity.Name));
            }
            catch (OperationCanceledException) when (stopping.IsCancellationRequested)
            {
                await store.ReturnActivityAsync(activity);
                return; // the host stops; the row stays, and the activity runs again
            }
            catch (Exception error)
            {
                outcome = new TaskFailed(activity.TaskId, TaskFailureDetails.FromException(error));
            }
            if (await store.CompleteActivityAsync(activity, outcome)) Wake(activity.InstanceId);
        }
    }

    /// <summary>Late, never early, never lost: what is due is read from the store, memory only says when to look.</summary>
    private async Task FireTimersAsync(CancellationToken stopping)
    {
        while (true)
        {
            (List<string> due, DateTime next) = store.Timers(Now);
            due.ForEach(Wake);
            while (next - Now is var wait && wait > TimeSpan.Zero)
            {
                // One millisecond more, because delays are cut to whole ones: never look too early.
                TimeSpan sleep = wait > LongestSleep ? LongestSleep : wait + TimeSpan.FromMilliseconds(1);
                using var over = new CancellationTokenSource(sleep, clock);
                using var sooner = CancellationTokenSource.CreateLinkedTokenSource(stopping, over.Token);
                try
                {
                    DateTime added = await _timers.Reader.ReadAsync(sooner.Token);
                    if (added < next) next = added;
                }
                catch (OperationCanceledException) when (!stopping.IsCancellationRequested)
                {
                    break; // time to look
                }
            }
        }
    }

    /// <summary>On the scheduler that the engine was started on: the thread pool, or a test's.</summary>
    private static Task Begin(Func<Task> loop) => Task.Factory.StartNew(
        loop, CancellationToken.None, TaskCreationOptions.DenyChildAttach, TaskScheduler.Current).Unwrap();

    private DateTime Now => clock.GetUtcNow().UtcDateTime;
}
