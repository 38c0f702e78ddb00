using System.Text.Json;

namespace Rlhf.Local.Engine;

/// <summary>
/// Compares what code asks for on replay with what history has. They must be the same, but for one thing: an object in an input may have
/// members that it had not when it was recorded. Those are fields that a later version of the code has added; what was carried out then,
/// was carried out without them.
/// </summary>
internal static class RecordedInput
{
    public static bool Fits(ScheduledAction recorded, ScheduledAction asked) => asked == recorded || (recorded, asked) switch
    {
        (TaskScheduled before, TaskScheduled now) => now with { Input = before.Input } == before && Extends(before.Input, now.Input),
        (SubOrchestrationCreated before, SubOrchestrationCreated now) =>
            now with { Input = before.Input } == before && Extends(before.Input, now.Input),
        (EventSent before, EventSent now) => now with { Input = before.Input } == before && Extends(before.Input, now.Input),
        _ => false,
    };

    private static bool Extends(string? recorded, string? asked)
    {
        if (recorded is null || asked is null)
            return recorded == asked;
        using JsonDocument before = JsonDocument.Parse(recorded), now = JsonDocument.Parse(asked);
        return Extends(before.RootElement, now.RootElement);
    }

    private static bool Extends(JsonElement recorded, JsonElement asked) => recorded.ValueKind switch
    {
        JsonValueKind.Object => asked.ValueKind == JsonValueKind.Object
            && recorded.EnumerateObject().All(member => asked.TryGetProperty(member.Name, out JsonElement now) && Extends(member.Value, now)),
        JsonValueKind.Array => asked.ValueKind == JsonValueKind.Array
            && recorded.GetArrayLength() == asked.GetArrayLength()
            && recorded.EnumerateArray().Zip(asked.EnumerateArray()).All(pair => Extends(pair.First, pair.Second)),
        _ => JsonElement.DeepEquals(recorded, asked),
    };
}
