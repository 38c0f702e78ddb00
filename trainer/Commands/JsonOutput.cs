using System.Text.Json;

namespace Rlhf.Trainer.Commands;

/// <summary>Writes a command's result to standard output: one JSON value on one line, and nothing else.</summary>
internal static class JsonOutput
{
    public static void Write(Action<Utf8JsonWriter> content)
    {
        using Stream output = Console.OpenStandardOutput();
        using (var json = new Utf8JsonWriter(output)) content(json);
        output.WriteByte((byte)'\n');
    }

    public static void WriteIds(Utf8JsonWriter json, IEnumerable<int[]> rows)
    {
        json.WriteStartArray();
        foreach (int[] row in rows)
        {
            json.WriteStartArray();
            foreach (int id in row) json.WriteNumberValue(id);
            json.WriteEndArray();
        }

        json.WriteEndArray();
    }
}
