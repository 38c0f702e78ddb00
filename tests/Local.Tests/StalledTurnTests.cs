using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

/// <summary>
/// A turn that hangs before its commit, or an answer that hangs on its way, while the instance moves on without it: nothing of it may
/// count (the lock of MSSQL's FaultTesting, WorkerAttemptingToUpdateInstanceTableAfterStalling of the Azure Storage provider).
/// </summary>
public sealed class StalledTurnTests : IDisposable
{
    private readonly ManualHub _hub = new ManualHub("Activities", async context =>
    {
        int sum = 0;
        for (int i = 0; i < 3; i++) sum += await context.CallActivityAsync<int>("A", i);
        return sum;
    }).With("Items", async context =>
    {
        string seen = "";
        for (int i = 0; i < 3; i++) seen += await context.WaitForExternalEvent<string>("item");
        return seen;
    }).With("Generations", async context =>
    {
        int generation = context.GetInput<int>();
        await context.WaitForExternalEvent<string>("item");
        context.ContinueAsNew(generation + 1);
        return null;
    }).With("Parent", async context => await context.CallSubOrchestratorAsync<string>(
        "Items", null, new SubOrchestrationOptions(instanceId: "child")) + await context.WaitForExternalEvent<string>("item"));

    public void Dispose() => _hub.Dispose();

    [Theory]
    [InlineData("Activities", 0)] // its first turn
    [InlineData("Activities", 1)]
    [InlineData("Items", 1)]
    [InlineData("Items", 3)] // the one that completes it
    [InlineData("Generations", 1)] // the one that continues it as new
    public async Task A_stalled_turn_that_commits_after_another_took_its_place_changes_nothing(string orchestrator, int answers)
    {
        await _hub.StartAsync("i", orchestrator, "0");
        for (int i = 1; i <= answers; i++)
        {
            await _hub.SettleAsync("i");
            if (orchestrator == "Activities") await _hub.AnswerAsync("1");
            else await _hub.RaiseAsync("i", "item", "\"x\"");
        }

        PendingTurn stalled = _hub.Load("i");
        TurnResult late = _hub.Run(stalled);
        PendingTurn winner = _hub.Load("i");
        Assert.NotNull(await _hub.Store.CommitAsync(winner, _hub.Run(winner)));
        string before = _hub.Contents();

        Assert.Null(await _hub.Store.CommitAsync(stalled, late));

        Assert.Equal(before, _hub.Contents());
        if (orchestrator == "Items") // and it goes on as if nothing had been
        {
            for (int i = answers; i < 3; i++) await _hub.RaiseAsync("i", "item", "\"x\"");
            Assert.Equal("\"xxx\"", (await _hub.SettleAsync("i")).Output);
        }
    }

    [Fact]
    public async Task A_stalled_turn_of_an_instance_that_was_replaced_changes_nothing()
    {
        await _hub.StartAsync("i", "Items");
        PendingTurn stalled = _hub.Load("i");
        TurnResult late = _hub.Run(stalled);
        await _hub.SendAsync("i", new ExecutionTerminated(null));
        await _hub.SettleAsync("i");
        await _hub.StartAsync("i", "Activities");
        string before = _hub.Contents();
        Assert.Null(await _hub.Store.CommitAsync(stalled, late));
        Assert.Equal(before, _hub.Contents());

        await _hub.Store.PurgeAsync("i", false, _ => { });
        await _hub.SendAsync("i", new ExecutionTerminated(null));
        await _hub.SettleAsync("i");
        await _hub.Store.PurgeAsync("i", false, _ => { });
        before = _hub.Contents();
        Assert.Null(await _hub.Store.CommitAsync(stalled, late));
        Assert.Equal(before, _hub.Contents());
    }

    [Fact]
    public async Task A_stalled_child_answers_its_parent_once()
    {
        await _hub.StartAsync("p", "Parent");
        await _hub.SettleAsync("p");
        await _hub.SettleAsync("child");
        for (int i = 0; i < 3; i++) await _hub.RaiseAsync("child", "item", "\"x\"");
        PendingTurn stalled = _hub.Load("child");
        TurnResult late = _hub.Run(stalled);
        await _hub.SettleAsync("child");
        Assert.Null(await _hub.Store.CommitAsync(stalled, late));

        await _hub.SettleAsync("p");
        Assert.Single(_hub.Store.History("p").OfType<TaskCompleted>());
        await _hub.RaiseAsync("p", "item", "\"!\"");
        Assert.Equal("\"xxx!\"", (await _hub.SettleAsync("p")).Output);
    }

    [Fact]
    public async Task An_answer_that_nobody_waits_for_is_dropped()
    {
        await _hub.StartAsync("i", "Activities");
        await _hub.SettleAsync("i");
        PendingActivity asked = _hub.Store.Activities().Single();
        string before = _hub.Contents();
        PendingActivity[] strangers =
        [
            asked with { InstanceId = "nobody", Generation = 99 }, // no such instance
            asked with { TaskId = 7 }, // nothing was scheduled under that number
            asked with { Generation = asked.Generation - 1 }, // of a generation before this one
        ];
        foreach (PendingActivity stranger in strangers)
            Assert.False(await _hub.Store.CompleteActivityAsync(stranger, new TaskCompleted(stranger.TaskId, "100")));
        Assert.Equal(before, _hub.Contents());

        Assert.True(await _hub.AnswerAsync("1"));
        Assert.False(await _hub.Store.CompleteActivityAsync(asked, new TaskCompleted(asked.TaskId, "100")));
        for (int i = 0; i < 2; i++)
        {
            await _hub.SettleAsync("i");
            await _hub.AnswerAsync("1");
        }
        Assert.Equal("3", (await _hub.SettleAsync("i")).Output);
    }

    [Fact]
    public async Task An_answer_in_the_inbox_that_nothing_asked_for_or_that_came_twice_completes_nothing()
    {
        await _hub.StartAsync("i", "Activities");
        await _hub.SettleAsync("i");
        foreach (HistoryEvent stray in new HistoryEvent[] { new TaskCompleted(1, "100"), new TimerFired(5), new TaskCompleted(0, "1"), new TaskCompleted(0, "100") })
            await _hub.SendAsync("i", stray);
        await _hub.SettleAsync("i");
        await _hub.SendAsync("i", new TaskCompleted(1, "1"));
        await _hub.SettleAsync("i");
        await _hub.SendAsync("i", new TaskCompleted(2, "1"));
        Assert.Equal("3", (await _hub.SettleAsync("i")).Output);
    }

    [Fact]
    public async Task An_answer_after_termination_is_dropped()
    {
        await _hub.StartAsync("i", "Activities");
        await _hub.SettleAsync("i");
        PendingActivity running = _hub.Store.Activities().Single();
        await _hub.SendAsync("i", new ExecutionTerminated("\"enough\""));
        await _hub.SettleAsync("i");
        Assert.False(await _hub.Store.CompleteActivityAsync(running, new TaskCompleted(running.TaskId, "1")));
        Assert.Null(_hub.Store.LoadTurn("i"));
        Assert.Equal(OrchestrationRuntimeStatus.Terminated, _hub.Store.Find("i")!.Status);
    }
}
