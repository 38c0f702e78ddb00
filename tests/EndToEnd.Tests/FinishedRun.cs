using System.Text.Json;
using Rlhf.Report;

namespace Rlhf.EndToEnd.Tests;

/// <summary>One undisturbed smoke run, shared by the tests that look at what came of it.</summary>
public sealed class FinishedRun : IAsyncLifetime
{
    public const string RunId = "smoke-undisturbed";

    /// <summary>A smoke run takes about a minute on two free cores; other tests may have taken one of them.</summary>
    public static readonly TimeSpan Limit = TimeSpan.FromMinutes(8);

    private readonly Workspace workspace = new();

    public string Folder => Path.Combine(workspace.Out, RunId);

    public string Output { get; private set; } = string.Empty;

    public RunReport Report { get; private set; } = null!;

    /// <summary>The arguments of a smoke run in a workspace.</summary>
    internal static string[] Arguments(Workspace workspace, string runId) =>
        ["run", "--spec", Path.Combine(LocalProcess.Samples, "smoke.json"), "--run-id", runId, "--port", "0", "--state", workspace.State, "--out", workspace.Out];

    /// <summary>The report that a run left, read strictly.</summary>
    internal static RunReport Read(Workspace workspace, string runId) => JsonSerializer.Deserialize<RunReport>(
        File.ReadAllText(Path.Combine(workspace.Out, runId, "report.json")), RlhfJson.Compact)!;

    public async ValueTask InitializeAsync()
    {
        await using LocalProcess local = LocalProcess.Start(workspace.Root, null, Arguments(workspace, RunId));
        int exit = await local.ExitAsync(Limit);
        Output = local.Output;
        Assert.True(exit == 0, $"exit code {exit}\n{local.Output}\n{local.Error}");
        Report = Read(workspace, RunId);
    }

    public ValueTask DisposeAsync()
    {
        workspace.Dispose();
        return ValueTask.CompletedTask;
    }
}

/// <summary>Runs of whole pipelines, one after the other: two cores carry one.</summary>
[CollectionDefinition(Name)]
public sealed class PipelineRuns : ICollectionFixture<FinishedRun>
{
    public const string Name = "pipeline runs";
}
