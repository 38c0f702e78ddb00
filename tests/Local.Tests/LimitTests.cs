using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Time.Testing;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

public static class LimitFunctions
{
    private static readonly ManualResetEventSlim Gate = new();
    private static int _inside;

    public static SemaphoreSlim Doors { get; } = new(0);
    public static int Inside => Volatile.Read(ref _inside);

    [Function("Large")]
    public static string Large([ActivityTrigger] int length) => new('x', length);

    [Function("ThrowsLong")]
    public static string ThrowsLong([ActivityTrigger] int length) => throw new InvalidOperationException(new string('x', length));

    [Function("Oversize")]
    public static async Task<string> OversizeAsync([OrchestrationTrigger] TaskOrchestrationContext context, string what)
    {
        const int length = 2 * 1024 * 1024;
        switch (what)
        {
            case "activity input":
                return await context.CallActivityAsync<string>("Large", new string('x', length));
            case "activity output":
                return await context.CallActivityAsync<string>("Large", length);
            case "sub-orchestration input":
                return await context.CallSubOrchestratorAsync<string>("Oversize", new string('x', length));
            case "custom status":
                context.SetCustomStatus(new string('x', 10_000));
                return "";
            case "error text":
                return await context.CallActivityAsync<string>("ThrowsLong", length);
            default:
                return new string('x', length);
        }
    }

    /// <summary>Tells how many run at once; a few are let in by each call of the test.</summary>
    [Function("Crowd")]
    public static async Task<int> CrowdAsync([ActivityTrigger] int n, CancellationToken cancellation)
    {
        Interlocked.Increment(ref _inside);
        try
        {
            await Doors.WaitAsync(cancellation);
            return n;
        }
        finally
        {
            Interlocked.Decrement(ref _inside);
        }
    }

    [Function("Crowds")]
    public static async Task<int> CrowdsAsync([OrchestrationTrigger] TaskOrchestrationContext context, int width) =>
        (await Task.WhenAll(Enumerable.Range(0, width).Select(i => context.CallActivityAsync<int>("Crowd", i)))).Sum();

    [Function("BlocksItsTurn")]
    public static Task<string> BlocksItsTurnAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        Gate.Wait();
        return Task.FromResult("let go");
    }

    public static void LetGo() => Gate.Set();
}

public sealed class LimitTests
{
    [Theory]
    [InlineData("activity input", "The input of activity 'Large' has 2,097,154 bytes; at most 1,048,576")]
    [InlineData("activity output", "The output of activity 'Large' has 2,097,154 bytes")]
    [InlineData("sub-orchestration input", "The input of sub-orchestration 'Oversize' has")]
    [InlineData("custom status", "The custom status of 'big' (in UTF-16) has 20,004 bytes; at most 16,384")]
    [InlineData("output", "The output of orchestration 'big' has 2,097,154 bytes")]
    public async Task What_is_too_large_fails_by_name(string what, string expected)
    {
        await using TestHost host = await TestHost.StartAsync();
        OrchestrationMetadata done = await host.RunAsync("Oversize", what, "big");
        Assert.Equal(OrchestrationRuntimeStatus.Failed, done.RuntimeStatus);
        Assert.Contains(expected, done.SerializedOutput, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_start_and_an_event_that_are_too_large_are_refused_and_leave_nothing()
    {
        await using TestHost host = await TestHost.StartAsync();
        string large = new('x', 2 * 1024 * 1024);
        await Assert.ThrowsAsync<PayloadTooLargeException>(
            () => host.Client.ScheduleNewOrchestrationInstanceAsync("Chain", large, new StartOrchestrationOptions("big")));
        Assert.Null(await host.Client.GetInstanceAsync("big"));
        await Assert.ThrowsAsync<PayloadTooLargeException>(() => host.Client.RaiseEventAsync("big", "item", large));
    }

    [Fact]
    public async Task A_very_long_error_text_is_cut()
    {
        await using TestHost host = await TestHost.StartAsync();
        OrchestrationMetadata done = await host.RunAsync("Oversize", "error text");
        Assert.InRange(done.SerializedOutput!.Length, 8_000, 10_000);
        Assert.Contains("[cut]", done.SerializedOutput, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Orchestrators_that_block_their_turns_are_named_and_others_go_on()
    {
        var clock = new FakeTimeProvider();
        await using TestHost host = await TestHost.StartAsync(clock: clock);
        string[] blockers = ["block1", "block2"]; // as many as there are turn workers
        foreach (string id in blockers) await host.BeginAsync("BlocksItsTurn", id: id);
        try
        {
            await host.BeginAsync("Chain", 2, "other");
            await Task.Delay(100); // both block by now
            clock.Advance(TimeSpan.FromSeconds(11));
            Assert.Equal(1, (await host.CompletionAsync("other")).ReadOutputAs<int>());
            foreach (string id in blockers)
                Assert.Contains(host.Log.Lines, line => line.Contains($"'{id}' has held its turn", StringComparison.Ordinal));
        }
        finally
        {
            LimitFunctions.LetGo();
        }
        foreach (string id in blockers) Assert.Equal("let go", (await host.CompletionAsync(id)).ReadOutputAs<string>());
    }

    [Fact]
    public async Task No_more_activities_run_at_once_than_host_json_allows_also_after_a_restart()
    {
        await using TestHost host = await TestHost.StartAsync(
            new() { ["AzureFunctionsJobHost:extensions:durableTask:maxConcurrentActivityFunctions"] = "3" });
        await host.BeginAsync("Crowds", 9, "crowd");
        await InsideAsync(3);
        await host.Host.DisposeAsync();
        await InsideAsync(0);

        await host.StartAgainAsync();
        await InsideAsync(3);
        LimitFunctions.Doors.Release(5);
        await host.UntilAsync("crowd", _ => host.Store.Activities().Count == 4);
        await InsideAsync(3);
        LimitFunctions.Doors.Release(4);
        Assert.Equal(36, (await host.CompletionAsync("crowd")).ReadOutputAs<int>());

        static async Task InsideAsync(int expected)
        {
            for (int i = 0; i < 6000 && LimitFunctions.Inside != expected; i++) await Task.Delay(5);
            Assert.Equal(expected, LimitFunctions.Inside);
            await Task.Delay(30); // and no more come
            Assert.Equal(expected, LimitFunctions.Inside);
        }
    }
}
