using System.Text.Json;
using Rlhf.Rows;

namespace Rlhf.Trainer.Data;

/// <summary>Reads normalised rows from a local, verified copy of a data set.</summary>
public static class DatasetReader
{
    /// <summary>All rows of a file of JSON lines.</summary>
    /// <param name="name">The data set's name, for errors.</param>
    /// <param name="path">The local file.</param>
    /// <exception cref="JobInputException">A line is no row; the message names it.</exception>
    public static IReadOnlyList<Row> Read(string name, string path)
    {
        var rows = new List<Row>();
        int number = 0;
        foreach (string line in File.ReadLines(path))
        {
            number++;
            if (line.Length == 0)
                continue;
            try
            {
                rows.Add(JsonSerializer.Deserialize<Row>(line, RlhfJson.Compact) ?? throw new JsonException("it holds null"));
            }
            catch (JsonException e)
            {
                throw new JobInputException(
                    $"Data set '{name}', line {number} is no row: {e.Message}",
                    "Prepare the data again: the data stage writes these files.",
                    e);
            }
        }

        return rows;
    }
}
