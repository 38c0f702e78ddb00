namespace Microsoft.Azure.Functions.Worker;

/// <summary>Marks a method as a function of the app.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class FunctionAttribute(string name) : Attribute
{
    public string Name { get; } = name;
}

public enum AuthorizationLevel
{
    Anonymous = 0, User = 1, Function = 2, System = 3, Admin = 4,
}

[AttributeUsage(AttributeTargets.Parameter)]
public abstract class BindingAttribute : Attribute;

public abstract class TriggerBindingAttribute : BindingAttribute;

public abstract class InputBindingAttribute : BindingAttribute;

/// <summary>An HTTP route; without a level it asks for a function key, as on the genuine host.</summary>
public sealed class HttpTriggerAttribute : TriggerBindingAttribute
{
    public HttpTriggerAttribute() : this(AuthorizationLevel.Function, []) { }
    public HttpTriggerAttribute(params string[] methods) : this(AuthorizationLevel.Function, methods) { }
    public HttpTriggerAttribute(AuthorizationLevel authLevel) : this(authLevel, []) { }
    public HttpTriggerAttribute(AuthorizationLevel authLevel, params string[] methods) => (AuthLevel, Methods) = (authLevel, methods);

    /// <summary>The route without its prefix; null means the function's name.</summary>
    public string? Route { get; set; }

    /// <summary>Empty means all.</summary>
    public string[] Methods { get; }

    public AuthorizationLevel AuthLevel { get; }
}

/// <summary>An NCRONTAB schedule of six fields (with seconds) or five; %Name% stands for a setting.</summary>
public sealed class TimerTriggerAttribute(string schedule) : TriggerBindingAttribute
{
    public string Schedule { get; } = schedule;
    public bool UseMonitor { get; set; } = true;
    public bool RunOnStartup { get; set; }
}

/// <summary>A storage queue; %Name% stands for a setting, Connection names the setting with the connection string.</summary>
public sealed class QueueTriggerAttribute(string queueName) : TriggerBindingAttribute
{
    public string QueueName { get; } = queueName;
    public string? Connection { get; set; }
}

public sealed class OrchestrationTriggerAttribute : TriggerBindingAttribute
{
    public string? Orchestration { get; set; }
}

public sealed class ActivityTriggerAttribute : TriggerBindingAttribute
{
    public string? Activity { get; set; }
}

public sealed class DurableClientAttribute : InputBindingAttribute
{
    public string? TaskHub { get; set; }
    public string? ConnectionName { get; set; }
}
