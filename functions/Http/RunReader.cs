using System.Text;
using System.Text.Json;
using Microsoft.DurableTask.Client;
using Rlhf.Functions.Orchestrators;
using Rlhf.Jobs;
using Rlhf.Storage;

namespace Rlhf.Functions.Http;

/// <summary>
/// Shows runs: what the run's orchestration has recorded, refined by the custom status of its present stage and, freshest of all, by the
/// present job's heartbeat.
/// </summary>
public sealed class RunReader(IBlobStore blobs, JobControl jobs)
{
    /// <summary>One run, with the newest figures of its present stage.</summary>
    public async Task<RunView> ViewAsync(DurableTaskClient client, RunDocument run, CancellationToken cancellation)
    {
        OrchestrationMetadata? instance = await client.GetInstanceAsync(run.RunId, getInputsAndOutputs: true, cancellation);
        if (instance is null)
        {
            return new RunView
            {
                RunId = run.RunId,
                Name = run.Spec.Name,
                State = RunStates.Pending,
                CreatedUtc = run.CreatedUtc,
                UpdatedUtc = run.CreatedUtc,
            };
        }

        RunView view = Recorded(instance, run.Spec.Name) with { CreatedUtc = run.CreatedUtc };
        if (view.State == RunStates.Running && view.Stage is { } stage)
        {
            try
            {
                view = await LiveAsync(client, view, stage, cancellation);
            }
            catch (CorruptBlobException e)
            {
                view = view with { Activity = e.Message }; // the orchestrator will see it too, and deals with it
            }
        }

        return view with { Cost = view.TrainerSeconds / 3600 * run.Spec.Budget.PricePerTrainerHour };
    }

    /// <summary>All runs by their recorded states, the newest first.</summary>
    public async Task<IReadOnlyList<RunView>> ListAsync(DurableTaskClient client, CancellationToken cancellation)
    {
        var runs = new List<RunView>();
        var all = new OrchestrationQuery { FetchInputsAndOutputs = true };
        await foreach (OrchestrationMetadata instance in client.GetAllInstancesAsync(all).WithCancellation(cancellation))
        {
            // Stages are instances too; their ids have a colon, which no run id has.
            if (!instance.InstanceId.Contains(':', StringComparison.Ordinal))
                runs.Add(Recorded(instance, await NameAsync(instance, cancellation)));
        }

        return [.. runs.OrderByDescending(run => run.CreatedUtc).ThenBy(run => run.RunId, StringComparer.Ordinal)];
    }

    /// <summary>
    /// The metric rows of a stage as JSON lines, each step once: an attempt that resumed at a step replaces the rows from there on of those
    /// before it. Rows of outdated attempts that nobody resumed from never show.
    /// </summary>
    public async Task<string> MetricsAsync(string runId, IEnumerable<string> stages, CancellationToken cancellation)
    {
        var text = new StringBuilder();
        foreach (string stage in stages)
        {
            if (await blobs.ReadIntactJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), cancellation) is not { } job)
                continue;
            var merged = new List<(int Step, string Line)>();
            foreach ((int fence, string attempt) in Attempts(job))
            {
                string path = BlobLayout.Metrics(BlobLayout.Attempt(runId, stage, fence, attempt));
                List<(int Step, string Line)> rows = Rows(path, await blobs.ReadAsync(path, cancellation));
                if (rows.Count > 0)
                    merged.RemoveAll(row => row.Step >= rows[0].Step);
                merged.AddRange(rows);
            }

            foreach ((_, string line) in merged)
                text.Append(line).Append('\n');
        }

        return text.ToString();
    }

    private static IEnumerable<(int Fence, string Attempt)> Attempts(JobDocument job)
    {
        foreach (AttemptRecord record in job.History)
        {
            if (record.AttemptId is { } attempt)
                yield return (record.Fence, attempt);
        }

        if (job.AttemptId is { } present)
            yield return (job.Fence, present);
    }

    private static List<(int Step, string Line)> Rows(string path, StoredBlob? blob)
    {
        try
        {
            return blob is null
                ? []
                : [.. blob.Content.ToString().Split('\n', StringSplitOptions.RemoveEmptyEntries)
                    .Select(line => (JsonSerializer.Deserialize<MetricRow>(line, RlhfJson.Compact)!.Step, line))];
        }
        catch (JsonException e)
        {
            throw new CorruptBlobException(path, $"a line is no metric row: {e.Message}");
        }
    }

    private static RunView Recorded(OrchestrationMetadata instance, string name)
    {
        RunStatus? status = instance.SerializedCustomStatus is null ? null : instance.ReadCustomStatusAs<RunStatus>();
        string state = instance.RuntimeStatus switch
        {
            OrchestrationRuntimeStatus.Pending => RunStates.Pending,
            OrchestrationRuntimeStatus.Suspended => RunStates.Paused,
            OrchestrationRuntimeStatus.Failed => RunStates.Failed,
            OrchestrationRuntimeStatus.Terminated => RunStates.Cancelled,
            _ => status?.State ?? RunStates.Running,
        };

        // A final state is announced a moment before the orchestration is over; until then nothing may be said to be finished.
        if (RunStates.IsFinal(state) && !instance.IsCompleted)
            state = RunStates.Running;
        bool broken = instance.RuntimeStatus
            is OrchestrationRuntimeStatus.Failed or OrchestrationRuntimeStatus.Terminated or OrchestrationRuntimeStatus.Suspended;
        IReadOnlyList<StageRecord> stages = status?.Stages ?? [];
        return new RunView
        {
            RunId = instance.InstanceId,
            Name = status?.Name ?? name,
            State = state,
            Stage = status?.Stage,
            Activity = status?.WaitingFor ?? status?.Activity,
            Error = broken ? instance.SerializedOutput : status?.Error,
            Stages = [.. stages.Select(stage => new StageView(stage.Name, stage.State, stage.Attempts, stage.Seconds))],
            Attempts = stages.Sum(stage => stage.Attempts),
            TrainerSeconds = status?.TrainerSeconds ?? 0,
            CreatedUtc = instance.CreatedAt,
            UpdatedUtc = instance.LastUpdatedAt,
            ReportUrl = RunStates.IsFinal(state) ? $"/api/runs/{instance.InstanceId}/report" : null,
        };
    }

    /// <summary>The model's name, where the run has not yet recorded it itself.</summary>
    private async Task<string> NameAsync(OrchestrationMetadata instance, CancellationToken cancellation) =>
        instance.SerializedCustomStatus is null
        ? (await blobs.ReadJsonAsync<RunDocument>(BlobLayout.RunDocument(instance.InstanceId), cancellation))?.Spec.Name ?? string.Empty
        : string.Empty;

    private async Task<RunView> LiveAsync(DurableTaskClient client, RunView view, string stage, CancellationToken cancellation)
    {
        OrchestrationMetadata? child = await client.GetInstanceAsync($"{view.RunId}:{stage}", getInputsAndOutputs: true, cancellation);
        StageStatus? status = child?.SerializedCustomStatus is null || stage == Stages.Data
            ? null
            : child.ReadCustomStatusAs<StageStatus>();
        if (status is not null)
        {
            view = view with
            {
                State = status.State == RunStates.Paused ? RunStates.Paused : view.State,
                Activity = status.WaitingFor is { } waiting ? $"{status.Activity}, waiting for {waiting}" : status.Activity,
            };
        }

        JobDocument? document = await blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(view.RunId, stage), cancellation);
        JobStatus? job = document is null ? null : await jobs.InspectAsync(view.RunId, stage, cancellation);
        if (document is null || job is null)
            return view;

        Heartbeat? beat = document.AttemptId is { } attempt
            ? await blobs.ReadIntactJsonAsync<Heartbeat>(
                BlobLayout.Heartbeat(BlobLayout.Attempt(view.RunId, stage, document.Fence, attempt)), cancellation)
            : null;
        return view with
        {
            Activity = status?.WaitingFor is null ? job.Phase : view.Activity,
            Progress = new ProgressView(
                job.Step, job.TotalSteps,
                job is { TotalSteps: > 0, SecondsPerStep: > 0 } ? Math.Max(0, job.TotalSteps - job.Step) * job.SecondsPerStep : null),
            Metrics = document.Result?.Metrics ?? beat?.Metrics ?? view.Metrics,
            Stages = [.. view.Stages.Select(entry => entry.Name == stage ? entry with { Attempts = job.Attempts } : entry)],
            Attempts = view.Attempts + job.Attempts,
            TrainerSeconds = view.TrainerSeconds + job.Seconds,
        };
    }
}
