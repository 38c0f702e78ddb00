using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Abstractions;
using Microsoft.DurableTask.Client;
using Xunit;

namespace Rlhf.Local.Tests;

public static class VersioningFunctions
{
    [Function("TellVersion")]
    public static string TellVersion([OrchestrationTrigger] TaskOrchestrationContext context) =>
        context.CompareVersionTo("2.0") < 0 ? $"old {context.Version}" : $"new {context.Version}";

    [Function("TellChildsVersion")]
    public static async Task<string> TellChildsVersionAsync([OrchestrationTrigger] TaskOrchestrationContext context, string? version)
    {
        await context.WaitForExternalEvent<string>("go");
        var options = new SubOrchestrationOptions { Version = version is null ? default(TaskVersion?) : new TaskVersion(version) };
        return await context.CallSubOrchestratorAsync<string>("TellVersion", options);
    }
}

public sealed class VersioningTests
{
    [Theory]
    [InlineData(null, "2.0", true)] // CurrentOrOlder is the default
    [InlineData("CurrentOrOlder", "1.9", true)]
    [InlineData("CurrentOrOlder", "2.0.1", false)]
    [InlineData("CurrentOrOlder", "", true)]
    [InlineData("Strict", "2.0", true)]
    [InlineData("Strict", "1.9", false)]
    [InlineData("None", "99", true)]
    public async Task An_instance_runs_only_where_its_version_matches(string? strategy, string version, bool runs)
    {
        await using TestHost host = await TestHost.StartAsync(Settings("2.0", strategy, "Fail"));
        var options = new StartOrchestrationOptions("v") { Version = new TaskVersion(version) };
        await host.Client.ScheduleNewOrchestrationInstanceAsync("TellVersion", options);
        OrchestrationMetadata done = await host.CompletionAsync("v");
        Assert.Equal(runs ? OrchestrationRuntimeStatus.Completed : OrchestrationRuntimeStatus.Failed, done.RuntimeStatus);
        if (!runs) Assert.Contains($"has version '{version}', this host runs '2.0'", done.SerializedOutput, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_rejected_instance_waits_for_a_host_of_its_version_and_can_be_terminated_meanwhile()
    {
        await using TestHost host = await TestHost.StartAsync(Settings("1.0"));
        foreach (string id in new[] { "waits", "ends" })
        {
            var newer = new StartOrchestrationOptions(id) { Version = new TaskVersion("2.0") };
            await host.Client.ScheduleNewOrchestrationInstanceAsync("TellVersion", newer);
        }
        await host.Client.TerminateInstanceAsync("ends");
        Assert.Equal(OrchestrationRuntimeStatus.Terminated, (await host.CompletionAsync("ends")).RuntimeStatus);
        Assert.Equal("old 1.0", (await host.RunAsync("TellVersion")).ReadOutputAs<string>());
        Assert.Equal(OrchestrationRuntimeStatus.Pending, (await host.Client.GetInstanceAsync("waits"))!.RuntimeStatus);
        Assert.Contains(host.Log.Lines, line => line.Contains("'waits' has version '2.0'", StringComparison.Ordinal));

        await host.Host.DisposeAsync();
        await host.StartAgainAsync(options => options with { Settings = Settings("2.0", from: options.Settings) });
        Assert.Equal("new 2.0", (await host.CompletionAsync("waits")).ReadOutputAs<string>());
    }

    [Theory]
    [InlineData(null, "new 2.0")]
    [InlineData("1.5", "old 1.5")]
    public async Task A_child_gets_the_default_version_of_the_host_that_starts_it_unless_told(string? version, string expected)
    {
        await using TestHost host = await TestHost.StartAsync(Settings("1.0"));
        await host.BeginAsync("TellChildsVersion", version, "p");
        await host.UntilAsync("p", instance => instance.IsRunning);
        await host.Host.DisposeAsync();
        await host.StartAgainAsync(options => options with { Settings = Settings("2.0", from: options.Settings) });
        await host.Client.RaiseEventAsync("p", "go");
        Assert.Equal(expected, (await host.CompletionAsync("p")).ReadOutputAs<string>());
    }

    [Theory]
    [InlineData("1.9", "1.10", -1)]
    [InlineData("2.0", "2.0", 0)]
    [InlineData("", "0.1", -1)]
    [InlineData("beta", "ALPHA", 1)]
    public void Versions_compare_by_number_where_they_are_numbers(string a, string b, int sign)
    {
        Assert.Equal(sign, Math.Sign(TaskOrchestrationVersioningUtils.CompareVersions(a, b)));
        Assert.Equal(-sign, Math.Sign(TaskOrchestrationVersioningUtils.CompareVersions(b, a)));
    }

    private static Dictionary<string, string?> Settings(
        string version, string? match = null, string? failure = null, IReadOnlyDictionary<string, string?>? from = null) =>
        new(from ?? new Dictionary<string, string?>())
        {
            ["AzureFunctionsJobHost:extensions:durableTask:defaultVersion"] = version,
            ["AzureFunctionsJobHost:extensions:durableTask:versionMatchStrategy"] = match,
            ["AzureFunctionsJobHost:extensions:durableTask:versionFailureStrategy"] = failure,
        };
}
