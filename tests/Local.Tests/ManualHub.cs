using Microsoft.DurableTask.Converters;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using Rlhf.Local.Engine;

namespace Rlhf.Local.Tests;

/// <summary>A hub whose turns are taken by hand: what a running engine does by chance, in the order that a test wants.</summary>
internal sealed class ManualHub : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rlhf-hub-").FullName;
    private readonly Dictionary<string, Orchestrator> _code;
    private readonly HubDatabase _db;

    public ManualHub(string orchestrator, Orchestrator code)
        : this(new Dictionary<string, Orchestrator> { [orchestrator] = code })
    {
    }

    public ManualHub(IReadOnlyDictionary<string, Orchestrator> code)
    {
        _code = new Dictionary<string, Orchestrator>(code);
        _db = new HubDatabase(Path.Combine(_folder, "durable.db"));
        Store = new InstanceStore(_db, new EngineOptions(), Clock);
    }

    public InstanceStore Store { get; }
    public FakeTimeProvider Clock { get; } = new(new DateTimeOffset(2026, 1, 1, 12, 0, 0, TimeSpan.Zero));
    public PayloadSerializer Payloads { get; } = new(JsonDataConverter.Default, new EngineOptions());

    /// <summary>Adds another orchestrator.</summary>
    public ManualHub With(string orchestrator, Orchestrator code)
    {
        _code.Add(orchestrator, code);
        return this;
    }

    public Task<bool> StartAsync(string id, string orchestrator, string? input = null, DateTimeOffset? at = null) =>
        Store.TryStartAsync(id, new ExecutionStarted(orchestrator, "", input, null), at, null, status => !status.IsOver());

    public Task SendAsync(string id, HistoryEvent e) => Store.SendAsync(id, e, _ => { }, unpark: false);

    public Task RaiseAsync(string id, string name, string? json = null) => SendAsync(id, new EventRaised(name, json));

    public PendingTurn Load(string id) => Store.LoadTurn(id) ?? throw new InvalidOperationException($"'{id}' has nothing to take in.");

    public TurnResult Run(PendingTurn pending) =>
        new OrchestrationTurn(pending.Instance.Id, Payloads, NullLoggerFactory.Instance, _code.GetValueOrDefault)
            .Run(pending.Past, [.. pending.Inbox.Select(row => row.Event)], pending.Now);

    /// <summary>Takes turns until there is nothing to take in.</summary>
    public async Task<InstanceRow> SettleAsync(string id)
    {
        while (Store.LoadTurn(id) is { } pending) await Store.CommitAsync(pending, Run(pending));
        return Store.Find(id)!;
    }

    /// <summary>Answers the instance's one activity.</summary>
    public async Task<bool> AnswerAsync(string json)
    {
        PendingActivity activity = Store.Activities().Single();
        return await Store.CompleteActivityAsync(activity, new TaskCompleted(activity.TaskId, json));
    }

    /// <summary>Everything in the hub, as text: two that are equal hold the same.</summary>
    public string Contents() => string.Join("\n",
        from table in new[] { "instances", "history", "inbox", "activities" }
        from row in _db.Query($"SELECT * FROM {table}", r => string.Join("|", Enumerable.Range(0, r.FieldCount).Select(r.GetValue)))
        select $"{table}: {row}");

    public void Dispose()
    {
        _db.Dispose();
        Directory.Delete(_folder, recursive: true);
    }
}
