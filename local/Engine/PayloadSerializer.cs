using System.Text;
using Microsoft.DurableTask;

namespace Rlhf.Local.Engine;

/// <summary>Turns values into the text that history keeps, and refuses what is too large for it.</summary>
internal sealed class PayloadSerializer(DataConverter converter, EngineOptions options)
{
    public DataConverter Converter => converter;

    /// <param name="value">the input, output or event; null stays null</param>
    /// <param name="kind">what it is, for the error: "input of activity"</param>
    /// <param name="name">of which one</param>
    /// <exception cref="PayloadTooLargeException"></exception>
    public string? Serialize(object? value, string kind, string name)
    {
        if (converter.Serialize(value) is not { } json) return null;
        int bytes = Encoding.UTF8.GetByteCount(json);
        return bytes <= options.MaxPayloadBytes
            ? json
            : throw new PayloadTooLargeException($"{kind} '{name}'", bytes, options.MaxPayloadBytes);
    }

    /// <returns>"null" for null: a status that was taken back is not one that was never set.</returns>
    /// <exception cref="PayloadTooLargeException"></exception>
    public string SerializeStatus(object? status, string instanceId)
    {
        string json = converter.Serialize(status) ?? "null";
        int bytes = Encoding.Unicode.GetByteCount(json);
        return bytes <= options.MaxCustomStatusBytes
            ? json
            : throw new PayloadTooLargeException($"custom status of '{instanceId}' (in UTF-16)", bytes, options.MaxCustomStatusBytes);
    }
}
