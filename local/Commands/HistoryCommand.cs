using Rlhf.Local.Engine;
using Rlhf.Local.Stack;

namespace Rlhf.Local.Commands;

/// <summary>Writes the histories of a run's orchestration and of its children, a file each.</summary>
internal sealed record HistoryCommand(string State, string RunId, string Out)
{
    /// <summary>Writes them.</summary>
    /// <exception cref="UserErrorException">The state folder is in use, or knows no such run.</exception>
    public async Task<int> ExecuteAsync(TextWriter output, CancellationToken cancellation)
    {
        if (!Directory.Exists(State))
            throw new UserErrorException($"There is no state folder '{State}'. Give the one of your runs with --state.");
        using StateFolder state = StateFolder.Open(State);
        using var db = new HubDatabase(state.Database);
        var store = new InstanceStore(db, new EngineOptions(), TimeProvider.System);
        string[] instances = [.. store.List(string.Empty, RunId, int.MaxValue).Select(row => row.Id).Where(id => id == RunId || id.StartsWith($"{RunId}:", StringComparison.Ordinal))];
        if (instances.Length == 0)
            throw new UserErrorException($"The state folder '{State}' knows no run '{RunId}'.");
        Directory.CreateDirectory(Out);
        foreach (string id in instances)
        {
            string file = Path.Combine(Out, id.Replace(':', '.') + ".json");
            await File.WriteAllTextAsync(file, new HistoryFile(id, store.History(id)).ToJson(), cancellation);
            await output.WriteLineAsync(file);
        }

        return 0;
    }
}
