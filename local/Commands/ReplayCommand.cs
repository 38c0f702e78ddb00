using System.Text.Json;
using Microsoft.DurableTask.Converters;
using Rlhf.Local.Engine;
using Rlhf.Local.Host;

namespace Rlhf.Local.Commands;

/// <summary>Tells whether this version's orchestrators could carry on what another version began.</summary>
internal sealed record ReplayCommand(IReadOnlyList<string> Files)
{
    /// <summary>Replays each file.</summary>
    /// <returns>0 only if all replay.</returns>
    /// <exception cref="UserErrorException">A file is missing or no history.</exception>
    public async Task<int> ExecuteAsync(TextWriter output, CancellationToken cancellation)
    {
        var catalog = new FunctionCatalog([typeof(ReplayCommand).Assembly], _ => false);
        var payloads = new PayloadSerializer(JsonDataConverter.Default, new EngineOptions());
        bool all = true;
        foreach (string file in Files)
        {
            HistoryFile history = await ReadAsync(file, cancellation);
            try
            {
                history.Replay(payloads, name => DurableFunctions.FindOrchestrator(catalog, name));
                await output.WriteLineAsync($"{file}: replays ({history.Events.Count} events)");
            }
            catch (NonDeterminismException mismatch)
            {
                all = false;
                await output.WriteLineAsync($"{file}: {mismatch.Message}");
            }
        }

        return all ? 0 : 1;
    }

    private static async Task<HistoryFile> ReadAsync(string file, CancellationToken cancellation)
    {
        try
        {
            return HistoryFile.FromJson(await File.ReadAllTextAsync(file, cancellation));
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException or NotSupportedException)
        {
            throw new UserErrorException($"'{file}' is not a history that 'history' wrote: {e.Message}", e);
        }
    }
}
