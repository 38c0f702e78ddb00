namespace DurableTask.Core.Exceptions;

/// <summary>
/// A start met an instance with its id. On the genuine host this type lives in an assembly that apps do not reference: an app asks for the
/// instance first instead of catching it.
/// </summary>
public sealed class OrchestrationAlreadyExistsException(string instanceId)
    : InvalidOperationException($"An Orchestration instance with the ID {instanceId} already exists.");
