using System.Security.Cryptography;
using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Storage;

namespace Rlhf.Local.Commands;

/// <summary>
/// The files that a spec names, on this machine: checked before anything starts, then uploaded under their content's hash, so that the
/// same input has the same name wherever it came from and is uploaded once.
/// </summary>
internal sealed class LocalInputs
{
    private static readonly string[] ModelFiles = [".json", ".safetensors", ".txt", ".model", ".jinja"];
    private static readonly string[] TokenizerFiles = ["tokenizer.json", "vocab.json", "tokenizer.model"];
    private readonly RunSpec spec;
    private readonly Dictionary<string, LocalFile> files;
    private readonly IReadOnlyList<LocalFile> baseFiles;

    private LocalInputs(RunSpec spec, Dictionary<string, LocalFile> files, IReadOnlyList<LocalFile> baseFiles)
    {
        this.spec = spec;
        this.files = files;
        this.baseFiles = baseFiles;
    }

    /// <summary>Finds and checks every file; all faults are told at once.</summary>
    /// <param name="spec">The spec as it was written.</param>
    /// <param name="dataFolder">What data files are relative to.</param>
    /// <param name="specFolder">What the base model's folder is relative to.</param>
    /// <param name="cancellation">Cancels.</param>
    /// <exception cref="UserErrorException">Files are missing, empty or unreadable; which, where, and what to do.</exception>
    public static async Task<LocalInputs> CheckAsync(RunSpec spec, string dataFolder, string specFolder, CancellationToken cancellation)
    {
        var faults = new List<string>();
        var files = new Dictionary<string, LocalFile>();
        (string Field, string File, bool JsonLines)[] named =
        [
            .. DataFiles(spec.Data).Select(entry => (entry.Field, entry.File.File, HoldsJsonLines(entry.File.File))),
            .. FlanFiles(spec.Data.Flan),
        ];
        if (!Directory.Exists(dataFolder) && named.Length > 0)
            throw new UserErrorException($"There is no data folder '{dataFolder}'. Give the folder of the spec's data files with --data.");

        foreach ((string field, string file, bool jsonLines) in named)
        {
            if (files.ContainsKey(file))
                continue;
            string path = Path.Combine(dataFolder, file);
            if (!File.Exists(path))
                faults.Add($"{field}: there is no file '{file}' in '{dataFolder}'. Correct the name, or give the folder with --data.");
            else if (await FaultOfAsync(path, jsonLines, cancellation) is { } fault)
                faults.Add($"{field}: {fault}");
            else
                files.Add(file, await LocalFile.HashAsync(path, cancellation));
        }

        IReadOnlyList<LocalFile> baseFiles = [];
        if (spec.Model.Base is { } model && !IsRegistered(model))
        {
            string folder = Path.GetFullPath(Path.Combine(specFolder, model));
            if (FaultOfModel(folder) is { } fault)
            {
                faults.Add($"model.base: {fault}");
            }
            else
            {
                string[] paths = [.. Directory.GetFiles(folder).Where(path => ModelFiles.Contains(Path.GetExtension(path))).Order(StringComparer.Ordinal)];
                baseFiles = await Task.WhenAll(paths.Select(path => LocalFile.HashAsync(path, cancellation)));
            }
        }

        return faults.Count == 0 ? new LocalInputs(spec, files, baseFiles) : throw new UserErrorException(string.Join("\n", faults));
    }

    /// <summary>Uploads what the store does not have yet and names the blobs in the spec.</summary>
    public async Task<RunSpec> UploadAsync(IBlobStore blobs, CancellationToken cancellation)
    {
        foreach (LocalFile file in files.Values)
            await UploadAsync(blobs, file, BlobLayout.Input(file.Sha256, file.Name), cancellation);

        var manifest = new FolderManifest([.. baseFiles.Select(file => new ContentFile(file.Name, file.Sha256, file.Length))]);
        string baseSum = CasDocument.Sha256(CasDocument.Serialize(manifest));
        foreach (LocalFile file in baseFiles)
            await UploadAsync(blobs, file, BlobLayout.Input(baseSum, file.Name), cancellation);

        return spec with
        {
            Data = spec.Data with
            {
                Text = Renamed(spec.Data.Text),
                Demonstrations = Renamed(spec.Data.Demonstrations),
                Preferences = Renamed(spec.Data.Preferences),
                Prompts = Renamed(spec.Data.Prompts),
                Evaluation = Renamed(spec.Data.Evaluation),
                Comparisons = Renamed(spec.Data.Comparisons),
                Safety = Renamed(spec.Data.Safety),
                Flan = spec.Data.Flan is { } flan ? Renamed(flan) : null,
            },
            Model = baseFiles.Count == 0 ? spec.Model : spec.Model with { Base = BlobLayout.Input(baseSum, string.Empty).TrimEnd('/') },
        };
    }

    private static async Task UploadAsync(IBlobStore blobs, LocalFile file, string blob, CancellationToken cancellation)
    {
        await foreach (BlobEntry entry in blobs.ListAsync(blob, cancellation))
        {
            if (entry.Path == blob && entry.Length == file.Length)
                return;
        }

        await using FileStream content = File.OpenRead(file.Path);
        await blobs.TryCreateAsync(blob, content, cancellation);
    }

    private IReadOnlyList<DataFileSpec> Renamed(IReadOnlyList<DataFileSpec> list) =>
        [.. list.Select(file => file with { File = Blob(file.File) })];

    private FlanSpec Renamed(FlanSpec flan) => flan with
    {
        Templates = Blob(flan.Templates),
        Tasks = [.. flan.Tasks.Select(task => task with { File = Blob(task.File), Name = task.Name ?? RowReader.SubsetOf(task.File) })],
    };

    private string Blob(string file) => BlobLayout.Input(files[file].Sha256, files[file].Name);

    private static IEnumerable<(string Field, string File, bool JsonLines)> FlanFiles(FlanSpec? flan) => flan is null ? [] :
    [
        ("data.flan.templates", flan.Templates, false),
        .. flan.Tasks.Select((task, index) => ($"data.flan.tasks[{index}].file", task.File, false)),
    ];

    private static IEnumerable<(string Field, DataFileSpec File)> DataFiles(DataSpec data) =>
        from list in new (string Name, IReadOnlyList<DataFileSpec> Files)[]
        {
            ("text", data.Text), ("demonstrations", data.Demonstrations), ("preferences", data.Preferences),
            ("prompts", data.Prompts), ("evaluation", data.Evaluation),
            ("comparisons", data.Comparisons), ("safety", data.Safety),
        }
        from entry in list.Files.Index()
        select ($"data.{list.Name}[{entry.Index}].file", entry.Item);

    private static bool IsRegistered(string model) => model.StartsWith("model:", StringComparison.Ordinal);

    private static bool HoldsJsonLines(string file)
    {
        string name = file.EndsWith(".gz", StringComparison.Ordinal) ? file[..^".gz".Length] : file;
        return Path.GetExtension(name).ToLowerInvariant() is not (".txt" or ".csv");
    }

    /// <summary>What keeps a data file from being read at all. Whether its rows can be used is for the data stage to say.</summary>
    private static async Task<string?> FaultOfAsync(string path, bool jsonLines, CancellationToken cancellation)
    {
        int line = 0;
        int rows = 0;
        try
        {
            await using FileStream content = File.OpenRead(path);
            if (path.EndsWith(".gz", StringComparison.Ordinal) && !IsGzip(content))
                return $"'{path}' is no gzip file. Fetch it again, or rename it if it is plain text.";
            await foreach (TextLine row in TextLines.ReadAsync(path, content, cancellation))
            {
                line = row.Number;
                if (row.IsBlank)
                    continue;
                rows++;
                if (jsonLines && !row.IsTooLong)
                    JsonDocument.Parse(row.Bytes).Dispose();
            }
        }
        catch (JsonException e)
        {
            return $"line {line} of '{path}' is not valid JSON: {e.Message.Split(" LineNumber")[0]} "
                + "Each line must hold one JSON value; correct or remove this one.";
        }
        catch (UnreadableFileException e)
        {
            return $"{e.Message} Fetch it again, or convert it.";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return $"'{path}' cannot be read: {e.Message}";
        }

        return rows > 0 ? null : $"'{path}' is empty: it holds no row. Give a file with at least one JSON line.";
    }

    private static bool IsGzip(FileStream file)
    {
        bool isGzip = file.ReadByte() == 0x1F && file.ReadByte() == 0x8B;
        file.Position = 0;
        return isGzip;
    }

    private static string? FaultOfModel(string folder)
    {
        const string Wanted = "A model is a Hugging Face folder with config.json, model.safetensors and tokenizer.json.";
        if (!Directory.Exists(folder))
            return $"there is no folder '{folder}'. The path is relative to the spec; or use model.scratch, or 'model:NAME' for a registered model.";
        string config = Path.Combine(folder, "config.json");
        if (!File.Exists(config))
            return $"'{folder}' is no model: it has no config.json. {Wanted}";
        try
        {
            using var document = JsonDocument.Parse(File.ReadAllText(config));
            if (document.RootElement.ValueKind != JsonValueKind.Object || !document.RootElement.TryGetProperty("model_type", out _))
                return $"'{folder}' is no model: its config.json has no 'model_type'. {Wanted}";
        }
        catch (JsonException e)
        {
            return $"'{folder}' is no model: its config.json is not valid JSON (line {e.LineNumber + 1}). {Wanted}";
        }

        if (!File.Exists(Path.Combine(folder, "model.safetensors")) && !File.Exists(Path.Combine(folder, "model.safetensors.index.json")))
            return $"'{folder}' is no model: it has neither model.safetensors nor model.safetensors.index.json. {Wanted}";
        return TokenizerFiles.Any(name => File.Exists(Path.Combine(folder, name)))
            ? null
            : $"'{folder}' has no tokenizer: neither tokenizer.json nor vocab.json nor tokenizer.model. {Wanted}";
    }

    private sealed record LocalFile(string Path, string Name, string Sha256, long Length)
    {
        public static async Task<LocalFile> HashAsync(string path, CancellationToken cancellation)
        {
            await using FileStream content = File.OpenRead(path);
            byte[] sum = await SHA256.HashDataAsync(content, cancellation);
            return new LocalFile(path, System.IO.Path.GetFileName(path), Convert.ToHexStringLower(sum), content.Length);
        }
    }
}
