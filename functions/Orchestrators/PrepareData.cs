using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Rlhf.Functions.Activities;
using Rlhf.Jobs;
using Rlhf.Rows;

namespace Rlhf.Functions.Orchestrators;

/// <summary>What the data stage made.</summary>
/// <param name="Datasets">Data sets by <see cref="DatasetNames.Split"/>.</param>
/// <param name="Base">The base model; null when the run makes its own.</param>
public sealed record PreparedData(IReadOnlyDictionary<string, DatasetRef> Datasets, ModelRef? Base);

/// <summary>
/// The data stage: every file is normalised by an activity of its own, then the parts are merged and split. Nothing is trained here, so bad
/// input shows within seconds of the start. Instance id: <c>{runId}:data</c>.
/// </summary>
public static class PrepareData
{
    /// <summary>Files normalised at the same time.</summary>
    private const int Width = 16;

    /// <summary>Makes the run's data sets and finds its base model.</summary>
    [Function(nameof(PrepareData))]
    public static async Task<PreparedData> RunAsync([OrchestrationTrigger] TaskOrchestrationContext context, RunDocument run)
    {
        Task<ModelRef?> model = run.Spec.Model.Base is { } name
            ? context.CallActivityAsync<ModelRef?>(
                nameof(RegistryActivities.ResolveBaseModel), new BaseModelRequest(run.RunId, name), Retries.Storage)
            : Task.FromResult<ModelRef?>(null);
        Task<IReadOnlyDictionary<string, DatasetRef>> datasets = run.Spec.Data switch
        {
            { World: not null } => context.CallActivityAsync<IReadOnlyDictionary<string, DatasetRef>>(
                nameof(DataActivities.GenerateWorld), run, Retries.Storage),
            { Flan: not null } => context.CallActivityAsync<IReadOnlyDictionary<string, DatasetRef>>(
                nameof(FlanActivities.MixFlanTasks), run, Retries.Storage),
            _ => MergeFilesAsync(context, run),
        };

        // Both are awaited even if one fails: an orchestration does not end while a task it asked for is open.
        await Task.WhenAll(model, datasets);
        return new PreparedData(await datasets, await model);
    }

    private static async Task<IReadOnlyDictionary<string, DatasetRef>> MergeFilesAsync(TaskOrchestrationContext context, RunDocument run)
    {
        var parts = new List<DataPart>();
        foreach (DataFile[] some in DataFile.Of(run.Spec.Data).Chunk(Width))
        {
            parts.AddRange(await Task.WhenAll(some.Select(file =>
                context.CallActivityAsync<DataPart>(
                    nameof(DataActivities.NormaliseFile), new NormaliseRequest(run.RunId, file), Retries.Storage))));
        }

        return await context.CallActivityAsync<IReadOnlyDictionary<string, DatasetRef>>(
            nameof(DataActivities.MergeData), new MergeRequest(run, parts), Retries.Storage);
    }
}
