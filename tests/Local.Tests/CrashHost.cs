using System.Diagnostics;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Rlhf.Local.Host;

namespace Rlhf.Local.Tests;

public static class CrashFunctions
{
    /// <summary>Leaves a line for each time it runs; what it ran before a kill can be counted.</summary>
    [Function("Mark")]
    public static async Task<int> MarkAsync([ActivityTrigger] int n, string instanceId)
    {
        await Task.Delay(5);
        string line = $"{instanceId} {n}\n";
        lock (typeof(CrashFunctions)) File.AppendAllText(CrashHost.Marks, line);
        return n;
    }

    /// <summary>Steps in a row, a fan-out, a child and a timer, in generations of their own.</summary>
    [Function("Survivor")]
    public static async Task<int> SurviveAsync([OrchestrationTrigger] TaskOrchestrationContext context, int generation)
    {
        const int generations = 3;
        int sum = 0;
        for (int i = 0; i < 4; i++) sum += await context.CallActivityAsync<int>("Mark", (generation * 100) + i);
        await Task.WhenAll(Enumerable.Range(10, 8).Select(i => context.CallActivityAsync<int>("Mark", (generation * 100) + i)));
        await context.CallSubOrchestratorAsync<int>(
            "SurvivorsChild", generation, new SubOrchestrationOptions(instanceId: $"{context.InstanceId}:{generation}"));
        await context.CreateTimer(TimeSpan.FromMilliseconds(20), CancellationToken.None);
        if (generation < generations - 1) context.ContinueAsNew(generation + 1);
        return generation;
    }

    [Function("SurvivorsChild")]
    public static async Task<int> ChildAsync([OrchestrationTrigger] TaskOrchestrationContext context, int generation)
    {
        int seen = await context.CallActivityAsync<int>("Mark", (generation * 100) + 50);
        return seen + await context.CallActivityAsync<int>("Mark", (generation * 100) + 51);
    }
}

/// <summary>The process that the crash tests start and kill: a host on the hub of a folder.</summary>
internal static class CrashHost
{
    public const string Command = "crash-host";

    public const int Instances = 12;

    public static string Marks { get; set; } = "";

    public static EmbeddedHostOptions Options(string folder) => new()
    {
        DatabasePath = Path.Combine(folder, "durable.db"),
        Assemblies = [typeof(CrashHost).Assembly],
        ContentRoot = folder,
        Settings = new Dictionary<string, string?> { ["AzureWebJobs.QueueProbe.Disabled"] = "true", ["Probe:Schedule"] = "0 0 0 1 1 *" },
        ConfigureServices = TestHost.AddServices,
    };

    public static async Task<int> RunAsync(string folder)
    {
        Marks = Path.Combine(folder, "marks.txt");
        await using EmbeddedHost host = await EmbeddedHost.CreateAsync(Options(folder));
        Console.WriteLine("ready");
        for (int i = 0; i < Instances; i++)
        {
            if (await host.Client.GetInstanceAsync($"s{i}") is null)
                await host.Client.ScheduleNewOrchestrationInstanceAsync("Survivor", 0, new StartOrchestrationOptions($"s{i}"));
        }
        await host.Completion;
        return 0;
    }

    public static Process Start(string folder) => Process.Start(new ProcessStartInfo(Environment.ProcessPath!, [Command, folder])
    {
        RedirectStandardOutput = true,
    })!;
}
