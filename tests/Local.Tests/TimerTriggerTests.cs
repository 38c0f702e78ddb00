using Microsoft.Azure.Functions.Worker;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;
using Rlhf.Local.Host;
using Xunit;

namespace Rlhf.Local.Tests;

public sealed class TimerTriggerTests
{
    private readonly FakeTimeProvider _clock = new(new DateTimeOffset(2026, 1, 1, 12, 0, 0, TimeSpan.Zero));

    [Fact]
    public async Task A_timer_fires_by_its_schedule_and_once_for_what_it_missed()
    {
        await using TestHost host = await TestHost.StartAsync(new() { ["Probe__Schedule"] = "0 */5 * * * *" }, _clock);
        TimerInfo first = await TickAsync(host, TimeSpan.FromMinutes(5));
        Assert.False(first.IsPastDue);
        Assert.Equal(new DateTime(2026, 1, 1, 12, 10, 0, DateTimeKind.Utc), first.ScheduleStatus!.Next);
        TimerInfo second = await TickAsync(host, TimeSpan.FromMinutes(5));
        Assert.Equal(new DateTime(2026, 1, 1, 12, 5, 0, DateTimeKind.Utc), second.ScheduleStatus!.Last, TimeSpan.FromSeconds(30));

        await host.Host.DisposeAsync();
        _clock.Advance(TimeSpan.FromHours(1));
        await host.StartAgainAsync();
        Assert.True((await TickAsync(host, TimeSpan.Zero)).IsPastDue);
        await Task.Delay(50);
        Assert.Empty(Ticks(host)); // twelve were missed, one was made up for
    }

    [Fact]
    public async Task A_clock_that_was_ahead_keeps_no_timer_back_once_it_is_right()
    {
        await using TestHost host = await TestHost.StartAsync(new() { ["Probe__Schedule"] = "0 */5 * * * *" }, _clock);
        await Task.Delay(20); // until it waits
        _clock.Advance(TimeSpan.FromDays(1));
        await TickAsync(host, TimeSpan.Zero);
        await host.Host.DisposeAsync();
        _clock.AdjustTime(_clock.Start);
        await host.StartAgainAsync();
        Assert.False((await TickAsync(host, TimeSpan.FromMinutes(5))).IsPastDue);
    }

    [Fact]
    public async Task A_schedule_that_fires_more_than_once_a_minute_has_no_status()
    {
        await using TestHost host = await TestHost.StartAsync(new() { ["Probe__Schedule"] = "*/10 * * * * *" }, _clock);
        Assert.Null((await TickAsync(host, TimeSpan.FromSeconds(10))).ScheduleStatus);
    }

    [Theory]
    [InlineData("every monday", "'every monday' of timer function 'TimerProbe' is no NCRONTAB expression")]
    [InlineData(null, "Function 'TimerProbe' needs the setting 'Probe__Schedule'")]
    public async Task A_bad_or_missing_schedule_keeps_the_host_from_starting(string? schedule, string expected)
    {
        var error = await Assert.ThrowsAsync<HostConfigurationException>(() => TestHost.StartAsync(with: options => options with
        {
            Settings = new Dictionary<string, string?>(options.Settings) { ["Probe__Schedule"] = schedule },
        }));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    private async Task<TimerInfo> TickAsync(TestHost host, TimeSpan after)
    {
        await Task.Delay(20); // until it waits
        for (TimeSpan passed = TimeSpan.Zero; passed < after; passed += TimeSpan.FromSeconds(10))
        {
            Assert.Empty(Ticks(host));
            _clock.Advance(TimeSpan.FromSeconds(10));
            await Task.Delay(5);
        }
        _clock.Advance(TimeSpan.FromMilliseconds(2)); // delays end a millisecond late, never early
        for (int i = 0; i < 500; i++)
        {
            if (Ticks(host).TryDequeue(out TimerInfo? tick)) return tick;
            await Task.Delay(10);
        }
        throw new TimeoutException("The timer did not fire.");
    }

    private static System.Collections.Concurrent.ConcurrentQueue<TimerInfo> Ticks(TestHost host) =>
        host.Host.Services.GetRequiredService<TriggerProbe>().Ticks;
}
