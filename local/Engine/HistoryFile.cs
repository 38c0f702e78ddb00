using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Logging.Abstractions;

namespace Rlhf.Local.Engine;

/// <summary>
/// The history of an instance's newest generation outside of its hub: to be sent with a bug report, or kept as what later code must still
/// replay.
/// </summary>
/// <param name="InstanceId">The instance.</param>
/// <param name="Events">Its history, in order.</param>
internal sealed record HistoryFile(string InstanceId, IReadOnlyList<HistoryEvent> Events)
{
    private static readonly JsonSerializerOptions Json = new()
    {
        WriteIndented = true,
        IndentSize = 1,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>The file's text.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, Json) + "\n";

    /// <summary>Reads a file's text.</summary>
    /// <exception cref="JsonException">It is no history.</exception>
    public static HistoryFile FromJson(string json) =>
        JsonSerializer.Deserialize<HistoryFile>(json, Json) is { InstanceId: not null, Events: not null } file
            ? file
            : throw new JsonException("it holds no history");

    /// <summary>Runs the code through the history without any effect: it must ask for the same, and end alike where history has an end.</summary>
    /// <param name="payloads">Reads and writes inputs and outputs.</param>
    /// <param name="find">The code.</param>
    /// <exception cref="NonDeterminismException">It does not.</exception>
    public void Replay(PayloadSerializer payloads, Func<string, Orchestrator?> find)
    {
        var turn = new OrchestrationTurn(InstanceId, payloads, NullLoggerFactory.Instance, find);
        HistoryEvent[] past = [.. Events.Where(e => e is not (ExecutionCompleted or ExecutionTerminated))];
        TurnResult result = turn.Run(past, [], DateTime.MinValue);
        if (Events.OfType<ExecutionCompleted>().LastOrDefault() is not { } end
            || end.Status == OrchestrationRuntimeStatus.Terminated.ToString())
        {
            return;
        }

        if (result.Status.ToString() != end.Status || result.Output != end.Output)
            throw new NonDeterminismException(InstanceId, $"{end.Status}: {end.Output}", $"{result.Status}: {result.Output}");
    }
}
