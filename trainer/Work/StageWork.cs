using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Work;

/// <summary>A stage's method with what a job does around its steps.</summary>
internal sealed class StageWork : IDisposable
{
    /// <summary>What computes.</summary>
    public required ITrainingMethod Method { get; init; }

    /// <summary>What scores answers within the method's steps, and may wait for an endpoint meanwhile; null where nothing does.</summary>
    public RewardFunction? Rewards { get; init; }

    /// <summary>The model that comes out; null where none does.</summary>
    public FinishedModel? Model { get; init; }

    /// <summary>Writes what a resumed attempt needs beside the method's own state.</summary>
    public Action<ICheckpointWriter>? SaveInputs { get; init; }

    /// <summary>Figures taken at the end of the job beside the method's summary.</summary>
    public Func<IReadOnlyDictionary<string, double>>? Validate { get; init; }

    /// <summary>Writes further files into a folder.</summary>
    public Action<string>? WriteFiles { get; init; }

    /// <summary>Models to dispose of with the work.</summary>
    public IReadOnlyList<IDisposable> Owned { get; init; } = [];

    public void Save(ICheckpointWriter checkpoint)
    {
        Method.Save(checkpoint);
        SaveInputs?.Invoke(checkpoint);
    }

    /// <summary>The method's summary and the validation in one.</summary>
    public IReadOnlyDictionary<string, double> Measure()
    {
        var metrics = new SortedDictionary<string, double>(StringComparer.Ordinal);
        foreach ((string name, double value) in Method.Summary().Concat(Validate?.Invoke() ?? new Dictionary<string, double>()))
            metrics[name] = value;
        return metrics;
    }

    /// <summary>Puts the finished model, and its adapter if it has one, into content-addressed storage.</summary>
    public async Task<IReadOnlyDictionary<string, ModelRef>> ExportAsync(IBlobStore blobs, string folder, CancellationToken cancellation)
    {
        if (Model is not { } model)
            return new Dictionary<string, ModelRef>();
        var published = new SortedDictionary<string, ModelRef>(StringComparer.Ordinal);
        await PublishAsync(model.Role, model.Write, ModelExport.WeightsFile);
        if (model.WriteAdapter is { } adapter)
            await PublishAsync(ModelRoles.Adapter(model.Role), adapter, PeftFolder.WeightsFile);
        return published;

        async Task PublishAsync(string role, Action<string> write, string weightsFile)
        {
            string roleFolder = Directory.CreateDirectory(Path.Combine(folder, role)).FullName;
            write(roleFolder);
            published[role] = await ModelExport.PublishFolderAsync(blobs, roleFolder, weightsFile, cancellation);
        }
    }

    public void Dispose()
    {
        Method.Dispose();
        Rewards?.Dispose();
        foreach (IDisposable item in Owned)
            item.Dispose();
    }
}

/// <summary>A model that a stage makes.</summary>
/// <param name="Role">Its role in the run: <c>base</c>, <c>sft</c>, <c>reward</c>, or the method, such as <c>ppo</c>.</param>
/// <param name="Write">Writes its Hugging Face folder.</param>
/// <param name="WriteAdapter">Writes the PEFT folder of its adapter; null where all weights were trained.</param>
internal sealed record FinishedModel(string Role, Action<string> Write, Action<string>? WriteAdapter = null);
