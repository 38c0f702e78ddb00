namespace Rlhf.Local.Engine;

/// <summary>
/// Makes this process the only host of a hub. The operating system drops the lock when the process ends, however it ends. Who holds it
/// stands in a file beside it, because a locked file cannot be read everywhere.
/// </summary>
internal sealed class HubLock : IDisposable
{
    private readonly FileStream _lock;

    /// <exception cref="HubUnavailableException">another host has the hub.</exception>
    public HubLock(string databasePath)
    {
        string holder = databasePath + ".holder";
        try
        {
            _lock = new FileStream(databasePath + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException inUse)
        {
            throw new HubUnavailableException(
                $"The durable hub '{databasePath}' is in use by {Describe(holder)}. " +
                "Stop that one first, or give this one another state directory (--state).", inUse);
        }
        File.WriteAllText(holder, $"process {Environment.ProcessId}");
    }

    public void Dispose() => _lock.Dispose();

    private static string Describe(string holder)
    {
        try
        {
            return $"another host ({File.ReadAllText(holder)})";
        }
        catch (IOException)
        {
            return "another host";
        }
    }
}
