namespace Rlhf.Simulation.Core;

/// <summary>The clock of one process: timers and time stamps run on virtual time, the time of day has the machine's error.</summary>
internal sealed class SimClock(SimWorld world, SimProcess process) : TimeProvider
{
    private static readonly DateTimeOffset Beginning = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;

    public override DateTimeOffset GetUtcNow() => Beginning + world.Now + process.Machine.ClockError;

    public override long GetTimestamp() => world.Now.Ticks;

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        var timer = new Timer(world, process, callback, state);
        timer.Change(dueTime, period);
        return timer;
    }

    private sealed class Timer(SimWorld world, SimProcess process, TimerCallback callback, object? state) : ITimer
    {
        private int version;
        private TimeSpan period;

        public bool Change(TimeSpan dueTime, TimeSpan period)
        {
            this.period = period;
            Set(dueTime);
            return true;
        }

        public void Dispose() => version++;

        public ValueTask DisposeAsync()
        {
            Dispose();
            return ValueTask.CompletedTask;
        }

        private void Set(TimeSpan dueTime)
        {
            int set = ++version;
            if (dueTime == Timeout.InfiniteTimeSpan)
                return;
            world.After(dueTime, process, () =>
            {
                if (set != version)
                    return;
                if (period > TimeSpan.Zero)
                    Set(period);
                callback(state);
            });
        }
    }
}
