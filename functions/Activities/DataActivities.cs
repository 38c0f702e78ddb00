using System.Runtime.CompilerServices;
using System.Text.Json;
using Microsoft.Azure.Functions.Worker;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Storage;
using Rlhf.World;

namespace Rlhf.Functions.Activities;

/// <summary>Asks for one file to be normalised.</summary>
public sealed record NormaliseRequest(string RunId, DataFile File);

/// <summary>A normalised file: its rows, and the blob with its <see cref="DataFileReport"/>.</summary>
public sealed record DataPart(DataFile File, DatasetRef Rows, string Report);

/// <summary>Asks for the parts to become the run's data sets.</summary>
public sealed record MergeRequest(RunDocument Run, IReadOnlyList<DataPart> Parts);

/// <summary>Data preparation: from files in any accepted format, or from the sample world, to the run's data sets.</summary>
public sealed class DataActivities(IBlobStore blobs)
{
    /// <summary>The blob of the <see cref="DataReport"/> below the run's data.</summary>
    internal const string ReportName = "report.json";

    /// <summary>Dropped rows that a report names; the others are counted.</summary>
    private const int NamedDrops = 100;

    /// <summary>One evaluation prompt of the sample world in this many is of the cluster that no training data has.</summary>
    private const int HeldOutShare = 6;

    /// <summary>Prompts that the sample world's last labeller ranks.</summary>
    private const int UnseenLabellerPrompts = 1000;

    private const string Train = "train";
    private const string Test = "test";

    /// <summary>Reads one file as a stream and writes its usable rows, and a report that gives a reason for each row it drops.</summary>
    [Function(nameof(NormaliseFile))]
    public async Task<DataPart> NormaliseFile([ActivityTrigger] NormaliseRequest request, CancellationToken cancellation)
    {
        DataFile file = request.File;
        string name = file.Spec.File;
        await using Stream content = await OpenAsync(file, cancellation);
        using var rows = new SpooledRows();
        var dropped = new List<DroppedRow>();
        int droppedCount = 0;
        var reader = new RowReader(name, content, file.Spec.Subset);
        try
        {
            await foreach (RowResult line in reader.ReadAsync(cancellation))
            {
                string? reason = line.Reason;
                if (line.Row is { } row && file.Fit(row, out reason) is { } fit)
                {
                    rows.Add(fit);
                    if (rows.Count == file.Spec.Limit)
                        break;
                    continue;
                }

                droppedCount++;
                if (dropped.Count < NamedDrops)
                    dropped.Add(new DroppedRow(line.Line, reason!));
            }
        }
        catch (UnreadableFileException e)
        {
            throw new UnusableInputException($"data.{file.Dataset}[{file.Index}]: {e.Message}");
        }

        if (rows.Count == 0)
        {
            string more = droppedCount > 1 ? $"; {droppedCount} lines were dropped" : string.Empty;
            string why = dropped.Count == 0 ? "it is empty" : $"line {dropped[0].Line} {dropped[0].Reason}{more}";
            throw new UnusableInputException($"data.{file.Dataset}[{file.Index}]: the file '{name}' has no usable row: {why}.");
        }

        string part = $"parts/{file.Dataset}-{file.Index:D4}";
        DatasetRef stored = await rows.StoreAsync(blobs, BlobLayout.Data(request.RunId, $"{part}.jsonl"), cancellation);
        var report = new DataFileReport(name, reader.DetectedFormat ?? "none", reader.Lines, rows.Count, dropped, droppedCount);
        string reportPath = BlobLayout.Data(request.RunId, $"{part}.report.json");
        await blobs.TryCreateAsync(reportPath, CasDocument.Serialize(report), cancellation);
        return new DataPart(file, stored, reportPath);
    }

    /// <summary>
    /// Removes duplicates, splits by prompt and derives the sets that no file gives: demonstrations from the best completions of training
    /// preferences, prompts from training preferences, evaluation prompts from test preferences, text from demonstrations.
    /// </summary>
    [Function(nameof(MergeData))]
    public async Task<IReadOnlyDictionary<string, DatasetRef>> MergeData(
        [ActivityTrigger] MergeRequest request, CancellationToken cancellation)
    {
        DataSpec data = request.Run.Spec.Data;
        using var writer = new DatasetWriter(blobs, request.Run);
        foreach (DataPart part in request.Parts.Where(part => part.File.Dataset != DatasetNames.Text))
        {
            await foreach (Row row in ReadAsync(part, cancellation))
            {
                if (IsTest(part) || (IsTrainingPreference(part) && (writer.IsTestByHash(row) || writer.IsByUnseenLabeller(row))))
                    writer.Reserve(row);
            }
        }

        bool evaluationGiven = request.Parts.Any(part =>
            IsTest(part) && part.File.Dataset is not (DatasetNames.Preferences or DatasetNames.Comparisons or DatasetNames.Safety));
        foreach (DataPart part in request.Parts)
        {
            await foreach (Row row in ReadAsync(part, cancellation))
            {
                string dataset = part.File.Dataset;
                if (dataset is DatasetNames.Comparisons or DatasetNames.Safety)
                {
                    writer.Add(dataset, Test, row);
                }
                else if (dataset == DatasetNames.Preferences && writer.IsByUnseenLabeller(row))
                {
                    writer.Add(dataset, DatasetNames.UnseenLabellers, row);
                }
                else if (dataset == DatasetNames.Preferences && (IsTest(part) || writer.IsTestByHash(row)))
                {
                    writer.Add(dataset, Test, row);
                    if (!evaluationGiven)
                        writer.Add(DatasetNames.Evaluation, Test, DatasetRows.Prompt(row));
                }
                else if (IsTest(part) && dataset != DatasetNames.Text)
                {
                    writer.Add(DatasetNames.Evaluation, Test, DatasetRows.Prompt(row));
                }
                else
                {
                    AddTraining(writer, request.Run.Spec, dataset, row);
                }
            }
        }

        if (data.HeldOutLabellers.Count > 0 && writer.Rows(DatasetNames.Preferences, DatasetNames.UnseenLabellers) == 0)
        {
            throw new UnusableInputException(
                $"data.heldOutLabellers: no ranking is by {string.Join(", ", data.HeldOutLabellers.Select(name => $"'{name}'"))}. "
                + "Correct the names (a row's field 'labeller'), or remove the list.");
        }

        var files = new List<DataFileReport>();
        foreach (DataPart part in request.Parts)
            files.Add((await blobs.ReadJsonAsync<DataFileReport>(part.Report, cancellation))!);
        return await writer.FinishAsync(files, cancellation);
    }

    /// <summary>Generates the sample world's data sets; equal specs give equal bytes.</summary>
    [Function(nameof(GenerateWorld))]
    public async Task<IReadOnlyDictionary<string, DatasetRef>> GenerateWorld(
        [ActivityTrigger] RunDocument run, CancellationToken cancellation)
    {
        WorldSpec spec = run.Spec.Data.World!;
        int heldOut = Math.Max(1, spec.EvaluationPrompts / HeldOutShare);
        SampleWorld world = Create(new WorldOptions
        {
            Seed = (ulong)(spec.Seed ?? run.Spec.Seed),
            PretrainDocuments = run.Spec.Pretrain is null ? 0 : spec.PretrainDocuments,
            Demonstrations = spec.Demonstrations,
            PreferencePrompts = spec.PreferencePrompts,
            UnseenLabellerPrompts = UnseenLabellerPrompts,
            CompletionsPerPrompt = spec.CompletionsPerPrompt,
            Prompts = spec.Prompts,
            EvaluationPrompts = spec.EvaluationPrompts - heldOut,
            HeldOutPrompts = heldOut,
        });
        using var writer = new DatasetWriter(blobs, run);
        // By their hash, so that the first n of them are a fair sample of all clusters.
        IEnumerable<Row> evaluation = world.Evaluation().Select(prompt => ToRow(prompt.Prompt, [], prompt.Cluster, prompt.Truth));
        foreach (Row row in evaluation.OrderBy(row => row.Id, StringComparer.Ordinal))
        {
            writer.Reserve(row);
            writer.Add(DatasetNames.Evaluation, Test, row);
        }

        var preferences = new List<Row>();
        foreach (RankedRow ranked in world.Preferences())
        {
            Row row = ToRow(ranked.Prompt, ranked.Completions, ranked.Cluster, ranked.Truth) with
            {
                Ranks = ranked.Ranks,
                Labeller = ranked.Labeller,
            };
            preferences.Add(row);
            if (writer.IsTestByHash(row))
                writer.Reserve(row);
        }

        // The last labeller's prompts are drawn apart; those that training holds too are left out.
        HashSet<string> rankedPrompts = [.. preferences.Select(row => row.PromptKey)];
        foreach (RankedRow unseen in world.UnseenLabellerPreferences())
        {
            Row row = ToRow(unseen.Prompt, unseen.Completions, unseen.Cluster, unseen.Truth) with
            {
                Ranks = unseen.Ranks,
                Labeller = unseen.Labeller,
            };
            if (!rankedPrompts.Contains(row.PromptKey))
                writer.Add(DatasetNames.Preferences, DatasetNames.UnseenLabellers, row);
        }

        foreach (Row row in preferences)
        {
            if (writer.IsTestByHash(row))
                writer.Add(DatasetNames.Preferences, Test, row);
            else
                writer.AddTraining(DatasetNames.Preferences, row);
        }

        foreach (string document in world.PretrainText())
            writer.AddTraining(DatasetNames.Text, new Row { Id = Row.IdOf([], [document]), Completions = [document] });
        foreach (DemonstrationRow row in world.Demonstrations())
            writer.AddTraining(DatasetNames.Demonstrations, ToRow(row.Prompt, [row.Completion], row.Cluster, row.Truth));
        foreach (PromptRow row in world.Prompts())
            writer.AddTraining(DatasetNames.Prompts, ToRow(row.Prompt, [], row.Cluster, row.Truth));
        foreach (DemonstrationRow row in world.FewShotExemplars())
            writer.Add(DatasetNames.FewShot, Train, ToRow(row.Prompt, [row.Completion], row.Cluster, row.Truth));
        return await writer.FinishAsync([], cancellation);

        static SampleWorld Create(WorldOptions options)
        {
            try
            {
                return SampleWorld.Create(options);
            }
            catch (ArgumentException e)
            {
                throw new UnusableInputException($"data.{e.Message.Split(" (Parameter")[0]}");
            }
        }
    }

    private static bool IsTest(DataPart part) => part.File.Spec.Split == FileSplit.Test
        || part.File.Dataset is DatasetNames.Evaluation or DatasetNames.Comparisons or DatasetNames.Safety;

    private static bool IsTrainingPreference(DataPart part) =>
        part.File.Dataset == DatasetNames.Preferences && part.File.Spec.Split == FileSplit.Train;

    /// <summary>Adds a training row, and what is derived from it where the spec lists no files.</summary>
    private static void AddTraining(DatasetWriter writer, RunSpec spec, string dataset, Row row)
    {
        writer.AddTraining(dataset, row);
        if (dataset == DatasetNames.Preferences && spec.Data.Prompts.Count == 0 && !writer.IsReserved(row))
            writer.AddTraining(DatasetNames.Prompts, DatasetRows.Prompt(row));
        if (dataset == DatasetNames.Preferences && spec.Data.Demonstrations.Count == 0 && !writer.IsReserved(row))
            AddTraining(writer, spec, DatasetNames.Demonstrations, DatasetRows.Demonstration(row)!);
        if (dataset == DatasetNames.Demonstrations && spec.Data.Text.Count == 0 && spec.Pretrain is not null && !writer.IsReserved(row))
            writer.AddTraining(DatasetNames.Text, row);
    }

    private static Row ToRow(string prompt, IReadOnlyList<string> completions, string cluster, Truth truth)
    {
        Turn[] turns = [new Turn("user", prompt)];
        return new Row
        {
            Id = Row.IdOf(turns, completions),
            Prompt = turns,
            Completions = completions,
            Subset = cluster,
            Truth = JsonSerializer.SerializeToElement(truth, RlhfJson.Compact),
        };
    }

    private async Task<Stream> OpenAsync(DataFile file, CancellationToken cancellation)
    {
        try
        {
            return await blobs.OpenReadAsync(file.Spec.File, cancellation);
        }
        catch (FileNotFoundException)
        {
            throw new UnusableInputException(
                $"data.{file.Dataset}[{file.Index}]: there is no file '{file.Spec.File}'. "
                + "Upload it to the container under that name, or correct the name.");
        }
    }

    private async IAsyncEnumerable<Row> ReadAsync(DataPart part, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await using Stream content = await blobs.OpenReadAsync(part.Rows.Path, cancellation);
        using var lines = new StreamReader(content);
        while (await lines.ReadLineAsync(cancellation) is { } line)
            yield return JsonSerializer.Deserialize<Row>(line, RlhfJson.Compact)!;
    }
}
