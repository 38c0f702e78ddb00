using System.Text.Json;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Time.Testing;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

public static class EventFunctions
{
    [Function("CollectAfterGo")]
    public static async Task<string> CollectAsync([OrchestrationTrigger] TaskOrchestrationContext context, int count)
    {
        await context.WaitForExternalEvent<string>("go");
        var seen = new List<string>();
        for (int i = 0; i < count; i++) seen.Add(await context.WaitForExternalEvent<string>("item"));
        return string.Join(",", seen);
    }

    [Function("TwoWaiters")]
    public static async Task<string> TwoWaitersAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        Task<string> older = context.WaitForExternalEvent<string>("item");
        Task<string> newer = context.WaitForExternalEvent<string>("ITEM");
        context.SetCustomStatus("waiting");
        await Task.WhenAll(older, newer);
        return $"older {await older}, newer {await newer}";
    }

    [Function("CancelledWaiter")]
    public static async Task<string> CancelledWaiterAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        using var giveUp = new CancellationTokenSource();
        Task<string> cancelled = context.WaitForExternalEvent<string>("item", giveUp.Token);
        await context.CallActivityAsync<int>("Echo", 1);
        giveUp.Cancel();
        Task<string> live = context.WaitForExternalEvent<string>("item");
        context.SetCustomStatus("waiting");
        return $"{cancelled.Status}, {await live}";
    }

    [Function("EventOrTimeout")]
    public static async Task<string> EventOrTimeoutAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        try
        {
            return await context.WaitForExternalEvent<string>("item", TimeSpan.FromMinutes(1));
        }
        catch (TaskCanceledException)
        {
            return "timed out";
        }
    }

    /// <summary>Waits for an event for a minute, or until another one takes the wait back.</summary>
    [Function("EventTimeoutOrCancel")]
    public static async Task<string> EventTimeoutOrCancelAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        using var takenBack = new CancellationTokenSource();
        Task<string> item = context.WaitForExternalEvent<string>("item", TimeSpan.FromMinutes(1), takenBack.Token);
        Task<string> cancel = context.WaitForExternalEvent<string>("cancel");
        context.SetCustomStatus("waiting");
        if (await Task.WhenAny(item, cancel) == cancel)
            takenBack.Cancel();
        string won;
        try
        {
            won = await item;
        }
        catch (TaskCanceledException)
        {
            won = takenBack.IsCancellationRequested ? "taken back" : "timed out";
        }
        // What the wait did not take is still there for the next one.
        return $"{won}, then {await context.WaitForExternalEvent<string>("item")}";
    }

    /// <summary>Waits with a token that is cancelled already; the second wait is a live one.</summary>
    [Function("CancelledBeforehand")]
    public static async Task<string> CancelledBeforehandAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        Task<string> never = context.WaitForExternalEvent<string>("item", new CancellationToken(canceled: true));
        Task due = context.CreateTimer(TimeSpan.FromDays(1), new CancellationToken(canceled: true));
        return $"{never.Status}, {due.Status}, {await context.WaitForExternalEvent<string>("item")}";
    }

    [Function("Approval")]
    public static async Task<string> ApprovalAsync([OrchestrationTrigger] TaskOrchestrationContext context) =>
        await context.WaitForExternalEvent<string>("approval");

    [Function("NumberWanted")]
    public static async Task<string> NumberWantedAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        try
        {
            return $"number {await context.WaitForExternalEvent<int>("item")}";
        }
        catch (JsonException)
        {
            return "no number";
        }
    }

    [Function("Sender")]
    public static Task SenderAsync([OrchestrationTrigger] TaskOrchestrationContext context, string to)
    {
        context.SendEvent(to, "go", "");
        context.SendEvent(to, "item", "sent");
        return Task.CompletedTask;
    }
}

public sealed class EventTests
{
    [Fact]
    public async Task Events_that_come_before_anyone_waits_are_kept_in_order()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("CollectAfterGo", 3, "early");
        foreach (string item in new[] { "a", "b", "c" }) await host.Client.RaiseEventAsync("early", "item", item);
        await host.Client.RaiseEventAsync("early", "go");
        Assert.Equal("a,b,c", (await host.CompletionAsync("early")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task Of_several_waiters_the_newest_gets_the_event_and_names_ignore_case()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("TwoWaiters", id: "two");
        await host.UntilStatusIsAsync("two", "waiting");
        await host.Client.RaiseEventAsync("two", "Item", "first");
        await host.Client.RaiseEventAsync("two", "iTEM", "second");
        Assert.Equal("older second, newer first", (await host.CompletionAsync("two")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task A_cancelled_waiter_does_not_eat_the_event()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("CancelledWaiter", id: "cancelled");
        await host.UntilStatusIsAsync("cancelled", "waiting");
        await host.Client.RaiseEventAsync("cancelled", "item", "x");
        Assert.Equal("Canceled, x", (await host.CompletionAsync("cancelled")).ReadOutputAs<string>());
    }

    [Theory]
    [InlineData(true, "x")]
    [InlineData(false, "timed out")]
    public async Task Event_and_timeout_race_and_the_loser_is_cancelled(bool raise, string expected)
    {
        var clock = new FakeTimeProvider();
        await using TestHost host = await TestHost.StartAsync(clock: clock);
        await host.BeginAsync("EventOrTimeout", id: "race");
        await host.UntilAsync("race", instance => instance.IsRunning);
        if (raise) await host.Client.RaiseEventAsync("race", "item", "x");
        else clock.Advance(TimeSpan.FromMinutes(1));
        Assert.Equal(expected, (await host.CompletionAsync("race")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task A_payload_of_the_wrong_type_is_an_error_that_the_orchestrator_can_catch()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("NumberWanted", id: "number");
        await host.Client.RaiseEventAsync("number", "item", "seven");
        Assert.Equal("no number", (await host.CompletionAsync("number")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task An_orchestration_sends_events_to_another()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("CollectAfterGo", 1, "target");
        await host.RunAsync("Sender", "target");
        Assert.Equal("sent", (await host.CompletionAsync("target")).ReadOutputAs<string>());
        OrchestrationMetadata late = await host.RunAsync("Sender", "target"); // is over: the event is dropped
        Assert.Equal(OrchestrationRuntimeStatus.Completed, late.RuntimeStatus);
    }

    [Fact]
    public async Task A_missing_instance_and_one_that_is_over_take_no_events()
    {
        await using TestHost host = await TestHost.StartAsync();
        var missing = await Assert.ThrowsAsync<InvalidOperationException>(() => host.Client.RaiseEventAsync("nobody", "item"));
        Assert.Contains("'nobody'", missing.Message, StringComparison.Ordinal);
        await host.RunAsync("Chain", 1, "over");
        await Assert.ThrowsAsync<InvalidOperationException>(() => host.Client.RaiseEventAsync("over", "item"));
        Assert.Empty(host.Store.Timers(DateTime.MaxValue).Due);
    }

    [Theory]
    [InlineData("item", "x, then after")]
    [InlineData("time", "timed out, then after")]
    [InlineData("cancel", "taken back, then after")]
    public async Task Of_event_timeout_and_cancellation_the_first_wins_and_the_loser_takes_no_event(string first, string expected)
    {
        var clock = new FakeTimeProvider();
        await using TestHost host = await TestHost.StartAsync(clock: clock);
        await host.BeginAsync("EventTimeoutOrCancel", id: "race");
        await host.UntilStatusIsAsync("race", "waiting");
        if (first == "time") clock.Advance(TimeSpan.FromMinutes(1));
        else await host.Client.RaiseEventAsync("race", first, "x");
        await host.UntilAsync("race", _ => host.Store.History("race").Any(e => e is TimerFired or EventRaised));
        await host.Client.RaiseEventAsync("race", "item", "after");
        Assert.Equal(expected, (await host.CompletionAsync("race")).ReadOutputAs<string>());
        Assert.Empty(host.Store.Timers(DateTime.MaxValue).Due);
    }

    [Fact]
    public async Task What_is_cancelled_beforehand_waits_for_nothing()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("CancelledBeforehand", id: "beforehand");
        await host.Client.RaiseEventAsync("beforehand", "item", "x");
        Assert.Equal("Canceled, Canceled, x", (await host.CompletionAsync("beforehand")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task Of_ten_thousand_duplicate_approvals_one_is_taken_and_nothing_of_the_others_stays()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("Approval", id: "storm");
        await host.UntilAsync("storm", instance => instance.IsRunning);
        int refused = 0;
        await Task.WhenAll(Enumerable.Range(0, 10_000).Select(RaiseAsync));
        Assert.Equal("yes", (await host.CompletionAsync("storm")).ReadOutputAs<string>());
        await Task.WhenAll(Enumerable.Range(0, 100).Select(RaiseAsync)); // those that come when it is over

        Assert.InRange(refused, 100, 10_099);
        Assert.Empty(host.Store.Timers(DateTime.MaxValue).Due);
        Assert.InRange(host.Store.History("storm").Count(e => e is EventRaised), 1, 10_100 - refused);

        async Task RaiseAsync(int number)
        {
            try
            {
                await host.Client.RaiseEventAsync("storm", "approval", "yes");
            }
            catch (InvalidOperationException) // it is over
            {
                Interlocked.Increment(ref refused);
            }
        }
    }

    [Fact]
    public async Task Thousands_of_events_before_the_start_are_all_there_in_order_afterwards()
    {
        var clock = new FakeTimeProvider();
        await using TestHost host = await TestHost.StartAsync(clock: clock);
        var later = new StartOrchestrationOptions("later", clock.GetUtcNow().AddDays(1));
        await host.Client.ScheduleNewOrchestrationInstanceAsync("CollectAfterGo", 3_000, later);
        await Task.WhenAll(Enumerable.Range(0, 3_000).Select(i => host.Client.RaiseEventAsync("later", "item", $"{i}")));
        await host.Client.RaiseEventAsync("later", "go");
        Assert.Equal(OrchestrationRuntimeStatus.Pending, (await host.Client.GetInstanceAsync("later"))!.RuntimeStatus);

        clock.Advance(TimeSpan.FromDays(1));
        string seen = (await host.CompletionAsync("later")).ReadOutputAs<string>()!;
        Assert.Equal(Enumerable.Range(0, 3_000).Select(i => $"{i}"), seen.Split(','));
    }
}
