using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Xunit;

namespace Rlhf.Local.Tests;

public static class BasicFunctions
{
    [Function("Echo")]
    public static int Echo([ActivityTrigger] int n) => n;

    /// <summary>Activities one after the other; the answer is their sum.</summary>
    [Function("Chain")]
    public static async Task<int> ChainAsync([OrchestrationTrigger] TaskOrchestrationContext context, int length)
    {
        int sum = 0;
        for (int i = 0; i < length; i++) sum += await context.CallActivityAsync<int>("Echo", i);
        return sum;
    }

    /// <summary>Activities side by side; the answer is their sum.</summary>
    [Function("FanOut")]
    public static async Task<int> FanOutAsync([OrchestrationTrigger] TaskOrchestrationContext context, int width)
    {
        int[] answers = await Task.WhenAll(Enumerable.Range(0, width).Select(i => context.CallActivityAsync<int>("Echo", i)));
        return answers.Sum();
    }
}

public sealed class BasicsTests
{
    [Fact]
    public async Task A_chain_of_activities_runs_in_order_to_its_end()
    {
        await using TestHost host = await TestHost.StartAsync();
        OrchestrationMetadata done = await host.RunAsync("Chain", 10, "chain");
        Assert.Equal(OrchestrationRuntimeStatus.Completed, done.RuntimeStatus);
        Assert.Equal(45, done.ReadOutputAs<int>());
        Assert.Equal(10, done.ReadInputAs<int>());
    }

    [Fact]
    public async Task A_fan_out_collects_every_answer()
    {
        await using TestHost host = await TestHost.StartAsync();
        Assert.Equal(4950, (await host.RunAsync("FanOut", 100)).ReadOutputAs<int>());
    }
}
