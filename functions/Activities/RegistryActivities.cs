using System.Security.Cryptography;
using System.Text;
using Microsoft.Azure.Functions.Worker;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Storage;

namespace Rlhf.Functions.Activities;

/// <summary>Asks for a base model: a blob prefix, or <c>model:NAME</c>.</summary>
public sealed record BaseModelRequest(string RunId, string Name);

/// <summary>A finished run's models, to be registered.</summary>
/// <param name="Name">The model's name.</param>
/// <param name="RunId">The run that made it.</param>
/// <param name="Models">Its models by role.</param>
/// <param name="Aligned">The role of the model that the preference method made.</param>
/// <param name="Promotion">How the promotion gate decided.</param>
/// <param name="Utc">When, on the orchestrator's clock.</param>
public sealed record ModelRegistration(
    string Name, string RunId, IReadOnlyDictionary<string, ModelRef> Models, string Aligned, PromotionReport Promotion, DateTime Utc);

/// <summary><c>models/{name}/production.json</c>: the version in use.</summary>
/// <param name="Name">The model's name.</param>
/// <param name="RunId">The run that made it.</param>
/// <param name="Model">The policy.</param>
/// <param name="PromotedUtc">Since when.</param>
/// <param name="PreviousRunId">The version before it, to go back to.</param>
public sealed record ProductionModel(string Name, string RunId, ModelRef Model, DateTime PromotedUtc, string? PreviousRunId);

/// <summary>Runs and models on record: the run's spec and control, base models, versions, the production alias.</summary>
public sealed class RegistryActivities(IBlobStore blobs)
{
    private const string ModelPrefix = "model:";
    private const string Config = "config.json";
    private const string Weights = "model.safetensors";
    private const string WeightsIndex = "model.safetensors.index.json";

    /// <summary>What people last asked of a run.</summary>
    internal static async Task<DesiredState> DesiredAsync(IBlobStore blobs, string runId, CancellationToken cancellation) =>
        (await blobs.ReadJsonAsync<RunControl>(BlobLayout.Control(runId), cancellation))?.Desired ?? DesiredState.Run;

    /// <summary>The production model of a name; null when none has been promoted.</summary>
    internal static Task<ProductionModel?> ProductionAsync(IBlobStore blobs, string name, CancellationToken cancellation) =>
        blobs.ReadJsonAsync<ProductionModel>(BlobLayout.ProductionModel(name), cancellation);

    /// <summary>Reads the run as it was asked for.</summary>
    [Function(nameof(ReadRun))]
    public async Task<RunDocument> ReadRun([ActivityTrigger] string runId, CancellationToken cancellation) =>
        await blobs.ReadJsonAsync<RunDocument>(BlobLayout.RunDocument(runId), cancellation)
            ?? throw new UnusableInputException(
                $"Run '{runId}' has no run.json: its blobs have been deleted. Start it again under a new id.");

    /// <summary>Reads what people last asked of the run.</summary>
    [Function(nameof(ReadControl))]
    public Task<DesiredState> ReadControl([ActivityTrigger] string runId, CancellationToken cancellation) =>
        DesiredAsync(blobs, runId, cancellation);

    /// <summary>
    /// Finds the base model and records it by content, so that the run keeps its base whatever happens to the folder later.
    /// </summary>
    [Function(nameof(ResolveBaseModel))]
    public async Task<ModelRef> ResolveBaseModel([ActivityTrigger] BaseModelRequest request, CancellationToken cancellation)
    {
        if (request.Name.StartsWith(ModelPrefix, StringComparison.Ordinal))
        {
            string name = request.Name[ModelPrefix.Length..];
            ProductionModel? production = await ProductionAsync(blobs, name, cancellation);
            return production?.Model ?? throw new UnusableInputException(
                $"model.base is '{request.Name}', but no model '{name}' has been promoted. "
                + $"Name a folder, or promote a run of '{name}' first.");
        }

        string prefix = request.Name.TrimEnd('/') + "/";
        var paths = new List<string>();
        await foreach (BlobEntry entry in blobs.ListAsync(prefix, cancellation))
        {
            if (!entry.Path[prefix.Length..].Contains('/', StringComparison.Ordinal))
                paths.Add(entry.Path);
        }

        CheckFolder(request.Name, [.. paths.Select(path => path[prefix.Length..])]);
        var files = new List<ContentFile>();
        foreach (string path in paths.Order(StringComparer.Ordinal))
            files.Add(await StoreAsync(path, path[prefix.Length..], cancellation));

        BinaryData manifest = CasDocument.Serialize(new FolderManifest(files));
        string sha256 = CasDocument.Sha256(manifest);
        await blobs.TryCreateAsync(BlobLayout.Content(sha256), manifest, cancellation);
        return new ModelRef(BlobLayout.Content(sha256), WeightsSha256(files));
    }

    /// <summary>Registers the run's models under the model's name and, where the gate said so, makes them the production model.</summary>
    [Function(nameof(RegisterModel))]
    public async Task RegisterModel([ActivityTrigger] ModelRegistration registration, CancellationToken cancellation)
    {
        string version = BlobLayout.ModelVersion(registration.Name, registration.RunId);
        await blobs.TryCreateAsync(version, CasDocument.Serialize(registration), cancellation);
        if (!registration.Promotion.Promoted)
            return;

        await blobs.UpdateJsonAsync<ProductionModel>(
            BlobLayout.ProductionModel(registration.Name),
            present => present?.RunId == registration.RunId || present?.PromotedUtc > registration.Utc
                ? present
                : new ProductionModel(
                    registration.Name, registration.RunId, registration.Models[registration.Aligned], registration.Utc, present?.RunId),
            cancellation);
    }

    private static void CheckFolder(string folder, string[] names)
    {
        if (names.Length == 0)
        {
            throw new UnusableInputException(
                $"model.base is '{folder}', but there is no such folder in the container. Upload a Hugging Face folder there.");
        }

        string? missing = !names.Contains(Config) ? Config : !names.Contains(Weights) && !names.Contains(WeightsIndex) ? Weights : null;
        if (missing is not null)
        {
            throw new UnusableInputException(
                $"model.base is '{folder}', which is no model: it has no {missing} (it has {string.Join(", ", names.Take(8))}). "
                + "Name a Hugging Face folder with config.json, model.safetensors and tokenizer.json.");
        }
    }

    /// <summary>The sum that stands for the weights: that of the one file, or of the sums of all shards in their order.</summary>
    private static string WeightsSha256(List<ContentFile> files)
    {
        if (files.Find(file => file.Name == Weights) is { } single)
            return single.Sha256;
        IEnumerable<string> shards = files
            .Where(file => file.Name.EndsWith(".safetensors", StringComparison.Ordinal)).Select(file => file.Sha256);
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(string.Join('\n', shards))));
    }

    private async Task<ContentFile> StoreAsync(string path, string name, CancellationToken cancellation)
    {
        string sha256;
        long length;
        await using (Stream content = await blobs.OpenReadAsync(path, cancellation))
        {
            sha256 = Convert.ToHexStringLower(await SHA256.HashDataAsync(content, cancellation));
            length = content.Position;
        }

        await using (Stream content = await blobs.OpenReadAsync(path, cancellation))
            await blobs.TryCreateAsync(BlobLayout.Content(sha256), content, cancellation);
        return new ContentFile(name, sha256, length);
    }
}
