using Microsoft.Extensions.Logging;

namespace Rlhf.Local.Engine;

/// <summary>Names the instance whose orchestrator holds a turn too long: an endless loop or a blocking call. One per turn worker.</summary>
internal sealed class TurnWatchdog : IDisposable
{
    private readonly TimeSpan _limit;
    private readonly ITimer _timer;
    private volatile string? _turn;

    /// <param name="limit">how long a turn may take</param>
    /// <param name="clock">measures it</param>
    /// <param name="logger">where the instance is named</param>
    /// <param name="onOverdue">called once for each turn that is too long</param>
    public TurnWatchdog(TimeSpan limit, TimeProvider clock, ILogger logger, Action onOverdue)
    {
        _limit = limit;
        _timer = clock.CreateTimer(
            _ =>
            {
                if (_turn is not { } turn) return;
                logger.LogError(
                    "{Turn} has held its turn for more than {Seconds} s. An orchestrator must not loop, block or compute: look for an " +
                    "endless loop or a blocking call in it. Other instances go on.", turn, limit.TotalSeconds);
                onOverdue();
            },
            null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    public void Begin(InstanceRow instance)
    {
        _turn = $"Orchestrator '{instance.Name}' of instance '{instance.Id}'";
        _timer.Change(_limit, Timeout.InfiniteTimeSpan);
    }

    public void End()
    {
        _turn = null;
        _timer.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    public void Dispose() => _timer.Dispose();
}
