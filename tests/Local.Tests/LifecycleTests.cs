using DurableTask.Core.Exceptions;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

public static class LifecycleFunctions
{
    [Function("Info")]
    public static async Task<string> InfoAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        Guid first = context.NewGuid(), second = context.NewGuid();
        await context.CallActivityAsync<int>("Echo", 1);
        bool replays = first != second && first != context.NewGuid();
        DateTimeKind kind = context.CurrentUtcDateTime.Kind;
        return $"{context.Name}|{context.InstanceId}|{context.Version}|{kind}|{replays}|{context.Parent is null}";
    }

    /// <summary>Ends as it is told.</summary>
    [Function("EndsAs")]
    public static Task<string> EndsAsAsync([OrchestrationTrigger] TaskOrchestrationContext context, OrchestrationRuntimeStatus status) => status switch
    {
        OrchestrationRuntimeStatus.Completed => Task.FromResult("done"),
        OrchestrationRuntimeStatus.Failed => throw new IOException("told to fail"),
        _ => context.WaitForExternalEvent<string>("item"),
    };
}

public sealed class LifecycleTests
{
    [Fact]
    public async Task An_orchestrator_sees_its_name_id_version_and_time()
    {
        var settings = new Dictionary<string, string?> { ["AzureFunctionsJobHost__extensions__durableTask__defaultVersion"] = "3.1" };
        await using TestHost host = await TestHost.StartAsync(settings);
        Assert.Equal("Info|me|3.1|Utc|True|True", (await host.RunAsync("Info", id: "me")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task Suspend_holds_back_what_comes_and_resume_delivers_it()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("WaitsForItem", id: "s");
        await host.UntilAsync("s", instance => instance.IsRunning);
        await host.Client.SuspendInstanceAsync("s", "lunch");
        OrchestrationMetadata suspended = await host.UntilAsync("s", i => i.RuntimeStatus == OrchestrationRuntimeStatus.Suspended);
        Assert.Equal("lunch", suspended.SerializedOutput);
        await Assert.ThrowsAsync<InvalidOperationException>(() => host.Client.SuspendInstanceAsync("s"));

        await host.Client.RaiseEventAsync("s", "item", "x");
        await Task.Delay(50);
        Assert.Equal(OrchestrationRuntimeStatus.Suspended, (await host.Client.GetInstanceAsync("s"))!.RuntimeStatus);

        await host.Client.ResumeInstanceAsync("s");
        Assert.Equal("x", (await host.CompletionAsync("s")).ReadOutputAs<string>());
        await Assert.ThrowsAsync<InvalidOperationException>(() => host.Client.ResumeInstanceAsync("s"));
    }

    [Fact]
    public async Task Terminate_ends_running_suspended_and_scheduled_instances()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("WaitsForItem", id: "running");
        await host.BeginAsync("WaitsForItem", id: "suspended");
        var later = new StartOrchestrationOptions("scheduled", DateTimeOffset.UtcNow.AddDays(1));
        await host.Client.ScheduleNewOrchestrationInstanceAsync("WaitsForItem", later);
        await host.UntilAsync("running", instance => instance.IsRunning);
        await host.Client.SuspendInstanceAsync("suspended");
        foreach (string id in new[] { "running", "suspended", "scheduled" })
        {
            await host.Client.TerminateInstanceAsync(id, $"end of {id}");
            OrchestrationMetadata done = await host.CompletionAsync(id);
            Assert.Equal(OrchestrationRuntimeStatus.Terminated, done.RuntimeStatus);
            Assert.Equal($"end of {id}", done.ReadOutputAs<string>());
            await Assert.ThrowsAsync<InvalidOperationException>(() => host.Client.TerminateInstanceAsync(id));
        }
        await Assert.ThrowsAsync<InvalidOperationException>(() => host.Client.TerminateInstanceAsync("nobody"));
        Assert.Empty(host.Store.Timers(DateTime.MaxValue).Due);
    }

    [Fact]
    public async Task A_live_instance_keeps_its_id_and_one_that_is_over_gives_it_up_unless_told()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("WaitsForItem", id: "id");
        await Assert.ThrowsAsync<OrchestrationAlreadyExistsException>(
            () => host.Client.ScheduleNewOrchestrationInstanceAsync("Chain", 3, new StartOrchestrationOptions("id")));
        await host.Client.RaiseEventAsync("id", "item", "x");
        await host.CompletionAsync("id");

        StartOrchestrationOptions dedupe = new StartOrchestrationOptions("id").WithDedupeStatuses(OrchestrationRuntimeStatus.Completed);
        await Assert.ThrowsAsync<OrchestrationAlreadyExistsException>(
            () => host.Client.ScheduleNewOrchestrationInstanceAsync("Chain", 3, dedupe));
        StartOrchestrationOptions other = new StartOrchestrationOptions("id").WithDedupeStatuses(OrchestrationRuntimeStatus.Failed);
        await host.Client.ScheduleNewOrchestrationInstanceAsync("Chain", 3, other);
        Assert.Equal(3, (await host.CompletionAsync("id")).ReadOutputAs<int>());
    }

    [Fact]
    public async Task Of_many_starts_of_one_id_one_wins()
    {
        await using TestHost host = await TestHost.StartAsync();
        int refused = 0;
        await Task.WhenAll(Enumerable.Range(0, 16).Select(async _ =>
        {
            try
            {
                await host.BeginAsync("WaitsForItem", id: "one");
            }
            catch (OrchestrationAlreadyExistsException)
            {
                Interlocked.Increment(ref refused);
            }
        }));
        Assert.Equal(15, refused);
    }

    [Fact]
    public async Task Purge_removes_an_instance_that_is_over_and_its_children_if_told()
    {
        await using TestHost host = await TestHost.StartAsync();
        Assert.Equal(0, (await host.Client.PurgeInstanceAsync("nobody")).PurgedInstanceCount);
        await host.BeginAsync("Parent", "WaitsForItem", "p");
        await host.UntilAsync("p:child", child => child.IsRunning);
        await Assert.ThrowsAsync<InvalidOperationException>(() => host.Client.PurgeInstanceAsync("p"));
        await host.Client.RaiseEventAsync("p:child", "item", "x");
        await host.CompletionAsync("p");

        Assert.Equal(2, (await host.Client.PurgeInstanceAsync("p", new PurgeInstanceOptions(Recursive: true))).PurgedInstanceCount);
        Assert.Null(await host.Client.GetInstanceAsync("p"));
        Assert.Null(await host.Client.GetInstanceAsync("p:child"));

        await host.RunAsync("Parent", "TellsParent", "q");
        Assert.Equal(1, (await host.Client.PurgeInstanceAsync("q")).PurgedInstanceCount);
        Assert.NotNull(await host.Client.GetInstanceAsync("q:child"));
        var completed = new PurgeInstancesFilter(Statuses: [OrchestrationRuntimeStatus.Completed]);
        Assert.Equal(1, (await host.Client.PurgeAllInstancesAsync(completed)).PurgedInstanceCount);
    }

    [Fact]
    public async Task Instances_are_listed_by_prefix_status_and_page()
    {
        await using TestHost host = await TestHost.StartAsync();
        for (int i = 0; i < 5; i++) await host.RunAsync("Chain", i, $"run:{i}");
        await host.BeginAsync("WaitsForItem", id: "run:9");
        await host.BeginAsync("WaitsForItem", id: "other");
        await host.UntilAsync("run:9", instance => instance.IsRunning);

        var paged = new OrchestrationQuery(InstanceIdPrefix: "run:", PageSize: 2);
        Assert.Equal(["run:0", "run:1", "run:2", "run:3", "run:4", "run:9"], await IdsAsync(paged));
        var running = new OrchestrationQuery(Statuses: [OrchestrationRuntimeStatus.Running], InstanceIdPrefix: "run:");
        Assert.Equal(["run:9"], await IdsAsync(running));

        await foreach (OrchestrationMetadata bare in host.Client.GetAllInstancesAsync(paged))
            Assert.Throws<InvalidOperationException>(() => bare.ReadInputAs<int>());

        async Task<List<string>> IdsAsync(OrchestrationQuery query)
        {
            var ids = new List<string>();
            await foreach (OrchestrationMetadata instance in host.Client.GetAllInstancesAsync(query)) ids.Add(instance.InstanceId);
            return ids;
        }
    }

    [Fact]
    public async Task A_recreated_id_gets_no_answer_that_was_meant_for_its_predecessor()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("Parent", "WaitsForItem", "p");
        await host.UntilAsync("p:child", child => child.IsRunning);
        await host.Client.TerminateInstanceAsync("p"); // its child goes on
        await host.CompletionAsync("p");
        await host.BeginAsync("WaitsForItem", id: "p");
        await host.UntilAsync("p", instance => instance.IsRunning);
        await host.Client.RaiseEventAsync("p:child", "item", "for the old one");
        await host.CompletionAsync("p:child");
        Assert.True((await host.Client.GetInstanceAsync("p"))!.IsRunning);
    }

    [Theory]
    [InlineData(OrchestrationRuntimeStatus.Completed)]
    [InlineData(OrchestrationRuntimeStatus.Failed)]
    [InlineData(OrchestrationRuntimeStatus.Terminated)]
    public async Task An_instance_that_is_over_is_begun_again_unless_its_status_is_among_those_that_keep_the_id(OrchestrationRuntimeStatus status)
    {
        await using TestHost host = await TestHost.StartAsync();
        OrchestrationRuntimeStatus[] all =
            [OrchestrationRuntimeStatus.Completed, OrchestrationRuntimeStatus.Failed, OrchestrationRuntimeStatus.Terminated];
        await EndAsync();
        DateTimeOffset created = (await host.Client.GetInstanceAsync("id"))!.CreatedAt;
        foreach (OrchestrationRuntimeStatus[] keeps in new[] { [status], all })
        {
            await Assert.ThrowsAsync<OrchestrationAlreadyExistsException>(() => host.Client.ScheduleNewOrchestrationInstanceAsync(
                "Chain", 1, new StartOrchestrationOptions("id").WithDedupeStatuses(keeps)));
            OrchestrationMetadata kept = (await host.Client.GetInstanceAsync("id"))!;
            Assert.Equal((status, created), (kept.RuntimeStatus, kept.CreatedAt));
        }

        await host.Client.ScheduleNewOrchestrationInstanceAsync(
            "Chain", 3, new StartOrchestrationOptions("id").WithDedupeStatuses([.. all.Where(other => other != status)]));
        Assert.Equal(3, (await host.CompletionAsync("id")).ReadOutputAs<int>());
        await EndAsync();
        await host.Client.ScheduleNewOrchestrationInstanceAsync("Chain", 4, new StartOrchestrationOptions("id"));
        Assert.Equal(6, (await host.CompletionAsync("id")).ReadOutputAs<int>());

        async Task EndAsync()
        {
            await host.BeginAsync("EndsAs", status, "id");
            if (status == OrchestrationRuntimeStatus.Terminated) await host.Client.TerminateInstanceAsync("id");
            Assert.Equal(status, (await host.CompletionAsync("id")).RuntimeStatus);
        }
    }

    [Fact]
    public async Task A_live_instance_keeps_its_id_whatever_the_statuses_say()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("WaitsForItem", id: "suspended");
        await host.UntilAsync("suspended", instance => instance.IsRunning);
        await host.Client.SuspendInstanceAsync("suspended");
        await host.UntilAsync("suspended", instance => instance.RuntimeStatus == OrchestrationRuntimeStatus.Suspended);
        await host.Client.ScheduleNewOrchestrationInstanceAsync(
            "WaitsForItem", new StartOrchestrationOptions("scheduled", DateTimeOffset.UtcNow.AddDays(1)));
        foreach (string id in new[] { "suspended", "scheduled" })
        {
            await Assert.ThrowsAsync<OrchestrationAlreadyExistsException>(() => host.Client.ScheduleNewOrchestrationInstanceAsync(
                "Chain", 1, new StartOrchestrationOptions(id).WithDedupeStatuses()));
        }
    }

    [Fact]
    public async Task A_suspended_instance_asks_for_nothing_until_it_is_resumed()
    {
        using var hub = new ManualHub("Works", async context =>
        {
            Task timer = context.CreateTimer(TimeSpan.FromMinutes(1), CancellationToken.None);
            int first = await context.CallActivityAsync<int>("A", 1);
            int second = await context.CallActivityAsync<int>("A", 2);
            await timer;
            return first + second;
        });
        await hub.StartAsync("i", "Works");
        await hub.SettleAsync("i");
        await hub.SendAsync("i", new ExecutionSuspended(null));
        await hub.SettleAsync("i");
        await hub.AnswerAsync("10");
        hub.Clock.Advance(TimeSpan.FromMinutes(2));
        Assert.Equal(OrchestrationRuntimeStatus.Suspended, (await hub.SettleAsync("i")).Status);
        Assert.Empty(hub.Store.Activities()); // neither the answer nor the timer has led to anything

        await hub.SendAsync("i", new ExecutionResumed(null));
        await hub.SettleAsync("i");
        await hub.AnswerAsync("20");
        Assert.Equal("30", (await hub.SettleAsync("i")).Output);
    }

    [Fact]
    public async Task An_instance_that_is_over_is_neither_suspended_nor_resumed_and_stays_as_it_is()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.RunAsync("Chain", 3, "over");
        // As on the genuine host. (The SDK's in-process test host takes such a call and does nothing.)
        await Assert.ThrowsAsync<InvalidOperationException>(() => host.Client.SuspendInstanceAsync("over"));
        await Assert.ThrowsAsync<InvalidOperationException>(() => host.Client.ResumeInstanceAsync("over"));
        OrchestrationMetadata over = await host.CompletionAsync("over");
        Assert.Equal((OrchestrationRuntimeStatus.Completed, 3), (over.RuntimeStatus, over.ReadOutputAs<int>()));
        Assert.Empty(host.Store.Timers(DateTime.MaxValue).Due);
    }
}
