namespace Rlhf.Local.Engine;

/// <summary>Runs an orchestrator function from its start; the task ends when the orchestrator returns or throws.</summary>
internal delegate Task<object?> Orchestrator(ReplayContext context);

/// <summary>The code an engine runs; the function host offers it from the app's [Function] methods.</summary>
internal interface IDurableCode
{
    /// <returns>null when there is no orchestrator of that name.</returns>
    Orchestrator? FindOrchestrator(string name);

    /// <summary>Runs an activity once.</summary>
    /// <param name="name">the activity's function name</param>
    /// <param name="instanceId">the orchestration that asked for it</param>
    /// <param name="input">JSON</param>
    /// <param name="cancellation">the host stops; an activity that ends by it runs again on the next start</param>
    /// <returns>the activity's output</returns>
    Task<object?> RunActivityAsync(string name, string instanceId, string? input, CancellationToken cancellation);
}
