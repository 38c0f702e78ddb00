namespace Microsoft.Azure.Functions.Worker;

/// <summary>The part of an invocation's context that apps use.</summary>
public abstract class FunctionContext
{
    public abstract string InvocationId { get; }
    public abstract string FunctionId { get; }
    public abstract FunctionDefinition FunctionDefinition { get; }
    public abstract IServiceProvider InstanceServices { get; set; }
    public abstract IDictionary<object, object> Items { get; set; }
    public virtual CancellationToken CancellationToken { get; }
}

public abstract class FunctionDefinition
{
    public abstract string Id { get; }
    public abstract string Name { get; }
    public abstract string EntryPoint { get; }
    public abstract string PathToAssembly { get; }
}

/// <summary>
/// Nothing here uses it. Its name clashes with Microsoft.DurableTask.RetryContext in the genuine package, so code that must qualify the
/// name there must qualify it here.
/// </summary>
public abstract class RetryContext
{
    public abstract int RetryCount { get; }
    public abstract int MaxRetryCount { get; }
}
