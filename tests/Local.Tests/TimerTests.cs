using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Rlhf.Local.Tests;

public static class TimerFunctions
{
    [Function("Sleep")]
    public static async Task<DateTime> SleepAsync([OrchestrationTrigger] TaskOrchestrationContext context, TimeSpan length)
    {
        await context.CreateTimer(length, CancellationToken.None);
        return context.CurrentUtcDateTime;
    }

    [Function("SleepSideBySide")]
    public static async Task<int> SideBySideAsync([OrchestrationTrigger] TaskOrchestrationContext context, int count)
    {
        DateTime due = context.CurrentUtcDateTime.AddMinutes(1);
        await Task.WhenAll(Enumerable.Range(0, count).Select(_ => context.CreateTimer(due, CancellationToken.None)));
        return count;
    }

    /// <summary>The first of two timers wins; the loser is cancelled or forgotten.</summary>
    [Function("Race")]
    public static async Task<string> RaceAsync([OrchestrationTrigger] TaskOrchestrationContext context, bool cancelTheLoser)
    {
        using var raceOver = new CancellationTokenSource();
        Task slow = context.CreateTimer(TimeSpan.FromHours(1), raceOver.Token);
        Task fast = context.CreateTimer(TimeSpan.FromMinutes(1), CancellationToken.None);
        Task first = await Task.WhenAny(slow, fast);
        context.SetCustomStatus(first == fast ? "fast won" : "slow won");
        if (cancelTheLoser) raceOver.Cancel();
        return first == fast ? "fast" : "slow";
    }
}

public sealed class TimerTests
{
    private readonly FakeTimeProvider _clock = new(new DateTimeOffset(2026, 1, 1, 12, 0, 0, TimeSpan.Zero));

    [Fact]
    public async Task A_timer_fires_when_its_time_has_come_and_not_before()
    {
        await using TestHost host = await TestHost.StartAsync(clock: _clock);
        await host.BeginAsync("Sleep", TimeSpan.FromMinutes(10), "sleeper");
        await host.UntilAsync("sleeper", instance => instance.IsRunning);

        _clock.Advance(TimeSpan.FromMinutes(9.999));
        await Task.Delay(50);
        Assert.True((await host.Client.GetInstanceAsync("sleeper"))!.IsRunning);

        _clock.Advance(TimeSpan.FromSeconds(1));
        OrchestrationMetadata done = await host.CompletionAsync("sleeper");
        DateTime due = new(2026, 1, 1, 12, 10, 0, DateTimeKind.Utc);
        Assert.InRange(done.ReadOutputAs<DateTime>(), due, due.AddSeconds(1));
    }

    [Fact]
    public async Task Many_timers_of_the_same_time_all_fire()
    {
        await using TestHost host = await TestHost.StartAsync(clock: _clock);
        string[] ids = [.. Enumerable.Range(0, 20).Select(i => $"many{i}")];
        foreach (string id in ids)
            await host.BeginAsync("SleepSideBySide", 10, id);
        foreach (string id in ids) await host.UntilAsync(id, instance => instance.IsRunning);
        _clock.Advance(TimeSpan.FromMinutes(1));
        foreach (string id in ids) Assert.Equal(10, (await host.CompletionAsync(id)).ReadOutputAs<int>());
    }

    [Fact]
    public async Task A_cancelled_timer_does_not_hold_its_instance()
    {
        await using TestHost host = await TestHost.StartAsync(clock: _clock);
        await host.BeginAsync("Race", true, "race");
        await host.UntilAsync("race", instance => instance.IsRunning);
        _clock.Advance(TimeSpan.FromMinutes(1));
        Assert.Equal("fast", (await host.CompletionAsync("race")).ReadOutputAs<string>());
        Assert.Empty(host.Store.Timers(DateTime.MaxValue).Due); // its row went with it
    }

    [Fact]
    public async Task A_forgotten_timer_keeps_its_instance_running_as_on_the_genuine_host()
    {
        await using TestHost host = await TestHost.StartAsync(clock: _clock);
        await host.BeginAsync("Race", false, "race");
        await host.UntilAsync("race", instance => instance.IsRunning);
        _clock.Advance(TimeSpan.FromMinutes(1));
        OrchestrationMetadata returned = await host.UntilStatusIsAsync("race", "fast won");
        Assert.True(returned.IsRunning);
        _clock.Advance(TimeSpan.FromHours(1));
        Assert.Equal("fast", (await host.CompletionAsync("race")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task A_timer_that_came_due_while_the_host_was_down_fires_at_the_next_start()
    {
        await using TestHost host = await TestHost.StartAsync(clock: _clock);
        await host.BeginAsync("Sleep", TimeSpan.FromMinutes(10), "sleeper");
        await host.UntilAsync("sleeper", instance => instance.IsRunning);
        await host.Host.DisposeAsync();
        _clock.Advance(TimeSpan.FromDays(1));
        await host.StartAgainAsync();
        OrchestrationMetadata done = await host.CompletionAsync("sleeper");
        Assert.Equal(new DateTime(2026, 1, 2, 12, 0, 0, DateTimeKind.Utc), done.ReadOutputAs<DateTime>());
    }

    [Fact]
    public async Task A_scheduled_start_waits_for_its_time()
    {
        await using TestHost host = await TestHost.StartAsync(clock: _clock);
        var tomorrow = new StartOrchestrationOptions("later", _clock.GetUtcNow().AddDays(1));
        await host.Client.ScheduleNewOrchestrationInstanceAsync("Chain", 2, tomorrow);
        await Task.Delay(50);
        Assert.Equal(OrchestrationRuntimeStatus.Pending, (await host.Client.GetInstanceAsync("later"))!.RuntimeStatus);
        _clock.Advance(TimeSpan.FromDays(1));
        Assert.Equal(1, (await host.CompletionAsync("later")).ReadOutputAs<int>());
    }
}
