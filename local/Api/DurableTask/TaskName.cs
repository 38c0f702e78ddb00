namespace Microsoft.DurableTask;

/// <summary>The name of an orchestrator or activity; compares without regard to case, as the host does.</summary>
public readonly struct TaskName(string name) : IEquatable<TaskName>
{
    private readonly string? _name = name;

    public string Name => _name ?? string.Empty; // default(TaskName) has none

    public static implicit operator TaskName(string value) => new(value);
    public static implicit operator string(TaskName value) => value.Name;
    public static bool operator ==(TaskName a, TaskName b) => a.Equals(b);
    public static bool operator !=(TaskName a, TaskName b) => !a.Equals(b);

    public bool Equals(TaskName other) => string.Equals(Name, other.Name, StringComparison.OrdinalIgnoreCase);
    public override bool Equals(object? obj) => obj is TaskName other && Equals(other);
    public override int GetHashCode() => StringComparer.OrdinalIgnoreCase.GetHashCode(Name);
    public override string ToString() => Name;
}

/// <summary>Who called this orchestration as its sub-orchestration.</summary>
public record ParentOrchestrationInstance(TaskName Name, string InstanceId);
