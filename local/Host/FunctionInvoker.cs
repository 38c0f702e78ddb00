using System.ComponentModel;
using System.Reflection;
using System.Runtime.ExceptionServices;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.DependencyInjection;

namespace Rlhf.Local.Host;

/// <summary>Binds a function's parameters and calls it: a scope and a new instance for each invocation, as the worker does.</summary>
internal sealed class FunctionInvoker(IServiceScopeFactory scopes)
{
    public static readonly IReadOnlyDictionary<string, object?> NoData = new Dictionary<string, object?>();

    /// <param name="function">what to call</param>
    /// <param name="trigger">the value of the trigger's parameter</param>
    /// <param name="bindingData">values bound by parameter name: route values, the activity's instanceId</param>
    /// <param name="cancellation">bound to a CancellationToken parameter</param>
    /// <returns>what the function returned; null for void and for a plain task.</returns>
    public async Task<object?> InvokeAsync(
        Function function, object? trigger, IReadOnlyDictionary<string, object?> bindingData, CancellationToken cancellation)
    {
        await using AsyncServiceScope scope = scopes.CreateAsyncScope();
        var context = new Invocation(function, scope.ServiceProvider, cancellation);
        object?[] arguments = [.. function.Method.GetParameters().Select(parameter =>
            parameter == function.TriggerParameter ? trigger : Bind(parameter, context, bindingData))];
        object? target = function.Method.IsStatic
            ? null
            : ActivatorUtilities.CreateInstance(scope.ServiceProvider, function.Method.DeclaringType!);
        try
        {
            return await CallAsync(function.Method, target, arguments);
        }
        finally
        {
            if (target is IAsyncDisposable asynchronously) await asynchronously.DisposeAsync();
            else (target as IDisposable)?.Dispose();
        }
    }

    /// <summary>Calls a method as its own code would be called: exceptions come as they were thrown.</summary>
    public static Task<object?> CallAsync(MethodInfo method, object? target, object?[] arguments)
    {
        object? returned;
        try
        {
            returned = method.Invoke(target, arguments);
        }
        catch (TargetInvocationException wrapped)
        {
            ExceptionDispatchInfo.Throw(wrapped.InnerException!);
            throw;
        }
        return returned is Task task ? ResultOfAsync(task) : Task.FromResult(returned);
    }

    private static async Task<object?> ResultOfAsync(Task task)
    {
        await task;
        PropertyInfo? result = task.GetType().GetProperty(nameof(Task<>.Result));
        return result is null || result.PropertyType.Name == "VoidTaskResult" ? null : result.GetValue(task);
    }

    private static object? Bind(ParameterInfo parameter, Invocation context, IReadOnlyDictionary<string, object?> bindingData)
    {
        if (parameter.IsDefined(typeof(DurableClientAttribute))) return context.InstanceServices.GetRequiredService<DurableTaskClient>();
        if (parameter.ParameterType == typeof(FunctionContext)) return context;
        if (parameter.ParameterType == typeof(CancellationToken)) return context.CancellationToken;
        if (bindingData.TryGetValue(parameter.Name!, out object? value) && value is not null)
            return ConvertTo(parameter.ParameterType, value);
        if (parameter.HasDefaultValue) return parameter.DefaultValue;
        return parameter.ParameterType.IsValueType ? Activator.CreateInstance(parameter.ParameterType) : null;
    }

    private static object? ConvertTo(Type type, object value)
    {
        type = Nullable.GetUnderlyingType(type) ?? type;
        return type.IsInstanceOfType(value) ? value : TypeDescriptor.GetConverter(type).ConvertFromInvariantString(value.ToString()!);
    }

    private sealed class Invocation(Function function, IServiceProvider services, CancellationToken cancellation) : FunctionContext
    {
        public override string InvocationId { get; } = Guid.NewGuid().ToString();
        public override string FunctionId => FunctionDefinition.Id;
        public override FunctionDefinition FunctionDefinition { get; } = new Definition(function);
        public override IServiceProvider InstanceServices { get; set; } = services;
        public override IDictionary<object, object> Items { get; set; } = new Dictionary<object, object>();
        public override CancellationToken CancellationToken => cancellation;
    }

    private sealed class Definition(Function function) : FunctionDefinition
    {
        public override string Id => function.Name;
        public override string Name => function.Name;
        public override string EntryPoint => $"{function.Method.DeclaringType!.FullName}.{function.Method.Name}";
        public override string PathToAssembly => function.Method.DeclaringType!.Assembly.Location;
    }
}
