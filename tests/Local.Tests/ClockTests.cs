using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

/// <summary>The system's clock jumps: what waits for a time may be late, never early and never lost; what has come waits for no clock.</summary>
public sealed class ClockTests
{
    [Fact]
    public async Task Under_a_clock_that_jumps_timers_fire_late_but_never_early_and_none_is_lost()
    {
        var clock = new WackyClock { IsWild = true };
        await using TestHost host = await TestHost.StartAsync(clock: clock);
        string[] ids = [.. Enumerable.Range(0, 40).Select(i => $"sleeper{i}")];
        foreach (string id in ids) await host.BeginAsync("Sleep", TimeSpan.FromMinutes(1), id);
        foreach (string id in ids) await host.UntilAsync(id, instance => instance.RuntimeStatus != OrchestrationRuntimeStatus.Pending);
        await host.UntilAsync(ids[0], _ => host.Store.List("", null, 100).Count(row => row.IsOver) >= 10); // some wake while it jumps
        clock.IsWild = false;
        clock.Offset = TimeSpan.FromDays(3); // the others now: every time that was ever asked for has come

        foreach (string id in ids)
        {
            await host.CompletionAsync(id);
            List<HistoryEvent> history = host.Store.History(id);
            DateTime due = Assert.Single(history.OfType<TimerCreated>()).FireAt;
            int fired = history.FindIndex(e => e is TimerFired);
            DateTime[] turns = [.. history.Take(fired).OfType<TurnStarted>().Select(turn => turn.Now)];
            Assert.True(turns[^1] >= due, $"{id} woke at {turns[^1]:O}; its timer was for {due:O}");
            Assert.Equal(turns.Order(), turns);
        }
    }

    [Fact]
    public async Task A_turn_has_the_time_by_which_its_timer_was_due()
    {
        using var hub = new ManualHub("Sleeps", async context =>
        {
            DateTime due = context.CurrentUtcDateTime.AddHours(1);
            await context.CreateTimer(due, CancellationToken.None);
            return context.CurrentUtcDateTime >= due;
        });
        await hub.StartAsync("i", "Sleeps");
        await hub.SettleAsync("i");
        hub.Clock.Advance(TimeSpan.FromHours(1));
        PendingTurn due = hub.Load("i");
        hub.Clock.AdjustTime(hub.Clock.Start); // it is set back between the look and the turn
        await hub.Store.CommitAsync(due, hub.Run(due));
        Assert.Equal("true", hub.Store.Find("i")!.Output);
    }

    [Fact]
    public async Task What_came_under_a_clock_that_was_ahead_is_delivered_in_order_once_the_clock_is_right()
    {
        using var hub = new ManualHub("Collects", async context =>
        {
            string seen = await context.CallActivityAsync<string>("A");
            for (int i = 0; i < 3; i++) seen += await context.WaitForExternalEvent<string>("item");
            return seen + await context.CallSubOrchestratorAsync<string>("Child", null, new SubOrchestrationOptions(instanceId: "child"));
        }).With("Child", _ => Task.FromResult<object?>("d"));
        hub.Clock.Advance(TimeSpan.FromDays(1)); // a day ahead
        await hub.StartAsync("i", "Collects");
        hub.Clock.AdjustTime(hub.Clock.Start);
        await hub.SettleAsync("i");
        Assert.Equal(OrchestrationRuntimeStatus.Running, hub.Store.Find("i")!.Status);

        hub.Clock.AdjustTime(hub.Clock.Start.AddDays(1));
        await hub.RaiseAsync("i", "item", "\"a\"");
        await hub.AnswerAsync("\"0\"");
        hub.Clock.AdjustTime(hub.Clock.Start);
        await hub.RaiseAsync("i", "item", "\"b\"");
        hub.Clock.AdjustTime(hub.Clock.Start.AddHours(-5));
        await hub.RaiseAsync("i", "item", "\"c\"");
        await hub.SettleAsync("i");
        hub.Clock.AdjustTime(hub.Clock.Start.AddHours(-9));
        await hub.SettleAsync("child");
        Assert.Equal("\"0abcd\"", (await hub.SettleAsync("i")).Output);
    }

    [Fact]
    public async Task A_timer_of_an_earlier_generation_or_one_that_was_cancelled_never_fires()
    {
        using var hub = new ManualHub("Turns", async context =>
        {
            using var over = new CancellationTokenSource();
            Task tooLate = context.CreateTimer(TimeSpan.FromMinutes(1), over.Token);
            Task<string> item = context.WaitForExternalEvent<string>("item", over.Token);
            Task first = await Task.WhenAny(tooLate, item);
            over.Cancel();
            if (first == tooLate) return "too late";
            if (context.GetInput<int>() == 0) context.ContinueAsNew(1);
            return await item;
        });
        await hub.StartAsync("i", "Turns", "0");
        await hub.SettleAsync("i");
        hub.Clock.Advance(TimeSpan.FromSeconds(50));
        await hub.RaiseAsync("i", "item", "\"a\"");
        await hub.SettleAsync("i"); // the second generation's timer is for 50 seconds later than the first one's
        hub.Clock.Advance(TimeSpan.FromSeconds(50));
        Assert.Null(hub.Store.LoadTurn("i"));
        await hub.RaiseAsync("i", "item", "\"b\"");
        Assert.Equal("\"b\"", (await hub.SettleAsync("i")).Output);
    }

    /// <summary>
    /// The machine's time, set wrong: wild, another one up to a day off with every look. Long sleeps are cut short, so that what looks
    /// again every half minute does so soon.
    /// </summary>
    private sealed class WackyClock : TimeProvider
    {
        private static readonly TimeSpan Long = TimeSpan.FromSeconds(20);
        private readonly Random _random = new(5);
        private readonly Lock _lock = new();
        private TimeSpan _offset;
        private bool _isWild;

        public bool IsWild
        {
            set
            {
                lock (_lock) _isWild = value;
            }
        }

        public TimeSpan Offset
        {
            set
            {
                lock (_lock) _offset = value;
            }
        }

        public override DateTimeOffset GetUtcNow()
        {
            lock (_lock) return base.GetUtcNow() + (_isWild ? TimeSpan.FromMinutes(_random.Next(-1440, 1440)) : _offset);
        }

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) =>
            base.CreateTimer(callback, state, dueTime > Long ? TimeSpan.FromMilliseconds(20) : dueTime, period);
    }
}
