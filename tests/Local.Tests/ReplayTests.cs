using System.Text.Json;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.DurableTask.Converters;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

/// <summary>Histories of runs in every state, written to a file, read again and replayed (Temporal's WorkflowReplayerTests).</summary>
public sealed class ReplayTests
{
    private static readonly PayloadSerializer Payloads = new(JsonDataConverter.Default, new EngineOptions());

    private static readonly Dictionary<string, Orchestrator> Code = new()
    {
        ["Works"] = WorksAsync,
        ["Child"] = async context => await context.WaitForExternalEvent<string>("item"),
    };

    /// <summary>Some of everything, then an end by the event that comes.</summary>
    private static async Task<object?> WorksAsync(ReplayContext context)
    {
        int n = await context.CallActivityAsync<int>("A", context.GetInput<int>());
        await context.CreateTimer(TimeSpan.FromMinutes(1), CancellationToken.None);
        string child = await context.CallSubOrchestratorAsync<string>("Child", null, new SubOrchestrationOptions(instanceId: "child"));
        context.SendEvent("other", "hint", n);
        string end = await context.WaitForExternalEvent<string>("end");
        if (end == "fail") throw new IOException($"failed after {n} and {child}");
        if (end == "again" && context.GetInput<int>() < 9) context.ContinueAsNew(9);
        return $"{n} {child} {end}";
    }

    [Theory]
    [InlineData("complete", 4, OrchestrationRuntimeStatus.Completed)]
    [InlineData("fail", 4, OrchestrationRuntimeStatus.Failed)]
    [InlineData("again", 4, OrchestrationRuntimeStatus.Running)] // the newest generation's
    [InlineData("", 0, OrchestrationRuntimeStatus.Running)] // waits for its activity
    [InlineData("", 1, OrchestrationRuntimeStatus.Running)] // for its timer
    [InlineData("", 2, OrchestrationRuntimeStatus.Running)] // for its child
    [InlineData("", 3, OrchestrationRuntimeStatus.Running)] // for an event
    [InlineData("terminate", 1, OrchestrationRuntimeStatus.Terminated)]
    [InlineData("suspend", 1, OrchestrationRuntimeStatus.Suspended)]
    [InlineData("terminate before its start", -1, OrchestrationRuntimeStatus.Terminated)]
    public async Task A_run_in_any_state_replays_and_is_checked(string end, int steps, OrchestrationRuntimeStatus status)
    {
        using var hub = new ManualHub(Code);
        await RunAsync(hub, steps, end);
        Assert.Equal(status, hub.Store.Find("i")!.Status);

        HistoryFile file = Reread(hub, "i");
        Assert.Equal(hub.Store.History("i"), file.Events);
        file.Replay(Payloads, Code.GetValueOrDefault);
        if (steps >= 2) Reread(hub, "child").Replay(Payloads, Code.GetValueOrDefault);
        if (steps < 0) return;

        var changed = new Dictionary<string, Orchestrator>(Code) { ["Works"] = async context => await context.CallActivityAsync<int>("B", 1) };
        var mismatch = Assert.Throws<NonDeterminismException>(() => file.Replay(Payloads, changed.GetValueOrDefault));
        Assert.Contains("Name = A", mismatch.Message, StringComparison.Ordinal);
        Assert.Contains("Name = B", mismatch.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("complete")]
    [InlineData("fail")]
    public async Task Code_that_asks_for_the_same_and_ends_otherwise_is_found(string end)
    {
        using var hub = new ManualHub(Code);
        await RunAsync(hub, 4, end);
        var changed = new Dictionary<string, Orchestrator>(Code)
        {
            ["Works"] = async context =>
            {
                try
                {
                    return $"{await WorksAsync(context)}!";
                }
                catch (IOException)
                {
                    return "failed";
                }
            },
        };
        Assert.Throws<NonDeterminismException>(() => Reread(hub, "i").Replay(Payloads, changed.GetValueOrDefault));
    }

    [Fact]
    public async Task An_orchestrator_that_is_gone_is_found()
    {
        using var hub = new ManualHub(Code);
        await RunAsync(hub, 1, "");
        Assert.Throws<NonDeterminismException>(() => Reread(hub, "i").Replay(Payloads, _ => null));
    }

    [Theory]
    [InlineData("null")]
    [InlineData("{}")]
    [InlineData("""{"InstanceId":"i"}""")]
    [InlineData("""{"InstanceId":"i","Events":[{"$":"surprise"}]}""")]
    [InlineData("""{"InstanceId":"i","Events":[{"$":"started","Name":"Works"}""")]
    public void What_is_no_history_is_refused(string json) => Assert.Throws<JsonException>(() => HistoryFile.FromJson(json));

    /// <summary>As many steps as told (an activity, a timer, a child, and the event that ends it), then what happens to it.</summary>
    private static async Task RunAsync(ManualHub hub, int steps, string end)
    {
        await hub.StartAsync("i", "Works", "3", steps < 0 ? hub.Clock.GetUtcNow().AddDays(1) : null);
        if (steps >= 0) await hub.SettleAsync("i");
        if (steps >= 1) await hub.AnswerAsync("5");
        if (steps >= 1) await hub.SettleAsync("i");
        if (steps >= 2) hub.Clock.Advance(TimeSpan.FromMinutes(1));
        if (steps >= 2) await hub.SettleAsync("i");
        if (steps >= 2) await hub.SettleAsync("child");
        if (steps >= 3) await hub.RaiseAsync("child", "item", "\"c\"");
        if (steps >= 3) await hub.SettleAsync("child");
        if (steps >= 4) await hub.RaiseAsync("i", "end", $"\"{end}\"");
        if (end.StartsWith("terminate", StringComparison.Ordinal)) await hub.SendAsync("i", new ExecutionTerminated("\"enough\""));
        if (end == "suspend") await hub.SendAsync("i", new ExecutionSuspended("lunch"));
        await hub.SettleAsync("i");
    }

    private static HistoryFile Reread(ManualHub hub, string id) =>
        HistoryFile.FromJson(new HistoryFile(id, hub.Store.History(id)).ToJson());
}
