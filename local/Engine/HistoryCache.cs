namespace Rlhf.Local.Engine;

/// <summary>
/// The histories of the instances that took a turn last, as they are in the database: a turn need not read and parse what the turn before
/// it has written. Only one turn of an instance runs at a time, and only the holder of the hub's lock writes, so they cannot differ.
/// </summary>
internal sealed class HistoryCache
{
    private const int Capacity = 64; // generations

    private readonly Lock _lock = new();
    private readonly Dictionary<long, List<HistoryEvent>> _histories = [];
    private readonly Queue<long> _oldest = new();

    /// <returns>null when the generation's history must be read.</returns>
    public List<HistoryEvent>? Find(long generation)
    {
        lock (_lock) return _histories.GetValueOrDefault(generation);
    }

    /// <param name="generation">whose history</param>
    /// <param name="history">all of it, as committed</param>
    public void Keep(long generation, List<HistoryEvent> history)
    {
        lock (_lock)
        {
            if (!_histories.TryAdd(generation, history)) return;
            _oldest.Enqueue(generation);
            if (_oldest.Count > Capacity) _histories.Remove(_oldest.Dequeue());
        }
    }

    public void Drop(long generation)
    {
        lock (_lock) _histories.Remove(generation); // its place in the queue goes when its turn comes
    }
}
