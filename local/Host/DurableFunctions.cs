using System.Reflection;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Rlhf.Local.Engine;

namespace Rlhf.Local.Host;

/// <summary>Offers the app's orchestrator and activity functions to the engine.</summary>
internal sealed class DurableFunctions(FunctionCatalog catalog, FunctionInvoker invoker, DataConverter converter) : IDurableCode
{
    public Orchestrator? FindOrchestrator(string name) => FindOrchestrator(catalog, name);

    /// <inheritdoc cref="IDurableCode.FindOrchestrator"/>
    public static Orchestrator? FindOrchestrator(FunctionCatalog catalog, string name)
    {
        if (catalog.Find<OrchestrationTriggerAttribute>(name) is not { } function) return null;
        ParameterInfo[] parameters = function.Method.GetParameters();
        return context => FunctionInvoker.CallAsync(function.Method, null, [.. parameters.Select(parameter =>
            parameter == function.TriggerParameter ? context : context.GetInput(parameter.ParameterType))]);
    }

    public Task<object?> RunActivityAsync(string name, string instanceId, string? input, CancellationToken cancellation)
    {
        Function function = catalog.Find<ActivityTriggerAttribute>(name) ?? throw new InvalidOperationException(
            $"The function '{name}' doesn't exist, is disabled, or is not an activity function.");
        object? value = converter.Deserialize(input, function.TriggerParameter.ParameterType);
        return invoker.InvokeAsync(function, value, new Dictionary<string, object?> { ["instanceId"] = instanceId }, cancellation);
    }
}
