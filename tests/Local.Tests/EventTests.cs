using System.Text.Json;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Time.Testing;
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
}
