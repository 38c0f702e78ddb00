using Microsoft.Azure.Functions.Worker;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Rows.Flan;
using Rlhf.Spec;
using Rlhf.Storage;

namespace Rlhf.Functions.Activities;

/// <summary>Data preparation for instruction tuning in FLAN's way: from task files and templates to the run's data sets.</summary>
public sealed class FlanActivities(IBlobStore blobs)
{
    /// <summary>Dropped lines that a report names; the others are counted.</summary>
    private const int NamedDrops = 100;

    /// <summary>
    /// Reads every task, fills templates, and writes demonstrations of the seen clusters (and their text, where the run pretrains), and for
    /// every task the examples kept for the evaluation, as comparisons of all their options. Equal specs give equal bytes.
    /// </summary>
    [Function(nameof(MixFlanTasks))]
    public async Task<IReadOnlyDictionary<string, DatasetRef>> MixFlanTasks(
        [ActivityTrigger] RunDocument run, CancellationToken cancellation)
    {
        FlanSpec spec = run.Spec.Data.Flan!;
        FlanTemplates templates = await ReadAsync(
            "data.flan.templates", spec.Templates, content => FlanTemplates.ReadAsync(spec.Templates, content, cancellation), cancellation);
        var tasks = new List<FlanTask>();
        var files = new List<DataFileReport>();
        foreach ((int index, FlanTaskSpec task) in spec.Tasks.Index())
        {
            string field = $"data.flan.tasks[{index}]";
            (FlanTask read, DataFileReport report) = await ReadAsync(
                field, task.File, content => ReadTaskAsync(field, task, content, templates, cancellation), cancellation);
            tasks.Add(read);
            files.Add(report);
        }

        var mixture = FlanMixture.Of(spec, tasks, run.Spec.Seed);
        using var writer = new DatasetWriter(blobs, run);
        // By their hash, so that the first n prompts are a fair sample of all tasks.
        foreach (Row row in mixture.Comparisons.OrderBy(row => row.Id, StringComparer.Ordinal))
        {
            writer.Reserve(row);
            writer.Add(DatasetNames.Comparisons, "test", row);
            writer.Add(DatasetNames.Evaluation, "test", DatasetRows.Prompt(row));
        }

        foreach (Row row in run.Spec.Pretrain is null ? [] : mixture.Text)
            writer.AddTraining(DatasetNames.Text, row);
        foreach (Row row in mixture.Demonstrations)
            writer.AddTraining(DatasetNames.Demonstrations, row);
        return await writer.FinishAsync(files, cancellation);
    }

    private static async Task<(FlanTask Task, DataFileReport Report)> ReadTaskAsync(
        string field, FlanTaskSpec task, Stream content, FlanTemplates templates, CancellationToken cancellation)
    {
        var examples = new List<FlanExample>();
        var dropped = new List<DroppedRow>();
        int droppedCount = 0, lines = 0;
        await foreach (FlanResult line in FlanTaskFile.ReadAsync(task.File, content, task.Labels, cancellation))
        {
            lines = line.Line;
            if (line.Example is { } example)
                examples.Add(example);
            else if (droppedCount++ < NamedDrops)
                dropped.Add(new DroppedRow(line.Line, line.Reason!));
        }

        if (examples.Count == 0)
        {
            string why = dropped.Count == 0 ? "it is empty" : $"line {dropped[0].Line} {dropped[0].Reason}";
            throw new UnusableInputException($"{field}: the file '{task.File}' has no usable line: {why}.");
        }

        string name = task.Name ?? RowReader.SubsetOf(task.File);
        return (
            new FlanTask(name, task, examples, templates.Of(task.Templates)),
            new DataFileReport(task.File, "flan", lines, examples.Count, dropped, droppedCount));
    }

    private async Task<T> ReadAsync<T>(string field, string file, Func<Stream, Task<T>> read, CancellationToken cancellation)
    {
        try
        {
            await using Stream content = await blobs.OpenReadAsync(file, cancellation);
            return await read(content);
        }
        catch (FileNotFoundException)
        {
            throw new UnusableInputException(
                $"{field}: there is no file '{file}'. Upload it to the container under that name, or correct the name.");
        }
        catch (UnreadableFileException e)
        {
            throw new UnusableInputException($"{field}: {e.Message}");
        }
    }
}
