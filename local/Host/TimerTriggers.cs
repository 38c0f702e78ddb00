using Microsoft.Azure.Functions.Worker;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Logging;
using NCrontab;
using Rlhf.Local.Engine;

namespace Rlhf.Local.Host;

/// <summary>
/// Fires timer functions by their NCRONTAB schedule in UTC, one at a time each; what was missed while the host was down fires once,
/// past due.
/// </summary>
internal sealed class TimerTriggers
{
    private static readonly TimeSpan LongestSleep = TimeSpan.FromMinutes(1); // the system's clock may jump

    private readonly List<(Function Function, TimerTriggerAttribute Trigger, CrontabSchedule Schedule)> _timers = [];
    private readonly FunctionInvoker _invoker;
    private readonly HubDatabase _db;
    private readonly TimeProvider _clock;
    private readonly ILogger<TimerTriggers> _logger;

    /// <exception cref="HostConfigurationException">a schedule is missing or no NCRONTAB expression.</exception>
    public TimerTriggers(
        FunctionCatalog catalog, FunctionInvoker invoker, HubDatabase db, IConfiguration configuration, TimeProvider clock,
        ILogger<TimerTriggers> logger)
    {
        (_invoker, _db, _clock, _logger) = (invoker, db, clock, logger);
        foreach ((Function function, TimerTriggerAttribute trigger) in catalog.With<TimerTriggerAttribute>())
            _timers.Add((function, trigger, Parse(configuration.Resolve(trigger.Schedule, function.Name), function.Name)));
    }

    public Task RunAsync(CancellationToken stopping) =>
        Task.WhenAll(_timers.Select(timer => RunAsync(timer.Function, timer.Trigger, timer.Schedule, stopping)));

    private static CrontabSchedule Parse(string expression, string function)
    {
        bool hasSeconds = expression.Split(' ', StringSplitOptions.RemoveEmptyEntries).Length == 6;
        return CrontabSchedule.TryParse(expression, new CrontabSchedule.ParseOptions { IncludingSeconds = hasSeconds })
            ?? throw new HostConfigurationException(
                $"The schedule '{expression}' of timer function '{function}' is no NCRONTAB expression of five or six fields " +
                "({second} {minute} {hour} {day} {month} {day of week}), such as '0 */5 * * * *'.");
    }

    private async Task RunAsync(Function function, TimerTriggerAttribute trigger, CrontabSchedule schedule, CancellationToken stopping)
    {
        DateTime? last = ReadLast(function);
        // As on the host: a schedule that fires more than once a minute is not monitored, and its ScheduleStatus is null.
        DateTime sample = schedule.GetNextOccurrence(Now);
        bool isMonitored = trigger.UseMonitor && schedule.GetNextOccurrence(sample) - sample >= TimeSpan.FromMinutes(1);
        // A last time that is yet to come is of a clock that was ahead.
        DateTime due = schedule.GetNextOccurrence(isMonitored && last is { } missed && missed < Now ? missed : Now);
        bool isPastDue = due < Now;
        if (trigger.RunOnStartup) due = Now;
        while (true)
        {
            await SleepUntilAsync(due, stopping);
            DateTime fired = Now;
            var info = new TimerInfo { IsPastDue = isPastDue };
            if (isMonitored)
            {
                DateTime next = schedule.GetNextOccurrence(fired);
                info.ScheduleStatus = new ScheduleStatus { Last = last ?? default, Next = next, LastUpdated = last ?? default };
            }
            await FireAsync(function, info, stopping);
            await _db.TransactAsync(() => _db.Execute(
                "INSERT INTO schedules VALUES (@0, @1) ON CONFLICT (name) DO UPDATE SET last_at = @1", function.Name, fired.Ticks));
            (last, isPastDue, due) = (fired, false, schedule.GetNextOccurrence(Now));
        }
    }

    private async Task FireAsync(Function function, TimerInfo info, CancellationToken stopping)
    {
        try
        {
            await _invoker.InvokeAsync(function, info, FunctionInvoker.NoData, stopping);
        }
        catch (Exception error) when (error is not OperationCanceledException || !stopping.IsCancellationRequested)
        {
            _logger.LogError(error, "Function {Function} failed; it fires again by its schedule", function.Name);
        }
    }

    private async Task SleepUntilAsync(DateTime due, CancellationToken stopping)
    {
        while (due - Now is var wait && wait > TimeSpan.Zero)
        {
            // One millisecond more, because delays are cut to whole ones.
            await Task.Delay(wait > LongestSleep ? LongestSleep : wait + TimeSpan.FromMilliseconds(1), _clock, stopping);
        }
        stopping.ThrowIfCancellationRequested();
    }

    private DateTime? ReadLast(Function function) =>
        _db.Scalar<long?>("SELECT last_at FROM schedules WHERE name = @0", function.Name) is { } ticks
            ? new DateTime(ticks, DateTimeKind.Utc)
            : null;

    private DateTime Now => _clock.GetUtcNow().UtcDateTime;
}
