using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.Time.Testing;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

public sealed record RetryPlan(int Failures, int Attempts, bool HandleOnly = false, bool UseHandler = false);

public sealed class FailureFunctions(FailureCounter counter)
{
    /// <summary>Fails as often as it is told, then answers with the number of its attempt.</summary>
    [Function("Flaky")]
    public int Flaky([ActivityTrigger] int failures)
    {
        int attempt = counter.Next();
        return attempt > failures ? attempt : throw new ArgumentException($"attempt {attempt}", new TimeoutException("root"));
    }

    [Function("WithRetries")]
    public static Task<int> WithRetriesAsync([OrchestrationTrigger] TaskOrchestrationContext context, RetryPlan plan)
    {
        var policy = new RetryPolicy(plan.Attempts, TimeSpan.FromSeconds(1), 2, maxRetryInterval: TimeSpan.FromSeconds(3))
        {
            HandleFailure = failure => !plan.HandleOnly || failure.IsCausedBy<IOException>(),
        };
        TaskOptions options = plan.UseHandler
            ? TaskOptions.FromRetryHandler(context => context.LastAttemptNumber < plan.Attempts)
            : TaskOptions.FromRetryPolicy(policy);
        return context.CallActivityAsync<int>("Flaky", plan.Failures, options);
    }

    [Function("CatchAndTell")]
    public static async Task<string> CatchAndTellAsync([OrchestrationTrigger] TaskOrchestrationContext context)
    {
        try
        {
            return (await context.CallActivityAsync<int>("Flaky", 1)).ToString(System.Globalization.CultureInfo.InvariantCulture);
        }
        catch (TaskFailedException failed)
        {
            TaskFailureDetails details = failed.FailureDetails;
            return $"{failed.TaskName}|{details.ErrorType}|{details.ErrorMessage}|{details.InnerFailure?.ErrorType}|" +
                $"{details.IsCausedBy<ArgumentException>()}|{details.IsCausedBy<SystemException>()}|{details.IsCausedBy<IOException>()}";
        }
    }

    [Function("CallsNobody")]
    public static Task CallsNobodyAsync([OrchestrationTrigger] TaskOrchestrationContext context, bool sub) =>
        sub ? context.CallSubOrchestratorAsync("NoSuchOrchestrator") : context.CallActivityAsync("NoSuchActivity");

    [Function("ThrowsAtOnce")]
    public static Task ThrowsAtOnce([OrchestrationTrigger] TaskOrchestrationContext context) => throw new NotSupportedException("at once");

    [Function("AwaitsDelay")]
    public static async Task AwaitsDelayAsync([OrchestrationTrigger] TaskOrchestrationContext context, string how)
    {
        switch (how)
        {
            case "delay":
                await Task.Delay(TimeSpan.FromMinutes(1));
                break;
            case "besideATimer":
                Task timer = context.CreateTimer(TimeSpan.FromMilliseconds(20), CancellationToken.None);
                await Task.Delay(TimeSpan.FromMinutes(1));
                await timer;
                break;
            case "pool":
                await Task.Run(() => context.CallActivityAsync<int>("Echo", 1));
                break;
            default:
                await context.CallActivityAsync<int>("Echo", 1).ConfigureAwait(false);
                await context.CallActivityAsync<int>("Echo", 2);
                break;
        }
    }
}

/// <summary>Counts the attempts of one host's flaky activity.</summary>
public sealed class FailureCounter
{
    private int _attempts;

    public int Next() => Interlocked.Increment(ref _attempts);
}

public sealed class FailureTests
{
    [Fact]
    public async Task Retries_wait_with_backoff_and_each_is_in_the_history()
    {
        var clock = new FakeTimeProvider();
        await using TestHost host = await TestHost.StartAsync(clock: clock);
        await host.BeginAsync("WithRetries", new RetryPlan(3, 5), "retry");
        for (int seconds = 0; seconds < 100 && !(await host.Client.GetInstanceAsync("retry"))!.IsCompleted; seconds++)
        {
            await Task.Delay(20);
            clock.Advance(TimeSpan.FromSeconds(1));
        }
        Assert.Equal(4, (await host.CompletionAsync("retry")).ReadOutputAs<int>());

        List<HistoryEvent> history = host.Store.History("retry");
        Assert.Equal(4, history.OfType<TaskScheduled>().Count());
        Assert.Equal(3, history.OfType<TaskFailed>().Count());
        DateTime[] turns = [.. history.OfType<TurnStarted>().Select(turn => turn.Now)];
        double[] pauses = [.. history.Select((e, i) => (e, i)).Where(x => x.e is TimerCreated).Select(x =>
            (((TimerCreated)x.e).FireAt - history.Take(x.i).OfType<TurnStarted>().Last().Now).TotalSeconds)];
        Assert.Equal([1, 2, 3], pauses); // 1, 2, then 4 cut to the longest interval
        Assert.Equal(turns.Order(), turns);
    }

    [Theory]
    [InlineData(2, 2, false, false, 2)] // out of attempts
    [InlineData(5, 5, true, false, 1)] // not a failure that the policy handles
    [InlineData(9, 3, false, true, 3)] // the handler gives up
    public async Task Retries_end_when_the_policy_or_the_handler_says_so(
        int failures, int attempts, bool handleOnly, bool handler, int made)
    {
        await using TestHost host = await TestHost.StartAsync();
        OrchestrationMetadata done = await host.RunAsync("WithRetries", new RetryPlan(failures, attempts, handleOnly, handler));
        Assert.Equal(OrchestrationRuntimeStatus.Failed, done.RuntimeStatus);
        Assert.Contains($"attempt {made}", done.SerializedOutput, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_caught_failure_tells_type_message_and_cause()
    {
        await using TestHost host = await TestHost.StartAsync();
        Assert.Equal(
            "Flaky|System.ArgumentException|attempt 1|System.TimeoutException|True|True|False",
            (await host.RunAsync("CatchAndTell")).ReadOutputAs<string>());
    }

    [Theory]
    [InlineData("CallsNobody", false, "'NoSuchActivity' doesn't exist")]
    [InlineData("CallsNobody", true, "'NoSuchOrchestrator' doesn't exist")]
    [InlineData("Nobody", null, "'Nobody' doesn't exist")]
    [InlineData("ThrowsAtOnce", null, "System.NotSupportedException: at once")]
    [InlineData("Chain", "no number", "System.Text.Json.JsonException")]
    public async Task What_is_missing_or_thrown_is_named(string orchestrator, object? input, string expected)
    {
        await using TestHost host = await TestHost.StartAsync();
        OrchestrationMetadata done = await host.RunAsync(orchestrator, input);
        Assert.Equal(OrchestrationRuntimeStatus.Failed, done.RuntimeStatus);
        Assert.Contains(expected, done.SerializedOutput, StringComparison.Ordinal);
        Assert.Null(done.FailureDetails);
    }

    [Theory]
    [InlineData("delay")]
    [InlineData("besideATimer")]
    [InlineData("pool")]
    [InlineData("configureAwait")]
    public async Task Awaiting_anything_but_durable_tasks_fails_with_a_clear_text(string how)
    {
        await using TestHost host = await TestHost.StartAsync();
        OrchestrationMetadata done = await host.RunAsync("AwaitsDelay", how);
        Assert.Equal(OrchestrationRuntimeStatus.Failed, done.RuntimeStatus);
        Assert.Contains("durable task", done.SerializedOutput, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_ends_on_another_thread_is_not_taken_even_when_it_ends_in_time()
    {
        using var hub = new ManualHub("Mixes", async context =>
        {
            Task<int> asked = context.CallActivityAsync<int>("A", 1);
            var elsewhere = new TaskCompletionSource();
            Task waits = WaitAsync(elsewhere.Task);
            var thread = new Thread(elsewhere.SetResult);
            thread.Start();
            thread.Join(); // the turn has not ended yet: the answer has come in time
            await waits;
            return await asked;

            static async Task WaitAsync(Task other) => await other;
        });
        await hub.StartAsync("i", "Mixes");
        await hub.SettleAsync("i");
        await hub.AnswerAsync("1");
        InstanceRow done = await hub.SettleAsync("i");
        Assert.Equal(OrchestrationRuntimeStatus.Failed, done.Status);
        Assert.Contains("not a durable task", done.Output, StringComparison.Ordinal);
    }
}
