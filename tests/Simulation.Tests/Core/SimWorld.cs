using System.Globalization;

namespace Rlhf.Simulation.Core;

/// <summary>
/// Virtual time and the one thread on which everything happens. What is ready runs in an order that the seed decides, one piece after the
/// other; when nothing is ready, time goes on to the next timer. The same seed gives the same run, which <see cref="Hash"/> proves.
/// </summary>
internal sealed class SimWorld
{
    private readonly PriorityQueue<Work, (long Due, long Order)> timers = new();
    private readonly PriorityQueue<Action, long> atSteps = new();
    private readonly List<Work> ready = [];
    private readonly List<string>? trace;
    private long order;
    private volatile string? escaped;
    private ulong hash = 14695981039346656037; // FNV-1a

    /// <param name="seed">Decides the order of what is ready, and every length of time.</param>
    /// <param name="traced">Keeps the trace's lines, not only their hash.</param>
    public SimWorld(int seed, bool traced)
    {
        Random = new Random(seed);
        trace = traced ? [] : null;
        Holder = Environment.CurrentManagedThreadId;
    }

    /// <summary>The world's dice.</summary>
    public Random Random { get; }

    /// <summary>Time since the beginning.</summary>
    public TimeSpan Now { get; private set; }

    /// <summary>Pieces of work done.</summary>
    public long Steps { get; private set; }

    /// <summary>The thread that may run: the world's own, or the compute thread that it waits for.</summary>
    public int Holder { get; set; }

    public bool IsTraced => trace is not null;

    /// <summary>The hash of the trace up to now.</summary>
    public ulong Hash => hash;

    /// <summary>The lines of the trace; empty unless it is kept.</summary>
    public IReadOnlyList<string> Trace => trace ?? [];

    /// <summary>What broke a rule, the first first.</summary>
    public List<string> Violations { get; } = [];

    /// <summary>Lets something happen as soon as its turn comes.</summary>
    /// <param name="owner">The process that does it; it happens no more when the process is dead, and later when it stands still. Null is
    /// the world itself.</param>
    /// <param name="action">What.</param>
    public void Post(SimProcess? owner, Action action)
    {
        if (owner is { IsDead: true })
            return; // garbage of a dead process may still be finalised, on a thread of the runtime's
        if (Environment.CurrentManagedThreadId != Holder)
        {
            escaped = Environment.StackTrace;
            return;
        }

        ready.Add(new Work(owner, action));
    }

    /// <summary>Lets something happen after a while.</summary>
    public void After(TimeSpan delay, SimProcess? owner, Action action) =>
        timers.Enqueue(new Work(owner, action), ((Now + delay).Ticks, order++));

    /// <summary>Lets the world do something between two pieces of work, wherever those are.</summary>
    public void AtStep(long step, Action action) => atSteps.Enqueue(action, step);

    /// <summary>A length of time between two.</summary>
    public TimeSpan Between(double leastSeconds, double mostSeconds) =>
        TimeSpan.FromSeconds(leastSeconds + (mostSeconds - leastSeconds) * Random.NextDouble());

    /// <summary>True with the given probability.</summary>
    public bool Happens(double probability) => probability > 0 && Random.NextDouble() < probability;

    /// <summary>Records what happened, in the hash and, if the trace is kept, in words.</summary>
    public void Record(string who, string what)
    {
        Mix(Now.Ticks);
        Mix(who);
        Mix(what);
        trace?.Add(string.Create(CultureInfo.InvariantCulture, $"{Now.TotalSeconds,10:0.000} {who,-10} {what}"));
    }

    /// <summary>Adds a line for people to the trace; the hash does not see it.</summary>
    public void Note(string who, string what) =>
        trace?.Add(string.Create(CultureInfo.InvariantCulture, $"{Now.TotalSeconds,10:0.000} {who,-10} | {what}"));

    /// <summary>Records that a rule was broken.</summary>
    public void Violate(string rule, string what)
    {
        Violations.Add($"{rule}: {what}");
        Record("VIOLATION", Violations[^1]);
    }

    /// <summary>Runs until told to stop, or until nothing can happen any more.</summary>
    public void Run(Func<bool> isOver)
    {
        while (!isOver() && Step())
        {
            if (escaped is { } where)
            {
                Violate(
                    "everything runs on the world's thread",
                    "a continuation ran on the thread pool (Task.Run, ConfigureAwait(false), asynchronous file access, CancelAsync), where no "
                    + $"seed can repeat it\n{where}");
                return;
            }
        }
    }

    private bool Step()
    {
        if (ready.Count == 0)
        {
            if (!timers.TryPeek(out _, out (long Due, long Order) next))
                return false;
            Now = TimeSpan.FromTicks(Math.Max(Now.Ticks, next.Due));
            while (timers.TryPeek(out _, out next) && next.Due <= Now.Ticks)
                ready.Add(timers.Dequeue());
        }

        int chosen = ready.Count == 1 ? 0 : Random.Next(ready.Count);
        Work work = ready[chosen];
        ready[chosen] = ready[^1];
        ready.RemoveAt(ready.Count - 1);
        Steps++;
        while (atSteps.TryPeek(out Action? due, out long step) && step <= Steps)
        {
            atSteps.Dequeue();
            due();
        }

        if (work.Owner is null)
            work.Action();
        else
            work.Owner.Take(work.Action);
        return true;
    }

    private void Mix(string text)
    {
        foreach (char c in text)
            hash = (hash ^ c) * 1099511628211;
    }

    private void Mix(long value) => hash = (hash ^ (ulong)value) * 1099511628211;

    private readonly record struct Work(SimProcess? Owner, Action Action);
}
