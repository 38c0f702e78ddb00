using System.Text.Json;
using DurableTask.Core.Exceptions;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;

namespace Rlhf.Local.Engine;

/// <summary>
/// The client that the app's functions get. Where the genuine one throws a Grpc.Core.RpcException (a missing instance, one that is over, a
/// second suspend), this one throws an InvalidOperationException with the same text: the type would be the only use of that package, and an
/// app cannot catch it on the genuine host without referencing it. Apps ask for the instance first.
/// </summary>
internal sealed class EmbeddedDurableTaskClient(
    InstanceStore store, DurableEngine engine, PayloadSerializer payloads, EngineOptions options)
    : DurableTaskClient("embedded")
{
    /// <exception cref="OrchestrationAlreadyExistsException">a live instance, or one in a dedupe status, has the id.</exception>
    /// <exception cref="PayloadTooLargeException">the input is too large.</exception>
    public override async Task<string> ScheduleNewOrchestrationInstanceAsync(
        TaskName orchestratorName, object? input = null, StartOrchestrationOptions? options = null,
        CancellationToken cancellation = default)
    {
        string id = options?.InstanceId ?? Guid.NewGuid().ToString("N");
        if (id.StartsWith('@'))
        {
            throw new ArgumentException(
                "Instance IDs starting with '@' are reserved for entities, and must not be used for orchestrations, " +
                "when entity support is enabled.", nameof(options));
        }
        string version = options?.Version?.Version ?? DefaultVersion;
        string? json = payloads.Serialize(input, "input of orchestration", id);
        bool started = await store.TryStartAsync(
            id, new ExecutionStarted(orchestratorName, version, json, null), options?.StartAt, options?.Tags,
            status => !status.IsOver() || options?.DedupeStatuses?.Contains(status.ToString()) == true);
        if (!started) throw new OrchestrationAlreadyExistsException(id);
        if (options?.StartAt is { } later) engine.WakeAt(later.UtcDateTime);
        engine.Wake(id);
        return id;
    }

    /// <exception cref="InvalidOperationException">no such instance, or it is over.</exception>
    public override Task RaiseEventAsync(
        string instanceId, string eventName, object? eventPayload = null, CancellationToken cancellation = default)
    {
        string? json = payloads.Serialize(eventPayload, "payload of event", eventName);
        return SendAsync(instanceId, new EventRaised(eventName, json), instance =>
        {
            if (instance is null) throw Missing(instanceId);
            if (instance.IsOver)
                throw new InvalidOperationException("The orchestration instance with the provided instance id is not running.");
        });
    }

    /// <summary>Children go on, whatever options.Recursive says: so it is on the genuine host with Azure Storage.</summary>
    /// <exception cref="InvalidOperationException">no such instance, or it is over.</exception>
    public override Task TerminateInstanceAsync(
        string instanceId, TerminateInstanceOptions? options = null, CancellationToken cancellation = default)
    {
        string? json = payloads.Serialize(options?.Output, "output of orchestration", instanceId);
        return SendAsync(instanceId, new ExecutionTerminated(json), unpark: true, verify: instance =>
        {
            if (instance is null) throw Missing(instanceId);
            if (!instance.IsOver) return;
            throw new InvalidOperationException(
                $"Cannot terminate the orchestration instance {instanceId} because instance is in the {instance.Status} state.");
        });
    }

    /// <exception cref="InvalidOperationException">no such instance, or it is over or suspended already.</exception>
    public override Task SuspendInstanceAsync(string instanceId, string? reason = null, CancellationToken cancellation = default) =>
        SendAsync(instanceId, new ExecutionSuspended(reason), instance =>
        {
            if (instance is null) throw Missing(instanceId);
            if (!instance.IsOver && instance.VisibleStatus != OrchestrationRuntimeStatus.Suspended) return;
            throw new InvalidOperationException(
                $"Cannot suspend the orchestration instance {instanceId} because instance is in the {instance.VisibleStatus} state.");
        });

    /// <summary>Also lets an instance that was parked for not replaying try again.</summary>
    /// <exception cref="InvalidOperationException">no such instance, or it is not suspended.</exception>
    public override Task ResumeInstanceAsync(string instanceId, string? reason = null, CancellationToken cancellation = default) =>
        SendAsync(instanceId, new ExecutionResumed(reason), unpark: true, verify: instance =>
        {
            if (instance is null) throw Missing(instanceId);
            if (instance.VisibleStatus == OrchestrationRuntimeStatus.Suspended) return;
            throw new InvalidOperationException(
                $"Cannot resume the orchestration instance {instanceId} because instance is in the {instance.Status} state.");
        });

    public override Task<OrchestrationMetadata> WaitForInstanceStartAsync(
        string instanceId, bool getInputsAndOutputs = false, CancellationToken cancellation = default) =>
        WaitUntilAsync(instanceId, instance => instance.Status != OrchestrationRuntimeStatus.Pending, getInputsAndOutputs, cancellation);

    public override Task<OrchestrationMetadata> WaitForInstanceCompletionAsync(
        string instanceId, bool getInputsAndOutputs = false, CancellationToken cancellation = default) =>
        WaitUntilAsync(instanceId, instance => instance.IsOver, getInputsAndOutputs, cancellation);

    /// <returns>null when there is no such instance.</returns>
    public override Task<OrchestrationMetadata?> GetInstancesAsync(
        string instanceId, bool getInputsAndOutputs = false, CancellationToken cancellation = default) =>
        Task.FromResult(store.Find(instanceId) is { } instance ? Describe(instance, getInputsAndOutputs) : null);

    public override AsyncPageable<OrchestrationMetadata> GetAllInstancesAsync(OrchestrationQuery? filter = null)
    {
        filter ??= new OrchestrationQuery();
        return Pageable.Create<OrchestrationMetadata>((after, pageSize, _) =>
        {
            int size = pageSize ?? filter.PageSize;
            List<InstanceRow> rows = store.List(after ?? filter.ContinuationToken ?? "", filter.InstanceIdPrefix, size);
            List<OrchestrationMetadata> values =
            [
                .. rows.Where(row => Matches(row, filter.CreatedFrom, filter.CreatedTo, filter.Statuses))
                    .Select(row => Describe(row, filter.FetchInputsAndOutputs)),
            ];
            return Task.FromResult(new Page<OrchestrationMetadata>(values, rows.Count < size ? null : rows[^1].Id));
        });
    }

    /// <returns>0 when there is no such instance.</returns>
    /// <exception cref="InvalidOperationException">the instance is not over.</exception>
    public override async Task<PurgeResult> PurgeInstanceAsync(
        string instanceId, PurgeInstanceOptions? options = null, CancellationToken cancellation = default) =>
        new(await store.PurgeAsync(instanceId, options?.Recursive == true, instance =>
        {
            if (instance.IsOver) return;
            throw new InvalidOperationException(
                "Only orchestrations in a terminal state can be purged, but the orchestration with instance ID " +
                $"{instanceId} has status {instance.VisibleStatus}");
        }));

    public override async Task<PurgeResult> PurgeAllInstancesAsync(
        PurgeInstancesFilter filter, PurgeInstanceOptions? options = null, CancellationToken cancellation = default)
    {
        int purged = 0;
        foreach (InstanceRow row in store.List("", null, int.MaxValue))
        {
            if (!row.IsOver || !Matches(row, filter.CreatedFrom, filter.CreatedTo, filter.Statuses)) continue;
            purged += await store.PurgeAsync(row.Id, options?.Recursive == true, _ => { });
        }
        return new PurgeResult(purged);
    }

    public override ValueTask DisposeAsync() => ValueTask.CompletedTask; // the host owns the store

    private string DefaultVersion => options.Versions.Default;

    private static InvalidOperationException Missing(string id) =>
        new($"No instance with ID '{id}' was found. (Parameter 'instanceId')");

    private async Task SendAsync(string id, HistoryEvent e, Action<InstanceRow?> verify, bool unpark = false)
    {
        await store.SendAsync(id, e, verify, unpark);
        engine.Wake(id);
    }

    private async Task<OrchestrationMetadata> WaitUntilAsync(
        string id, Func<InstanceRow, bool> isReached, bool withPayloads, CancellationToken cancellation)
    {
        while (true)
        {
            Task changed = store.NextChange;
            if (store.Find(id) is { } instance && isReached(instance)) return Describe(instance, withPayloads);
            await changed.WaitAsync(cancellation);
        }
    }

    private OrchestrationMetadata Describe(InstanceRow row, bool withPayloads) => new(row.Name, row.Id)
    {
        DataConverter = withPayloads ? payloads.Converter : null,
        RuntimeStatus = row.VisibleStatus,
        CreatedAt = row.CreatedAt,
        LastUpdatedAt = row.UpdatedAt,
        SerializedInput = withPayloads ? row.Input : null,
        SerializedOutput = withPayloads ? row.Stuck ?? row.Output : null,
        SerializedCustomStatus = withPayloads ? row.CustomStatus : null,
        Tags = row.Tags is null ? new Dictionary<string, string>() : JsonSerializer.Deserialize<Dictionary<string, string>>(row.Tags)!,
    };

    private static bool Matches(
        InstanceRow row, DateTimeOffset? from, DateTimeOffset? to, IEnumerable<OrchestrationRuntimeStatus>? statuses) =>
        (from is null || row.CreatedAt >= from) && (to is null || row.CreatedAt <= to)
        && (statuses is null || !statuses.Any() || statuses.Contains(row.VisibleStatus));
}
