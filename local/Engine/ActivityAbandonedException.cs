namespace Rlhf.Local.Engine;

/// <summary>An activity was running each time the host died; it is failed instead of being started for ever.</summary>
internal sealed class ActivityAbandonedException(string name, string instanceId, long attempts) : Exception(
    $"Activity '{name}' of orchestration '{instanceId}' was started {attempts} times and the host died each time before it ended. " +
    "It is not started again; look at what it does to the host process.");
