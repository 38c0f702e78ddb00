using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

public sealed record Tally(int Wanted, int Seen, int Generation, bool Preserve = true);

public static class ContinueAsNewFunctions
{
    /// <summary>One event a generation: the hardest case for events that come while the next one starts.</summary>
    [Function("TallyEvents")]
    public static async Task<Tally?> TallyAsync([OrchestrationTrigger] TaskOrchestrationContext context, Tally tally)
    {
        if (tally.Seen == tally.Wanted) return tally;
        await context.WaitForExternalEvent<int>("item");
        if (tally.Generation == 0) context.SetCustomStatus("counting");
        context.ContinueAsNew(tally with { Seen = tally.Seen + 1, Generation = tally.Generation + 1 }, tally.Preserve);
        return null;
    }

    /// <summary>Waits for go while other events come, then starts again with or without them.</summary>
    [Function("KeepOrDrop")]
    public static async Task<string?> KeepOrDropAsync([OrchestrationTrigger] TaskOrchestrationContext context, string step)
    {
        if (step is "keep" or "drop")
        {
            await context.WaitForExternalEvent<string>("go");
            context.ContinueAsNew("count", preserveUnprocessedEvents: step == "keep");
            return null;
        }
        Task<string> item = context.WaitForExternalEvent<string>("item");
        Task<string> end = context.WaitForExternalEvent<string>("end");
        return await await Task.WhenAny(item, end);
    }

    [Function("NextVersion")]
    public static string? NextVersion([OrchestrationTrigger] TaskOrchestrationContext context, int generation)
    {
        if (generation > 0) return context.Version;
        context.ContinueAsNew(new ContinueAsNewOptions { NewInput = 1, NewVersion = "1.5" });
        return null;
    }
}

public sealed class ContinueAsNewTests
{
    [Fact]
    public async Task No_event_is_lost_or_taken_twice_while_generations_change()
    {
        await using TestHost host = await TestHost.StartAsync();
        const int instances = 4, events = 100;
        string[] ids = [.. Enumerable.Range(0, instances).Select(i => $"tally{i}")];
        foreach (string id in ids)
        {
            await host.Client.ScheduleNewOrchestrationInstanceAsync(
                "TallyEvents", new Tally(events, 0, 0), new StartOrchestrationOptions(id));
        }
        await Task.WhenAll(Enumerable.Range(0, instances * events).Select(i =>
            Task.Run(() => host.Client.RaiseEventAsync(ids[i % instances], "item", i))));
        foreach (string id in ids)
        {
            OrchestrationMetadata done = await host.CompletionAsync(id);
            Assert.Equal(new Tally(events, events, events), done.ReadOutputAs<Tally>());
            Assert.Equal("\"counting\"", done.SerializedCustomStatus); // set in the first generation, carried on
            Assert.InRange(host.Store.History(id).Count, 3, 10); // only the last generation's
        }
    }

    [Theory]
    [InlineData("keep", "kept")]
    [InlineData("drop", "ended")]
    public async Task Unprocessed_events_are_carried_on_or_dropped_as_told(string how, string expected)
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("KeepOrDrop", how, "next");
        await host.Client.RaiseEventAsync("next", "item", "kept");
        await host.UntilAsync("next", _ => host.Store.History("next").OfType<EventRaised>().Any());
        await host.Client.RaiseEventAsync("next", "go");
        await host.UntilAsync("next", instance => instance.IsCompleted || instance.SerializedInput == "\"count\"");
        if (how == "drop") await host.Client.RaiseEventAsync("next", "end", "ended");
        Assert.Equal(expected, (await host.CompletionAsync("next")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task The_next_generation_may_move_to_another_version()
    {
        var settings = new Dictionary<string, string?> { ["AzureFunctionsJobHost:extensions:durableTask:defaultVersion"] = "2.0" };
        await using TestHost host = await TestHost.StartAsync(settings);
        await host.Client.ScheduleNewOrchestrationInstanceAsync(
            "NextVersion", 0, new StartOrchestrationOptions("moves") { Version = new TaskVersion("1.0") });
        Assert.Equal("1.5", (await host.CompletionAsync("moves")).ReadOutputAs<string>());
    }

    [Theory]
    [InlineData(true, "bc")]
    [InlineData(false, "de")] // what came to the old generation is dropped, the suspension is not
    public async Task A_suspension_that_comes_with_the_end_of_a_generation_holds_for_the_next_and_loses_no_event(bool preserve, string expected)
    {
        using var hub = new ManualHub("Generations", async context =>
        {
            if (context.GetInput<int>() == 0)
            {
                await context.WaitForExternalEvent<string>("item");
                context.ContinueAsNew(1, preserve);
                return null;
            }
            return await context.WaitForExternalEvent<string>("item") + await context.WaitForExternalEvent<string>("item");
        });
        await hub.StartAsync("i", "Generations", "0");
        await hub.SettleAsync("i");
        foreach (string item in new[] { "a", "b" }) await hub.RaiseAsync("i", "item", $"\"{item}\"");
        await hub.SendAsync("i", new ExecutionSuspended("lunch"));
        await hub.RaiseAsync("i", "item", "\"c\"");
        InstanceRow suspended = await hub.SettleAsync("i"); // all of it in one turn
        Assert.Equal((OrchestrationRuntimeStatus.Suspended, "lunch", "1"), (suspended.Status, suspended.Output, suspended.Input));

        foreach (string item in new[] { "d", "e" }) await hub.RaiseAsync("i", "item", $"\"{item}\"");
        Assert.Equal(OrchestrationRuntimeStatus.Suspended, (await hub.SettleAsync("i")).Status);
        await hub.SendAsync("i", new ExecutionResumed(null));
        Assert.Equal($"\"{expected}\"", (await hub.SettleAsync("i")).Output);
    }
}
