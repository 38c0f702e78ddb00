using System.Text.Json;
using Microsoft.Data.Sqlite;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;

namespace Rlhf.Local.Engine;

/// <summary>Instances, histories, inboxes and activities in SQLite. Every public method that writes is one transaction.</summary>
internal sealed class InstanceStore(HubDatabase db, EngineOptions options, TimeProvider clock)
{
    private const string Columns =
        "id, generation, name, version, status, input, output, custom_status, stuck, tags, created_at, updated_at";

    /// <summary>When messages are due, in place of a time: no clock that is set back may keep one waiting. Timers come after them.</summary>
    private const long First = 0, AtOnce = 1;

    private readonly ChangeSignal _changes = new();
    private readonly HistoryCache _histories = new();

    private long Now => clock.GetUtcNow().UtcTicks;

    // ---- reading

    /// <summary>Completes when an instance has changed; take it before looking.</summary>
    public Task NextChange => _changes.Next;

    public InstanceRow? Find(string id) => db.Query($"SELECT {Columns} FROM instances WHERE id = @0", ReadInstance, id).SingleOrDefault();

    /// <summary>Instances by id, those after <paramref name="afterId"/>.</summary>
    public List<InstanceRow> List(string afterId, string? prefix, int limit) => db.Query(
        $"SELECT {Columns} FROM instances WHERE id > @0 AND substr(id, 1, length(@1)) = @1 ORDER BY id LIMIT @2",
        ReadInstance, afterId, prefix ?? "", limit);

    public List<PendingActivity> Activities() => db.Query(
        "SELECT generation, task_id, instance_id, name, input FROM activities ORDER BY generation, task_id",
        r => new PendingActivity(r.GetInt64(0), r.GetInt32(1), r.GetString(2), r.GetString(3), Text(r, 4)));

    /// <summary>Whose inbox has something due, and when the next thing is. One clock reading for both: with two, what comes due between
    /// them would be in neither.</summary>
    public (List<string> Due, DateTime Next) Timers(DateTime now) => db.Snapshot(() =>
    {
        List<string> due = db.Query("SELECT DISTINCT instance_id FROM inbox WHERE due_at <= @0", r => r.GetString(0), now.Ticks);
        long? next = db.Scalar<long?>("SELECT MIN(due_at) FROM inbox WHERE due_at > @0", now.Ticks);
        return (due, next is { } ticks ? new DateTime(ticks, DateTimeKind.Utc) : DateTime.MaxValue);
    });

    /// <returns>null when the instance has nothing to take in now.</returns>
    public PendingTurn? LoadTurn(string id) => db.Snapshot<PendingTurn?>(() =>
    {
        if (Find(id) is not { Stuck: null, IsOver: false } instance) return null;
        DateTime now = clock.GetUtcNow().UtcDateTime;
        var inbox = db.Query(
            "SELECT id, event FROM inbox WHERE instance_id = @0 AND due_at <= @1 AND generation IN (0, @2) ORDER BY due_at, id",
            r => (Id: r.GetInt64(0), Event: HistoryEvent.FromJson(r.GetString(1))), id, now.Ticks, instance.Generation);
        if (inbox.Count == 0) return null;

        List<HistoryEvent> past = _histories.Find(instance.Generation) ?? HistoryOf(instance.Generation);
        if (past.Count == 0)
        {
            // The start comes first, whatever else came before it; an instance whose start is not due can only be terminated.
            inbox = [.. inbox.OrderBy(row => row.Event is not ExecutionStarted)];
            if (inbox[0].Event is not ExecutionStarted && !inbox.Any(row => row.Event is ExecutionTerminated)) return null;
        }
        return new PendingTurn(instance, past, inbox, now);
    });

    public List<HistoryEvent> History(string id) => Find(id) is { } instance ? HistoryOf(instance.Generation) : [];

    // ---- what clients do

    /// <param name="id">the new instance's id</param>
    /// <param name="start">its first event</param>
    /// <param name="startAt">null: now</param>
    /// <param name="tags">kept with the instance</param>
    /// <param name="mustNotBe">in which state an instance that has the id keeps it; in another it is replaced</param>
    /// <returns>false when the id is kept.</returns>
    public async Task<bool> TryStartAsync(
        string id, ExecutionStarted start, DateTimeOffset? startAt, IReadOnlyDictionary<string, string>? tags,
        Func<OrchestrationRuntimeStatus, bool> mustNotBe)
    {
        bool started = await db.TransactAsync(() =>
        {
            if (Find(id) is { } existing)
            {
                if (mustNotBe(existing.VisibleStatus)) return false;
                Delete(existing);
            }
            Insert(id, start, startAt?.UtcTicks ?? AtOnce, tags);
            return true;
        });
        _changes.Raise();
        return started;
    }

    /// <summary>Puts a message into an instance's inbox.</summary>
    /// <param name="id">the instance</param>
    /// <param name="e">the message</param>
    /// <param name="verify">throws when the instance, or null, may not get it</param>
    /// <param name="unpark">also lets a parked instance try again</param>
    public async Task SendAsync(string id, HistoryEvent e, Action<InstanceRow?> verify, bool unpark)
    {
        await db.TransactAsync(() =>
        {
            verify(Find(id));
            if (unpark) Park(id, null);
            return Enqueue(id, 0, AtOnce, e);
        });
        _changes.Raise();
    }

    /// <summary>Removes an instance that is over, with all its sub-orchestrations that are over if told.</summary>
    /// <param name="id">the instance</param>
    /// <param name="recursive">its sub-orchestrations, and theirs, too</param>
    /// <param name="verify">throws when the instance may not be purged</param>
    /// <returns>how many were removed.</returns>
    public async Task<int> PurgeAsync(string id, bool recursive, Action<InstanceRow> verify)
    {
        int purged = await db.TransactAsync(() =>
        {
            if (Find(id) is not { } instance) return 0;
            verify(instance);
            return Purge(instance, recursive);
        });
        _changes.Raise();
        return purged;
    }

    // ---- what the engine does

    /// <summary>The whole turn in one transaction: history, actions, messages to others, inbox, status.</summary>
    /// <returns>null when the instance is no longer what the turn started from; nothing is written then.</returns>
    public async Task<Wakeups?> CommitAsync(PendingTurn turn, TurnResult result)
    {
        Wakeups? wakeups = await db.TransactAsync(() => Commit(turn, result));
        _changes.Raise();
        long generation = turn.Instance.Generation;
        if (wakeups is null || result.NextGeneration is not null || result.Status.IsOver())
        {
            _histories.Drop(generation);
            return wakeups;
        }
        turn.Past.AddRange(result.NewEvents);
        turn.Past.AddRange(result.Actions);
        _histories.Keep(generation, turn.Past);
        return wakeups;
    }

    /// <summary>Counts the attempt before the activity runs, so that one which kills its host is found out.</summary>
    /// <returns>the attempt's number, 1 for the first; null when nobody waits for the activity any more.</returns>
    public Task<long?> StartActivityAsync(PendingActivity activity) => db.TransactAsync(() => db.Scalar<long?>(
        "UPDATE activities SET attempts = attempts + 1 WHERE generation = @0 AND task_id = @1 RETURNING attempts",
        activity.Generation, activity.TaskId));

    /// <summary>The host stops in good order: the attempt does not count.</summary>
    public Task ReturnActivityAsync(PendingActivity activity) => db.TransactAsync(() => db.Execute(
        "UPDATE activities SET attempts = attempts - 1 WHERE generation = @0 AND task_id = @1", activity.Generation, activity.TaskId));

    /// <summary>The outcome goes to the inbox and the activity's row away, together; what nobody waits for any more is dropped.</summary>
    public Task<bool> CompleteActivityAsync(PendingActivity activity, ActionOutcome outcome) => db.TransactAsync(() =>
    {
        int pending = db.Execute(
            "DELETE FROM activities WHERE generation = @0 AND task_id = @1", activity.Generation, activity.TaskId);
        return pending > 0
            && Find(activity.InstanceId) is { IsOver: false } instance && instance.Generation == activity.Generation
            && Enqueue(activity.InstanceId, activity.Generation, AtOnce, outcome);
    });

    public async Task ParkAsync(string id, string reason)
    {
        await db.TransactAsync(() => Park(id, reason));
        _changes.Raise();
    }

    public Task UnparkAllAsync() => db.TransactAsync(() => db.Execute("UPDATE instances SET stuck = NULL WHERE stuck IS NOT NULL"));

    // ---- inside a transaction

    private Wakeups? Commit(PendingTurn turn, TurnResult result)
    {
        InstanceRow instance = turn.Instance;
        if (Find(instance.Id) is not { IsOver: false } current || current.Generation != instance.Generation) return null;
        if (db.Scalar<long>("SELECT COALESCE(MAX(seq), -1) FROM history WHERE generation = @0", instance.Generation) + 1 != turn.Length)
            return null; // a turn that stalled while another one took its place
        db.Execute(
            "UPDATE instances SET status = @1, output = @2, custom_status = COALESCE(@3, custom_status, 'null'), updated_at = @4 " +
            "WHERE id = @0",
            instance.Id, (int)result.Status, result.Output, result.CustomStatus, Now);

        var wakeups = new Wakeups();
        int seq = turn.Length;
        foreach (HistoryEvent e in result.NewEvents.Concat(result.Actions)) Append(instance.Generation, seq++, e);
        foreach ((long id, _) in turn.Inbox) db.Execute("DELETE FROM inbox WHERE id = @0", id);
        foreach (ScheduledAction action in result.Actions) Dispatch(instance, action, wakeups);
        foreach (int timer in result.CancelledTimers)
        {
            db.Execute("DELETE FROM inbox WHERE instance_id = @0 AND generation = @1 AND timer_id = @2",
                instance.Id, instance.Generation, timer);
        }
        if (result.NextGeneration is { } next) ContinueAsNew(instance, next, result.CarriedEvents, wakeups);
        else if (result.Status.IsOver()) Finish(turn, result, seq, wakeups);
        return wakeups;
    }

    private void Dispatch(InstanceRow instance, ScheduledAction action, Wakeups wakeups)
    {
        switch (action)
        {
            case TaskScheduled task:
                db.Execute("INSERT INTO activities (generation, task_id, instance_id, name, input) VALUES (@0, @1, @2, @3, @4)",
                    instance.Generation, task.Id, instance.Id, task.Name, task.Input);
                wakeups.Activities.Add(new PendingActivity(instance.Generation, task.Id, instance.Id, task.Name, task.Input));
                break;
            case TimerCreated timer:
                Enqueue(instance.Id, instance.Generation, timer.FireAt.Ticks, new TimerFired(timer.Id), timer.Id);
                if (wakeups.NextTimer is null || timer.FireAt < wakeups.NextTimer) wakeups.NextTimer = timer.FireAt;
                break;
            case EventSent sent when Find(sent.InstanceId) is { IsOver: false }:
                Enqueue(sent.InstanceId, 0, AtOnce, new EventRaised(sent.Name, sent.Input));
                wakeups.Instances.Add(sent.InstanceId);
                break;
            case SubOrchestrationCreated sub:
                StartChild(instance, sub, wakeups);
                break;
        }
    }

    private void StartChild(InstanceRow parent, SubOrchestrationCreated sub, Wakeups wakeups)
    {
        if (Find(sub.InstanceId) is { } existing)
        {
            if (!existing.IsOver)
            {
                var clash = new InvalidOperationException($"An Orchestration instance with the ID {sub.InstanceId} already exists.");
                Enqueue(parent.Id, parent.Generation, AtOnce, new TaskFailed(sub.Id, TaskFailureDetails.FromException(clash)));
                wakeups.Instances.Add(parent.Id);
                return;
            }
            Delete(existing);
        }
        var answers = new ParentTask(parent.Name, parent.Id, parent.Generation, sub.Id);
        Insert(sub.InstanceId, new ExecutionStarted(sub.Name, sub.Version ?? options.Versions.Default, sub.Input, answers), AtOnce, null);
        wakeups.Instances.Add(sub.InstanceId);
    }

    private void ContinueAsNew(InstanceRow instance, ExecutionStarted next, IReadOnlyList<HistoryEvent> carried, Wakeups wakeups)
    {
        long generation = NewGeneration();
        db.Execute("DELETE FROM history WHERE generation = @0", instance.Generation);
        db.Execute("DELETE FROM inbox WHERE instance_id = @0 AND generation = @1", instance.Id, instance.Generation);
        db.Execute("UPDATE instances SET generation = @1, version = @2, input = @3 WHERE id = @0",
            instance.Id, generation, next.Version, next.Input);
        // in their order, before whatever has arrived meanwhile
        foreach (HistoryEvent e in carried.Prepend(next)) Enqueue(instance.Id, generation, First, e);
        wakeups.Instances.Add(instance.Id);
    }

    private void Finish(PendingTurn turn, TurnResult result, int seq, Wakeups wakeups)
    {
        InstanceRow instance = turn.Instance;
        Append(instance.Generation, seq, new ExecutionCompleted(result.Status.ToString(), result.Output, result.Failure));
        db.Execute("DELETE FROM inbox WHERE instance_id = @0", instance.Id);
        db.Execute("DELETE FROM activities WHERE generation = @0", instance.Generation); // only a terminated one has any left

        ParentTask? answers = turn.Past.Concat(result.NewEvents).OfType<ExecutionStarted>().FirstOrDefault()?.Parent;
        if (answers is null || Find(answers.InstanceId) is not { IsOver: false } parent || parent.Generation != answers.Generation) return;
        ActionOutcome outcome = result.Status == OrchestrationRuntimeStatus.Completed
            ? new TaskCompleted(answers.TaskId, result.Output)
            : new TaskFailed(answers.TaskId, result.Failure ?? TaskFailureDetails.FromException(
                new OperationCanceledException($"The sub-orchestration '{instance.Id}' was terminated: {result.Output}")));
        Enqueue(parent.Id, parent.Generation, AtOnce, outcome);
        wakeups.Instances.Add(parent.Id);
    }

    private int Purge(InstanceRow instance, bool recursive)
    {
        if (!instance.IsOver) return 0;
        int purged = 1;
        if (recursive)
        {
            List<InstanceRow> children = db.Query($"SELECT {Columns} FROM instances WHERE parent_id = @0", ReadInstance, instance.Id);
            foreach (InstanceRow child in children) purged += Purge(child, recursive);
        }
        Delete(instance);
        return purged;
    }

    private void Insert(string id, ExecutionStarted start, long dueAt, IReadOnlyDictionary<string, string>? tags)
    {
        long generation = NewGeneration();
        db.Execute(
            "INSERT INTO instances (id, generation, name, version, parent_id, status, input, tags, created_at, updated_at) " +
            "VALUES (@0, @1, @2, @3, @4, @5, @6, @7, @8, @8)",
            id, generation, start.Name, start.Version, start.Parent?.InstanceId, (int)OrchestrationRuntimeStatus.Pending, start.Input,
            tags is null ? null : JsonSerializer.Serialize(tags), Now);
        Enqueue(id, generation, dueAt, start);
    }

    private void Delete(InstanceRow instance)
    {
        db.Execute("DELETE FROM history WHERE generation = @0", instance.Generation);
        db.Execute("DELETE FROM activities WHERE generation = @0", instance.Generation);
        db.Execute("DELETE FROM inbox WHERE instance_id = @0", instance.Id);
        db.Execute("DELETE FROM instances WHERE id = @0", instance.Id);
    }

    private int Park(string id, string? reason) =>
        db.Execute("UPDATE instances SET stuck = @1, updated_at = @2 WHERE id = @0", id, reason, Now);

    private bool Enqueue(string instanceId, long generation, long dueAt, HistoryEvent e, int? timerId = null) => db.Execute(
        "INSERT INTO inbox (instance_id, generation, timer_id, due_at, event) VALUES (@0, @1, @2, @3, @4)",
        instanceId, generation, timerId, dueAt, e.ToJson()) > 0;

    private void Append(long generation, int seq, HistoryEvent e) =>
        db.Execute("INSERT INTO history VALUES (@0, @1, @2)", generation, seq, e.ToJson());

    private long NewGeneration() =>
        db.Scalar<long>("UPDATE counters SET value = value + 1 WHERE name = 'generation' RETURNING value");

    private List<HistoryEvent> HistoryOf(long generation) => db.Query(
        "SELECT event FROM history WHERE generation = @0 ORDER BY seq", r => HistoryEvent.FromJson(r.GetString(0)), generation);

    private static InstanceRow ReadInstance(SqliteDataReader r) => new(
        r.GetString(0), r.GetInt64(1), r.GetString(2), r.GetString(3), (OrchestrationRuntimeStatus)r.GetInt32(4), Text(r, 5), Text(r, 6),
        Text(r, 7), Text(r, 8), Text(r, 9), Time(r, 10), Time(r, 11));

    private static DateTimeOffset Time(SqliteDataReader r, int column) => new(r.GetInt64(column), TimeSpan.Zero);

    private static string? Text(SqliteDataReader r, int column) => r.IsDBNull(column) ? null : r.GetString(column);
}
