using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Storage;

namespace Rlhf.Local.Commands;

/// <summary>
/// What a person takes away from a run: <c>report.json</c>, <c>report.html</c>, <c>models/{role}/</c>, <c>metrics/{stage}.jsonl</c>,
/// <c>tensorboard/{stage}/</c>. Written aside and put in place by one rename: the folder is there whole or not at all.
/// </summary>
internal sealed class ResultFolder(RunClient client, IBlobStore blobs, string outFolder)
{
    /// <summary>Refuses a folder that could not take the results, hours before they come; makes nothing.</summary>
    /// <exception cref="UserErrorException">It is a file, or its place cannot be written.</exception>
    public static void RequireWritable(string outFolder)
    {
        string place = Path.GetFullPath(outFolder);
        while (!Path.Exists(place))
            place = Path.GetDirectoryName(place)!;
        try
        {
            string probe = Path.Combine(place, $".rlhf-{Guid.NewGuid():N}");
            File.WriteAllText(probe, string.Empty);
            File.Delete(probe);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"Results cannot be written to '{outFolder}': {e.Message} Choose another folder with --out.", e);
        }
    }

    /// <summary>Fetches a finished run's results; a folder of the same run is replaced.</summary>
    /// <returns>The report, or null when the run ended before it had one.</returns>
    public async Task<(RunReport Report, string Folder)?> FetchAsync(string runId, CancellationToken cancellation)
    {
        if (await client.GetReportAsync(runId, "application/json", cancellation) is not { } json)
            return null;

        RunReport report = JsonSerializer.Deserialize<RunReport>(json, RlhfJson.Compact)!;
        string folder = Path.Combine(outFolder, runId);
        string aside = Path.Combine(Directory.CreateDirectory(outFolder).FullName, $".{runId}.{Guid.NewGuid():N}");
        try
        {
            Directory.CreateDirectory(aside);
            await File.WriteAllTextAsync(Path.Combine(aside, "report.json"), WithLocalPaths(json), cancellation);
            if (await client.GetReportAsync(runId, "text/html", cancellation) is { } page)
                await File.WriteAllTextAsync(Path.Combine(aside, "report.html"), page, cancellation);
            foreach ((string role, ModelReport model) in report.Models)
                await FetchModelAsync(model.Path, Path.Combine(aside, ModelFolder(CheckedName(BlobLayout.Report(runId), role))), cancellation);
            foreach (StageReport stage in report.Stages)
                await FetchStageAsync(runId, CheckedName(BlobLayout.Report(runId), stage.Name), aside, cancellation);
            Replace(folder, aside);
        }
        finally
        {
            if (Directory.Exists(aside))
                Directory.Delete(aside, recursive: true);
        }

        return (report, folder);
    }

    private static string ModelFolder(string role) => $"models/{role}";

    /// <summary>In the container a model's path is a blob; beside the report it is a folder, relative to it. The sum stays.</summary>
    private static string WithLocalPaths(string json)
    {
        JsonNode report = JsonNode.Parse(json)!;
        if (report["models"] is JsonObject models)
        {
            foreach ((string role, JsonNode? model) in models)
                model!["path"] = ModelFolder(role);
        }

        return report.ToJsonString(RlhfJson.Indented);
    }

    /// <summary>Fetches a model's folder by its manifest.</summary>
    /// <exception cref="CorruptBlobException">The manifest or a file is not what it must be.</exception>
    internal async Task FetchModelAsync(string manifestBlob, string folder, CancellationToken cancellation)
    {
        FolderManifest manifest = await blobs.ReadContentJsonAsync<FolderManifest>(
            manifestBlob[(manifestBlob.LastIndexOf('/') + 1)..], cancellation);
        Directory.CreateDirectory(folder);
        foreach (ContentFile file in manifest.Files)
            await FetchFileAsync(file, Path.Combine(folder, CheckedName(manifestBlob, file.Name)), cancellation);
    }

    private async Task FetchStageAsync(string runId, string stage, string folder, CancellationToken cancellation)
    {
        string metrics = await client.GetMetricsAsync(runId, stage, cancellation);
        if (metrics.Length > 0)
        {
            Directory.CreateDirectory(Path.Combine(folder, "metrics"));
            await File.WriteAllTextAsync(Path.Combine(folder, "metrics", stage + ".jsonl"), metrics, cancellation);
        }

        JobDocument? job = await blobs.ReadIntactJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), cancellation);
        foreach (ContentFile file in (job?.Result?.Artifacts.Values ?? []).Where(file => file.Name.Contains("tfevents", StringComparison.Ordinal)))
        {
            string tensorboard = Directory.CreateDirectory(Path.Combine(folder, "tensorboard", stage)).FullName;
            await FetchFileAsync(file, Path.Combine(tensorboard, CheckedName(BlobLayout.Job(runId, stage), file.Name)), cancellation);
        }
    }

    private async Task FetchFileAsync(ContentFile file, string path, CancellationToken cancellation)
    {
        string blob = BlobLayout.Content(file.Sha256);
        await using (Stream source = await blobs.OpenReadAsync(blob, cancellation))
        await using (FileStream target = File.Create(path))
            await source.CopyToAsync(target, cancellation);

        await using FileStream written = File.OpenRead(path);
        if (Convert.ToHexStringLower(await SHA256.HashDataAsync(written, cancellation)) != file.Sha256)
            throw new CorruptBlobException(blob, "its content does not have its name's SHA-256");
    }

    /// <summary>What storage says must not write beside the results.</summary>
    private static string CheckedName(string blob, string name) =>
        PlainNames.IsFileName(name) ? name : throw new CorruptBlobException(blob, $"it names '{name}', which is no plain name");

    private static void Replace(string folder, string aside)
    {
        string old = aside + ".old";
        if (Directory.Exists(folder))
            Directory.Move(folder, old);
        Directory.Move(aside, folder);
        if (Directory.Exists(old))
            Directory.Delete(old, recursive: true);
    }
}
