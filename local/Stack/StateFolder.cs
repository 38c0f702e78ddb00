using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Rlhf.Local.Stack;

/// <summary>
/// Everything that outlives the process: Azurite's data, the engine's database, logs, ports and process ids. One process at a time
/// owns it; the operating system gives the lock back when that process ends, however it ends.
/// </summary>
internal sealed class StateFolder : IDisposable
{
    private readonly FileStream claim;
    private readonly List<ProcessRecord> processes = [];

    private StateFolder(string path, FileStream claim)
    {
        Root = path;
        this.claim = claim;
    }

    public string Root { get; }

    public string AzuriteData => Directory.CreateDirectory(Path.Combine(Root, "azurite")).FullName;

    public string Database => Path.Combine(Root, "durable.db");

    public string Log(string name) => Path.Combine(Directory.CreateDirectory(Path.Combine(Root, "logs")).FullName, name + ".log");

    private string OwnerFile => Path.Combine(Root, "owner.json");

    private string ProcessesFile => Path.Combine(Root, "pids.json");

    private string PortsFile => Path.Combine(Root, "ports.json");

    private string LastRunFile => Path.Combine(Root, "last-run.json");

    /// <summary>Takes the folder, and makes it where it is missing.</summary>
    /// <exception cref="UserErrorException">Another process has it, or it cannot be written.</exception>
    public static StateFolder Open(string path)
    {
        path = Path.GetFullPath(path);
        try
        {
            Directory.CreateDirectory(path);
            var claim = new FileStream(Path.Combine(path, "lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            var state = new StateFolder(path, claim);
            Write(state.OwnerFile, new Owner(Environment.ProcessId));
            return state;
        }
        catch (IOException) when (File.Exists(Path.Combine(path, "lock")))
        {
            string owner = Read<Owner>(Path.Combine(path, "owner.json")) is { } known ? $"process {known.ProcessId}" : "another process";
            throw new UserErrorException($"The state folder '{path}' is in use by {owner}. Stop that one first, or choose another folder with --state.");
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            throw new UserErrorException($"The state folder '{path}' cannot be written: {e.Message} Choose another with --state.", e);
        }
    }

    /// <summary>The ports of the last start where they are still free, others where not.</summary>
    public StoragePorts TakePorts()
    {
        StoragePorts? last = Read<StoragePorts>(PortsFile);
        if (last is not null && IsFree(last.Blob) && IsFree(last.Queue) && IsFree(last.Table))
            return last;
        int[] free = FreePorts(3);
        var ports = new StoragePorts(free[0], free[1], free[2]);
        Write(PortsFile, ports);
        return ports;
    }

    /// <summary>True if a server could listen on that port of 127.0.0.1 now.</summary>
    public static bool IsFree(int port)
    {
        using var listener = new TcpListener(IPAddress.Loopback, port);
        try
        {
            listener.Start();
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    /// <summary>Ports of 127.0.0.1 that nobody listens on, all different.</summary>
    public static int[] FreePorts(int count)
    {
        TcpListener[] listeners = [.. Enumerable.Range(0, count).Select(_ => new TcpListener(IPAddress.Loopback, 0))];
        foreach (TcpListener listener in listeners)
            listener.Start();
        int[] ports = [.. listeners.Select(listener => ((IPEndPoint)listener.LocalEndpoint).Port)];
        foreach (TcpListener listener in listeners)
            listener.Dispose();
        return ports;
    }

    /// <summary>Writes down a process that was started, so that the next start can end it if this one never comes to that.</summary>
    public void Record(string role, ChildProcess child)
    {
        lock (processes)
        {
            processes.RemoveAll(record => record.Role == role);
            processes.Add(new ProcessRecord(role, child.Id, child.Started));
            Write(ProcessesFile, processes);
        }
    }

    /// <summary>Ends what a killed start left behind: the trainer first, then the storage it writes to.</summary>
    /// <returns>The roles of the processes that were still there.</returns>
    public async Task<IReadOnlyList<string>> StopLeftoversAsync()
    {
        var stopped = new List<string>();
        foreach (ProcessRecord record in (Read<List<ProcessRecord>>(ProcessesFile) ?? []).OrderByDescending(record => record.Role, StringComparer.Ordinal))
        {
            if (await ChildProcess.StopLeftoverAsync(record.ProcessId, record.StartedUtc, TimeSpan.FromSeconds(15)))
                stopped.Add(record.Role);
        }

        File.Delete(ProcessesFile);
        return stopped;
    }

    /// <summary>All processes ended in order: nothing is left to clean up.</summary>
    public void ForgetProcesses() => File.Delete(ProcessesFile);

    /// <summary>The last run that was started without an id of its own, to be carried on by the next start with the same spec.</summary>
    public LastRun? ReadLastRun() => Read<LastRun>(LastRunFile);

    public void WriteLastRun(LastRun run) => Write(LastRunFile, run);

    public void Dispose()
    {
        File.Delete(OwnerFile);
        claim.Dispose();
    }

    private static T? Read<T>(string path)
        where T : class
    {
        try
        {
            return File.Exists(path) ? JsonSerializer.Deserialize<T>(File.ReadAllText(path), RlhfJson.Compact) : null;
        }
        catch (Exception e) when (e is JsonException or IOException)
        {
            return null; // Every file read here is a convenience; without it the stack starts afresh.
        }
    }

    private static void Write<T>(string path, T value)
    {
        File.WriteAllText(path + ".tmp", JsonSerializer.Serialize(value, RlhfJson.Compact));
        File.Move(path + ".tmp", path, overwrite: true);
    }

    private sealed record Owner(int ProcessId);

    private sealed record ProcessRecord(string Role, int ProcessId, DateTime StartedUtc);
}

/// <summary>Azurite's ports on 127.0.0.1.</summary>
internal sealed record StoragePorts(int Blob, int Queue, int Table)
{
    /// <summary>What names this Azurite to the storage SDK; account and key are the emulator's published ones.</summary>
    [JsonIgnore]
    public string ConnectionString =>
        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
        + "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
        + $"BlobEndpoint=http://127.0.0.1:{Blob}/devstoreaccount1;QueueEndpoint=http://127.0.0.1:{Queue}/devstoreaccount1;"
        + $"TableEndpoint=http://127.0.0.1:{Table}/devstoreaccount1;";
}

/// <summary>A run and the spec it was started with.</summary>
internal sealed record LastRun(string RunId, string SpecSha256);
