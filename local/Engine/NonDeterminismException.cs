namespace Rlhf.Local.Engine;

/// <summary>The code does not do what its history says it did. The instance is parked, its history stays as it is.</summary>
internal sealed class NonDeterminismException(string instanceId, string expected, string actual) : Exception(
    $"Orchestration '{instanceId}' does not replay: its history has {expected}, its code now asks for {actual}. " +
    "Put the old code back, or let running instances finish before changing it; then restart the host or resume the instance.");
