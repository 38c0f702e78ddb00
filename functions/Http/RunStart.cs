using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;
using Rlhf.Functions.Orchestrators;
using Rlhf.Jobs;
using Rlhf.Spec;
using Rlhf.Storage;

namespace Rlhf.Functions.Http;

/// <summary>What came of a start.</summary>
public enum StartOutcome
{
    /// <summary>This call made the run.</summary>
    Created,

    /// <summary>The same run was there already.</summary>
    Existed,

    /// <summary>A run of that id with another spec was there already.</summary>
    Conflict,
}

/// <summary>
/// Starts runs, each once. The platform's starts are not atomic (of several at the same time more than one can get through), so the
/// creation of <c>run.json</c> decides; the orchestration is started by whoever created it. If that caller died between the two, the
/// next one to ask for the run (the same POST again, a GET, the retraining timer) starts it after a short grace.
/// </summary>
public sealed class RunStart(IBlobStore blobs, TimeProvider clock)
{
    /// <summary>How long the creator of run.json has to start the orchestration itself.</summary>
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(10);

    /// <summary>A new id for a run of the model: its name, the time and a few random digits.</summary>
    public string NewId(string name) =>
        $"{name[..Math.Min(name.Length, 24)].TrimEnd('-')}-{clock.GetUtcNow():yyyyMMdd-HHmmss}-{Guid.NewGuid().ToString("N")[..4]}";

    /// <summary>Starts the run, or finds that it has been started.</summary>
    public async Task<StartOutcome> StartAsync(DurableTaskClient client, string runId, RunSpec spec, CancellationToken cancellation)
    {
        RunSpec asked = spec with { Schema = null, RunId = null };
        string sha256 = CasDocument.Sha256(CasDocument.Serialize(asked));
        var run = new RunDocument(runId, asked, sha256, clock.GetUtcNow());
        if (await blobs.TryCreateAsync(BlobLayout.RunDocument(runId), CasDocument.Serialize(run), cancellation))
        {
            await ScheduleAsync(client, runId, cancellation);
            return StartOutcome.Created;
        }

        RunDocument stored = (await blobs.ReadJsonAsync<RunDocument>(BlobLayout.RunDocument(runId), cancellation))!;
        if (stored.SpecSha256 != sha256)
            return StartOutcome.Conflict;
        await CompleteAsync(client, stored, cancellation);
        return StartOutcome.Existed;
    }

    /// <summary>Starts the orchestration of a run whose creator died before it could.</summary>
    public async Task CompleteAsync(DurableTaskClient client, RunDocument run, CancellationToken cancellation)
    {
        if (clock.GetUtcNow() - run.CreatedUtc > Grace && await client.GetInstanceAsync(run.RunId, cancellation) is null)
            await ScheduleAsync(client, run.RunId, cancellation);
    }

    private static async Task ScheduleAsync(DurableTaskClient client, string runId, CancellationToken cancellation)
    {
        try
        {
            await client.ScheduleNewOrchestrationInstanceAsync(
                nameof(RlhfRun), new RunInput(runId), new StartOrchestrationOptions(runId), cancellation);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // Somebody else has just started it: then all is well. The platform says so with an exception type of its own.
            if (await client.GetInstanceAsync(runId, cancellation) is null)
                throw;
        }
    }
}
