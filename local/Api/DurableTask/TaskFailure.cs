using System.Collections.Concurrent;

namespace Microsoft.DurableTask;

/// <summary>A failure as history keeps it: text only, so that it survives the process, and short, so that history stays small.</summary>
public record TaskFailureDetails(
    string ErrorType, string ErrorMessage, string? StackTrace, TaskFailureDetails? InnerFailure, IDictionary<string, object?>? Properties)
{
    // Very long exception texts have hung instances of the upstream engines: at most 8 Ki characters each, and ten failures deep.
    private const int LongestText = 8 * 1024;
    private const int DeepestFailure = 10;

    // Orchestrators ask for the same few types at every replay, and a search goes through all assemblies.
    private static readonly ConcurrentDictionary<string, Type> Found = new();

    public bool IsCausedBy<T>() where T : Exception => IsCausedBy(typeof(T));

    /// <summary>Whether the failed exception's type is, or derives from, <paramref name="targetBaseExceptionType"/>.</summary>
    public bool IsCausedBy(Type targetBaseExceptionType)
    {
        Type? actual = Found.TryGetValue(ErrorType, out Type? before) ? before : Find(ErrorType);
        return actual is not null && targetBaseExceptionType.IsAssignableFrom(actual);
    }

    public static TaskFailureDetails FromException(Exception exception) => FromException(exception, 1);

    public override string ToString() => $"{ErrorType}: {ErrorMessage}";

    internal static string Cut(string text)
    {
        if (text.Length <= LongestText) return text;
        int length = char.IsHighSurrogate(text[LongestText - 1]) ? LongestText - 1 : LongestText;
        return text[..length] + " [cut]";
    }

    private static Type? Find(string name)
    {
        Type? type = Type.GetType(name) ?? AppDomain.CurrentDomain.GetAssemblies()
            .Select(assembly => assembly.GetType(name)).FirstOrDefault(type => type is not null);
        if (type is not null) Found.TryAdd(name, type); // the assembly of one that is not there may still be loaded
        return type;
    }

    private static TaskFailureDetails FromException(Exception exception, int depth) => new(
        exception.GetType().FullName!, Cut(exception.Message), exception.StackTrace is { } trace ? Cut(trace) : null,
        exception switch
        {
            _ when depth == DeepestFailure => null,
            TaskFailedException failed => failed.FailureDetails,
            { InnerException: { } inner } => FromException(inner, depth + 1),
            _ => null,
        },
        null);
}

/// <summary>Thrown into an orchestrator that awaits a failed activity or sub-orchestration.</summary>
public sealed class TaskFailedException(string taskName, int taskId, TaskFailureDetails failureDetails)
    : Exception($"Task '{taskName}' (#{taskId}) failed with an unhandled exception: {failureDetails.ErrorMessage}")
{
    public string TaskName { get; } = taskName;
    public int TaskId { get; } = taskId;
    public TaskFailureDetails FailureDetails { get; } = failureDetails;
}
