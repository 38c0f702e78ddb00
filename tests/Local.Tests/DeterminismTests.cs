using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.DurableTask.Converters;
using Microsoft.Extensions.Logging.Abstractions;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

public static class DeterminismFunctions
{
    /// <summary>Stands for a deployment: set, the orchestrator's code is another one.</summary>
    public static string ActivityOfToday { get; set; } = "Echo";

    [Function("ChangesItsMind")]
    public static async Task<int> ChangesItsMindAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        int n = await context.CallActivityAsync<int>(ActivityOfToday, 1);
        await context.WaitForExternalEvent<string>("go");
        return n + await context.CallActivityAsync<int>("Echo", 2);
    }
}

public sealed class DeterminismTests
{
    private static readonly DateTime Noon = new(2026, 1, 1, 12, 0, 0, DateTimeKind.Utc);

    [Fact]
    public async Task Code_that_no_longer_fits_its_history_parks_the_instance_until_it_is_put_right()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("ChangesItsMind", id: "mind");
        await host.UntilAsync("mind", _ => host.Store.History("mind").OfType<TaskCompleted>().Any());
        int length = host.Store.History("mind").Count;
        try
        {
            DeterminismFunctions.ActivityOfToday = "Flaky";
            await host.Client.RaiseEventAsync("mind", "go");
            OrchestrationMetadata parked = await host.UntilAsync("mind", i => i.RuntimeStatus == OrchestrationRuntimeStatus.Suspended);
            Assert.Contains("Name = Echo", parked.SerializedOutput, StringComparison.Ordinal);
            Assert.Contains("Name = Flaky", parked.SerializedOutput, StringComparison.Ordinal);
            Assert.Equal(length, host.Store.History("mind").Count);

            await host.Client.ResumeInstanceAsync("mind"); // nothing has been put right: it parks again
            await host.UntilAsync("mind", i => i.RuntimeStatus == OrchestrationRuntimeStatus.Suspended);
        }
        finally
        {
            DeterminismFunctions.ActivityOfToday = "Echo";
        }
        await host.Host.DisposeAsync();
        await host.StartAgainAsync(); // with the old code: no resume needed
        Assert.Equal(3, (await host.CompletionAsync("mind")).ReadOutputAs<int>());
    }

    [Fact]
    public async Task A_parked_instance_can_be_terminated()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("Chain", 3, "stuck");
        await host.Store.ParkAsync("stuck", "as if");
        await host.Client.TerminateInstanceAsync("stuck");
        await host.CompletionAsync("stuck");
    }

    private static async Task<object?> OriginalAsync(ReplayContext context)
    {
        await context.CallActivityAsync<int>("A", 1);
        await context.CreateTimer(TimeSpan.FromMinutes(1), CancellationToken.None);
        await context.CallSubOrchestratorAsync<int>("S", 2, new SubOrchestrationOptions(instanceId: "child"));
        context.SendEvent("other", "hint", 3);
        return await context.CallActivityAsync<int>("B", 4);
    }

    public static TheoryData<string> Mutations => [.. Mutants.Keys];

    private static readonly Dictionary<string, Orchestrator> Mutants = new()
    {
        ["another name"] = async context => await context.CallActivityAsync<int>("A2", 1),
        ["another input"] = async context => await context.CallActivityAsync<int>("A", 9),
        ["another kind"] = async context => await context.CallSubOrchestratorAsync<int>("A", 1),
        ["dropped first"] = async context =>
        {
            await context.CreateTimer(TimeSpan.FromMinutes(1), CancellationToken.None);
            return null;
        },
        ["added first"] = async context =>
        {
            Task added = context.CallActivityAsync<int>("New", 0);
            await OriginalAsync(context);
            await added;
            return null;
        },
        ["added beside"] = async context =>
        {
            Task original = context.CallActivityAsync<int>("A", 1);
            await Task.WhenAll(original, context.CallActivityAsync<int>("New", 0));
            return null;
        },
        ["another timer"] = async context =>
        {
            await context.CallActivityAsync<int>("A", 1);
            await context.CreateTimer(TimeSpan.FromMinutes(2), CancellationToken.None);
            return null;
        },
        ["another child"] = async context =>
        {
            await context.CallActivityAsync<int>("A", 1);
            await context.CreateTimer(TimeSpan.FromMinutes(1), CancellationToken.None);
            return await context.CallSubOrchestratorAsync<int>("S", 2, new SubOrchestrationOptions(instanceId: "sibling"));
        },
        ["another event"] = async context =>
        {
            await context.CallActivityAsync<int>("A", 1);
            await context.CreateTimer(TimeSpan.FromMinutes(1), CancellationToken.None);
            await context.CallSubOrchestratorAsync<int>("S", 2, new SubOrchestrationOptions(instanceId: "child"));
            context.SendEvent("other", "hint", 4);
            return await context.CallActivityAsync<int>("B", 4);
        },
        ["ends early"] = async context => await context.CallActivityAsync<int>("A", 1),
        ["throws early"] = _ => throw new InvalidOperationException("new bug"),
    };

    [Theory]
    [MemberData(nameof(Mutations))]
    public void Every_change_of_what_was_scheduled_is_found(string mutation)
    {
        List<HistoryEvent> history = Record(OriginalAsync);
        TurnResult same = Replay(history, OriginalAsync);
        Assert.Equal(OrchestrationRuntimeStatus.Completed, same.Status);
        Assert.Throws<NonDeterminismException>(() => Replay(history, Mutants[mutation]));
    }

    /// <summary>Runs the orchestrator turn by turn until its last answer is out.</summary>
    private static List<HistoryEvent> Record(Orchestrator orchestrator)
    {
        List<HistoryEvent> history = [], arrived = [new ExecutionStarted("O", "", null, null)];
        for (int turn = 0; turn < 4; turn++)
        {
            TurnResult result = Turn(orchestrator).Run(history, arrived, Noon.AddMinutes(turn));
            history.AddRange(result.NewEvents);
            history.AddRange(result.Actions);
            arrived = [.. result.Actions.Where(action => action is not EventSent).Select(Answer)];
        }
        return history;
    }

    private static TurnResult Replay(List<HistoryEvent> history, Orchestrator orchestrator)
    {
        int last = history.OfType<TaskScheduled>().Last().Id;
        return Turn(orchestrator).Run(history, [new TaskCompleted(last, "5")], Noon.AddHours(1));
    }

    private static HistoryEvent Answer(ScheduledAction action) =>
        action is TimerCreated timer ? new TimerFired(timer.Id) : new TaskCompleted(action.Id, "1");

    private static OrchestrationTurn Turn(Orchestrator orchestrator) => new(
        "o", new PayloadSerializer(JsonDataConverter.Default, new EngineOptions()), NullLoggerFactory.Instance, _ => orchestrator);
}
