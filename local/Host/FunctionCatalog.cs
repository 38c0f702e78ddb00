using System.Reflection;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;

namespace Rlhf.Local.Host;

/// <summary>One [Function] method and the parameter that its trigger fills.</summary>
internal sealed record Function(string Name, MethodInfo Method, ParameterInfo TriggerParameter, TriggerBindingAttribute Trigger);

/// <summary>The [Function] methods of some assemblies, found once at start; the genuine SDK does it with a source generator.</summary>
internal sealed class FunctionCatalog
{
    private readonly Dictionary<string, Function> _byName = new(StringComparer.OrdinalIgnoreCase);

    /// <param name="assemblies">where to look</param>
    /// <param name="isDisabled">by function name: the setting AzureWebJobs.NAME.Disabled</param>
    /// <exception cref="HostConfigurationException">a function has no trigger, a trigger of the wrong type, or another's name.</exception>
    public FunctionCatalog(IEnumerable<Assembly> assemblies, Func<string, bool> isDisabled)
    {
        IEnumerable<MethodInfo> methods = assemblies.SelectMany(assembly => assembly.GetTypes()).SelectMany(type => type.GetMethods(
            BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly));
        foreach (MethodInfo method in methods)
        {
            if (method.GetCustomAttribute<FunctionAttribute>() is not { } attribute || isDisabled(attribute.Name)) continue;
            Function function = Describe(attribute.Name, method);
            if (_byName.TryAdd(function.Name, function)) continue;
            throw new HostConfigurationException(
                $"Two functions have the name '{function.Name}': {Describe(method)} and {Describe(_byName[function.Name].Method)}.");
        }
    }

    public IEnumerable<(Function Function, TTrigger Trigger)> With<TTrigger>() where TTrigger : TriggerBindingAttribute =>
        _byName.Values.Where(function => function.Trigger is TTrigger).Select(function => (function, (TTrigger)function.Trigger));

    /// <returns>null when there is no function of that name and kind.</returns>
    public Function? Find<TTrigger>(string name) where TTrigger : TriggerBindingAttribute =>
        _byName.TryGetValue(name, out Function? function) && function.Trigger is TTrigger ? function : null;

    private static Function Describe(string name, MethodInfo method)
    {
        if (!method.IsPublic || method.DeclaringType is not { IsVisible: true })
            throw new HostConfigurationException($"Function '{name}' ({Describe(method)}) and its class must be public.");
        foreach (ParameterInfo parameter in method.GetParameters())
        {
            if (parameter.GetCustomAttribute<TriggerBindingAttribute>() is not { } trigger) continue;
            if (trigger is OrchestrationTriggerAttribute && parameter.ParameterType != typeof(TaskOrchestrationContext))
            {
                throw new HostConfigurationException(
                    $"Orchestrator '{name}' ({Describe(method)}) must take a {nameof(TaskOrchestrationContext)}.");
            }
            if (trigger is OrchestrationTriggerAttribute && !method.IsStatic)
            {
                throw new HostConfigurationException(
                    $"Orchestrator '{name}' ({Describe(method)}) must be static: what a constructor brings in is not replayed.");
            }
            return new Function(name, method, parameter, trigger);
        }
        throw new HostConfigurationException($"Function '{name}' ({Describe(method)}) has no trigger parameter.");
    }

    private static string Describe(MethodInfo method) => $"{method.DeclaringType}.{method.Name}";
}
