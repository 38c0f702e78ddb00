using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Xunit;

namespace Rlhf.Local.Tests;

public static class SubOrchestrationFunctions
{
    [Function("Parent")]
    public static async Task<string> ParentAsync([OrchestrationTrigger] TaskOrchestrationContext context, string child)
    {
        try
        {
            return await context.CallSubOrchestratorAsync<string>(
                child, context.InstanceId, new SubOrchestrationOptions(instanceId: $"{context.InstanceId}:child"));
        }
        catch (TaskFailedException failed)
        {
            return $"caught {failed.TaskName}: {failed.FailureDetails}";
        }
    }

    [Function("ParentWithRetries")]
    public static Task<string> ParentWithRetriesAsync([OrchestrationTrigger] TaskOrchestrationContext context, string child) =>
        context.CallSubOrchestratorAsync<string>(
            child, context.InstanceId, TaskOptions.FromRetryPolicy(new RetryPolicy(3, TimeSpan.FromMilliseconds(10))));

    [Function("TwoOfOneId")]
    public static async Task<string> TwoOfOneIdAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        var options = new SubOrchestrationOptions(instanceId: $"{context.InstanceId}:child");
        Task<string> first = context.CallSubOrchestratorAsync<string>("WaitsForItem", options);
        try
        {
            await context.CallSubOrchestratorAsync<string>("WaitsForItem", options);
        }
        catch (TaskFailedException failed)
        {
            context.SetCustomStatus(failed.FailureDetails.ErrorMessage);
        }
        return await first;
    }

    [Function("TellsParent")]
    public static string TellsParent([OrchestrationTrigger] TaskOrchestrationContext context, string input) =>
        $"{context.InstanceId} of {context.Parent?.InstanceId} ({context.Parent?.Name}), told {input}";

    [Function("Throws")]
    public static string Throws([OrchestrationTrigger] TaskOrchestrationContext context) => throw new IOException("no disk");

    [Function("WaitsForItem")]
    public static Task<string> WaitsForItemAsync([OrchestrationTrigger] TaskOrchestrationContext context) =>
        context.WaitForExternalEvent<string>("item");

    /// <summary>Fails twice, then gives the number of its attempt; its activity counts for it.</summary>
    [Function("FlakyChild")]
    public static async Task<string> FlakyChildAsync([OrchestrationTrigger] TaskOrchestrationContext context) =>
        $"attempt {await context.CallActivityAsync<int>("Flaky", 2)}";
}

public sealed class SubOrchestrationTests
{
    [Fact]
    public async Task A_child_knows_its_parent_and_answers_it()
    {
        await using TestHost host = await TestHost.StartAsync();
        Assert.Equal("p:child of p (Parent), told p", (await host.RunAsync("Parent", "TellsParent", "p")).ReadOutputAs<string>());
        Assert.Equal(OrchestrationRuntimeStatus.Completed, (await host.Client.GetInstanceAsync("p:child"))!.RuntimeStatus);
    }

    [Fact]
    public async Task A_failed_child_is_a_failed_task_with_its_details()
    {
        await using TestHost host = await TestHost.StartAsync();
        OrchestrationMetadata done = await host.RunAsync("Parent", "Throws", "p");
        Assert.Equal("caught Throws: System.IO.IOException: no disk", done.ReadOutputAs<string>());
    }

    [Fact]
    public async Task A_failed_child_is_tried_again_by_its_policy()
    {
        await using TestHost host = await TestHost.StartAsync();
        Assert.Equal("attempt 3", (await host.RunAsync("ParentWithRetries", "FlakyChild")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task A_terminated_child_fails_its_parents_task()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("Parent", "WaitsForItem", "p");
        await host.UntilAsync("p:child", child => child.IsRunning);
        await host.Client.TerminateInstanceAsync("p:child", "enough");
        Assert.Contains("'p:child' was terminated", (await host.CompletionAsync("p")).ReadOutputAs<string>(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_second_child_of_a_running_ones_id_fails()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("TwoOfOneId", id: "p");
        await host.UntilStatusIsAsync("p", "An Orchestration instance with the ID p:child already exists.");
        await host.Client.RaiseEventAsync("p:child", "item", "x");
        Assert.Equal("x", (await host.CompletionAsync("p")).ReadOutputAs<string>());
    }
}
