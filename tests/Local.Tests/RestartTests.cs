using Microsoft.Azure.Functions.Worker;
using Microsoft.Data.Sqlite;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.DependencyInjection;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

public static class RestartFunctions
{
    /// <summary>Runs until the host stops.</summary>
    [Function("Hang")]
    public static async Task<int> HangAsync([ActivityTrigger] int n, CancellationToken cancellation)
    {
        await Task.Delay(Timeout.Infinite, cancellation);
        return n;
    }

    [Function("CallsHang")]
    public static Task<int> CallsHangAsync([OrchestrationTrigger] TaskOrchestrationContext context) =>
        context.CallActivityAsync<int>("Hang", 1);
}

public sealed class RestartTests
{
    [Fact]
    public async Task Orchestrations_go_on_after_a_stop_in_the_middle()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("Chain", 100, "chain");
        await host.BeginAsync("Parent", "WaitsForItem", "parent");
        await host.Client.RaiseEventAsync("parent", "unexpected");
        await host.UntilAsync("chain", _ => host.Store.History("chain").Count > 20);
        await host.Host.DisposeAsync();

        await host.StartAgainAsync();
        Assert.Equal(4950, (await host.CompletionAsync("chain")).ReadOutputAs<int>());
        await host.UntilAsync("parent:child", child => child.IsRunning);
        await host.Client.RaiseEventAsync("parent:child", "item", "x");
        Assert.Equal("x", (await host.CompletionAsync("parent")).ReadOutputAs<string>());
    }

    [Fact]
    public async Task An_activity_that_was_running_at_each_of_many_host_deaths_fails_instead_of_killing_the_host_again()
    {
        await using TestHost host = await TestHost.StartAsync();
        int limit = host.Host.Services.GetRequiredService<EngineOptions>().MaxActivityAttempts;
        await host.BeginAsync("CallsHang", id: "hang");
        PendingActivity activity = await RunningAsync(host);
        await host.Host.DisposeAsync();

        // A stop in good order does not count; what a death leaves behind is an attempt that never ended.
        using (var db = new HubDatabase(host.DatabasePath))
        {
            var store = new InstanceStore(db, new EngineOptions(), TimeProvider.System);
            for (int attempt = 1; attempt <= limit; attempt++) Assert.Equal(attempt, await store.StartActivityAsync(activity));
        }
        await host.StartAgainAsync();
        OrchestrationMetadata done = await host.CompletionAsync("hang");
        Assert.Equal(OrchestrationRuntimeStatus.Failed, done.RuntimeStatus);
        string expected = $"Activity 'Hang' of orchestration 'hang' was started {limit} times";
        Assert.Contains(expected, done.SerializedOutput, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_second_outcome_of_an_activity_is_dropped()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.BeginAsync("CallsHang", id: "hang");
        PendingActivity activity = await RunningAsync(host);
        Assert.True(await host.Store.CompleteActivityAsync(activity, new TaskCompleted(activity.TaskId, "1")));
        Assert.False(await host.Store.CompleteActivityAsync(activity, new TaskCompleted(activity.TaskId, "2")));
        Assert.Null(await host.Store.StartActivityAsync(activity));
        host.Host.Services.GetRequiredService<DurableEngine>().Wake("hang");
        Assert.Equal(1, (await host.CompletionAsync("hang")).ReadOutputAs<int>());
    }

    [Fact]
    public async Task A_second_host_on_one_hub_is_refused_and_told_who_has_it()
    {
        await using TestHost host = await TestHost.StartAsync();
        var refused = Assert.Throws<HubUnavailableException>(() => new HubDatabase(host.DatabasePath));
        Assert.Contains($"process {Environment.ProcessId}", refused.Message, StringComparison.Ordinal);
        Assert.Contains(host.DatabasePath, refused.Message, StringComparison.Ordinal);
        await host.Host.DisposeAsync();
        await host.StartAgainAsync();
        Assert.Equal(1, (await host.RunAsync("Chain", 2)).ReadOutputAs<int>());
    }

    [Fact]
    public async Task A_hub_of_a_newer_schema_is_refused_and_left_alone()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.Host.DisposeAsync();
        SetUserVersion(host.DatabasePath, 99);
        var refused = await Assert.ThrowsAsync<HubUnavailableException>(() => host.StartAgainAsync());
        Assert.Contains("newer version", refused.Message, StringComparison.Ordinal);
        SetUserVersion(host.DatabasePath, 1);
        await host.StartAgainAsync();
    }

    [Fact]
    public async Task A_damaged_hub_is_refused_by_name()
    {
        await using TestHost host = await TestHost.StartAsync();
        await host.RunAsync("FanOut", 50);
        await host.Host.DisposeAsync();
        byte[] whole = await File.ReadAllBytesAsync(host.DatabasePath);
        byte[] damaged = [.. whole];
        Array.Fill(damaged, (byte)0x5A, 4096, damaged.Length - 4096);
        await File.WriteAllBytesAsync(host.DatabasePath, damaged);
        var refused = await Assert.ThrowsAsync<HubUnavailableException>(() => host.StartAgainAsync());
        Assert.Contains(host.DatabasePath, refused.Message, StringComparison.Ordinal);
        await File.WriteAllTextAsync(host.DatabasePath, "no database at all");
        await Assert.ThrowsAsync<HubUnavailableException>(() => host.StartAgainAsync());
        await File.WriteAllBytesAsync(host.DatabasePath, whole);
        await host.StartAgainAsync();
    }

    [Fact]
    public async Task A_full_disk_stops_the_host_with_its_reason_and_nothing_acknowledged_is_lost()
    {
        await using TestHost host = await TestHost.StartAsync();
        var db = host.Host.Services.GetRequiredService<HubDatabase>();
        await db.TransactAsync(() => db.Execute($"PRAGMA max_page_count = {db.Scalar<long>("PRAGMA page_count") + 4}"));
        int acknowledged = 0;
        HubUnavailableException? full = null;
        while (full is null)
        {
            try
            {
                await host.BeginAsync("Chain", 3, $"run{acknowledged}");
                acknowledged++;
            }
            catch (HubUnavailableException error)
            {
                full = error;
            }
        }
        Assert.Contains("full", full.Message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<HubUnavailableException>(() => host.Host.Completion.WaitAsync(TimeSpan.FromSeconds(10)));
        await host.Host.DisposeAsync();

        await host.StartAgainAsync();
        for (int i = 0; i < acknowledged; i++) Assert.Equal(3, (await host.CompletionAsync($"run{i}")).ReadOutputAs<int>());
    }

    private static async Task<PendingActivity> RunningAsync(TestHost host)
    {
        await host.UntilAsync("hang", _ => host.Store.Activities().Count == 1);
        await Task.Delay(50); // until it runs
        return host.Store.Activities()[0];
    }

    private static void SetUserVersion(string path, int version)
    {
        using var connection = new SqliteConnection($"Data Source={path};Pooling=False");
        connection.Open();
        using SqliteCommand command = connection.CreateCommand();
        command.CommandText = $"PRAGMA user_version = {version}";
        command.ExecuteNonQuery();
    }
}
