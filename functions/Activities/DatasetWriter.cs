using System.Globalization;
using System.Text.Json;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Storage;

namespace Rlhf.Functions.Activities;

/// <summary>
/// Splits rows by their prompt's hash and writes the run's data sets. The hash alone decides, so a prompt lies on the same side in every
/// data set and in every run: what one run was tested on, a later run is not trained on.
/// </summary>
internal sealed class DatasetWriter(IBlobStore blobs, RunDocument run) : IDisposable
{
    /// <summary>Longest worked example, in words: several of them must fit before a prompt.</summary>
    private const int FewShotWords = 60;

    private readonly SortedDictionary<string, SpooledRows> splits = new(StringComparer.Ordinal);
    private readonly Dictionary<string, HashSet<string>> seen = [];
    private readonly HashSet<string> testPrompts = [];
    private readonly SortedDictionary<string, int> duplicates = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, int> heldOut = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, SortedDictionary<int, int>> lengths = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, Row> fewShot = new(StringComparer.Ordinal);

    private DataSpec Data => run.Spec.Data;

    /// <summary>The share of prompts that the hash gives to the test; 0 where files are marked for it.</summary>
    private double TestFraction => Data.Preferences.Any(file => file.Split == FileSplit.Test) ? 0 : Data.TestFraction;

    /// <summary>True for a row of a training file that the hash gives to the test.</summary>
    public bool IsTestByHash(Row row) => Share(row) < TestFraction;

    /// <summary>True for a ranking by a labeller whom the reward model must not see.</summary>
    public bool IsByUnseenLabeller(Row row) => row.Labeller is { } labeller && Data.HeldOutLabellers.Contains(labeller);

    /// <summary>Keeps a prompt out of all training data.</summary>
    public void Reserve(Row row) => testPrompts.Add(row.PromptKey);

    /// <summary>True when the row's prompt is kept for test or evaluation.</summary>
    public bool IsReserved(Row row) => testPrompts.Contains(row.PromptKey);

    /// <summary>Adds a row to a data set's training or validation split, unless its prompt is reserved.</summary>
    public void AddTraining(string dataset, Row row)
    {
        if (IsReserved(row))
            Increment(heldOut, dataset);
        else
            Add(dataset, TrainingSplit(dataset, row), row);
    }

    /// <summary>Adds a row to one split; a row that its data set already has counts as a duplicate.</summary>
    public void Add(string dataset, string split, Row row)
    {
        if (dataset is DatasetNames.Prompts or DatasetNames.Evaluation && row.Reference is null
            && run.Spec.Rewards.Any(source => source.Source == RewardSourceKind.ExactMatch))
        {
            string prompt = row.Prompt[^1].Content;
            throw new UnusableInputException(
                $"data.{dataset}: the prompt '{(prompt.Length <= 60 ? prompt : prompt[..60] + " ...")}' has no reference answer, which the "
                + $"reward 'exactMatch' compares with. List rows with an answer under data.{dataset}.");
        }

        if (!seen.TryGetValue(dataset, out HashSet<string>? rows))
            seen[dataset] = rows = [];
        if (!rows.Add(DatasetRows.Identity(row)))
        {
            Increment(duplicates, dataset);
            return;
        }

        Split(dataset, split).Add(row);
        int words = DatasetRows.Words(row);
        if (!lengths.TryGetValue(dataset, out SortedDictionary<int, int>? bins))
            lengths[dataset] = bins = [];
        int edge = (int)Math.Min(int.MaxValue, System.Numerics.BitOperations.RoundUpToPowerOf2((uint)Math.Max(1, words)));
        bins[edge] = bins.GetValueOrDefault(edge) + 1;
        if (dataset == DatasetNames.Demonstrations && split == "train" && words <= FewShotWords)
            Example(row);
    }

    /// <summary>Rows of a split so far.</summary>
    public int Rows(string dataset, string split) => splits.TryGetValue(DatasetNames.Split(dataset, split), out SpooledRows? rows) ? rows.Count : 0;

    /// <summary>Writes every data set and the report.</summary>
    /// <exception cref="UnusableInputException">A data set that a stage needs is empty.</exception>
    public async Task<IReadOnlyDictionary<string, DatasetRef>> FinishAsync(
        IReadOnlyList<DataFileReport> files, CancellationToken cancellation)
    {
        if (!splits.ContainsKey(DatasetNames.Split(DatasetNames.FewShot, "train")))
        {
            foreach (Row example in fewShot.Values)
                Split(DatasetNames.FewShot, "train").Add(example);
        }

        // Data sets that jobs ask for exist even when they are empty.
        foreach (string name in Needed())
            _ = Split(name);
        CheckNotEmpty();

        var made = new SortedDictionary<string, DatasetRef>(StringComparer.Ordinal);
        foreach ((string name, SpooledRows rows) in splits)
            made[name] = await rows.StoreAsync(blobs, BlobLayout.Data(run.RunId, $"{name}.jsonl"), cancellation);
        var report = new DataReport
        {
            Files = files,
            Rows = made.ToDictionary(set => set.Key, set => set.Value.Rows),
            Duplicates = duplicates,
            HeldOut = heldOut,
            Lengths = lengths.ToDictionary(
                set => set.Key,
                set => (IReadOnlyDictionary<string, int>)set.Value.ToDictionary(
                    bin => bin.Key.ToString(CultureInfo.InvariantCulture), bin => bin.Value)),
        };
        var json = new BinaryData(JsonSerializer.SerializeToUtf8Bytes(report, RlhfJson.Indented));
        await blobs.TryCreateAsync(BlobLayout.Data(run.RunId, DataActivities.ReportName), json, cancellation);
        return made;
    }

    public void Dispose()
    {
        foreach (SpooledRows rows in splits.Values)
            rows.Dispose();
    }

    private string TrainingSplit(string dataset, Row row)
    {
        double share = Share(row);
        if (share >= TestFraction && share < TestFraction + Data.ValidationFraction)
            return "validation";
        // The hash's last bit: it knows nothing of the first ones, which the share is made of.
        bool heldOut = dataset == DatasetNames.Preferences && run.Spec.Evaluate.HeldOutRewardModel && Convert.ToByte(row.PromptKey[^2..], 16) % 2 == 1;
        return heldOut ? DatasetNames.HeldOutReward : "train";
    }

    /// <summary>The prompt's place in [0, 1), by its hash.</summary>
    private static double Share(Row row) =>
        ulong.Parse(row.PromptKey, NumberStyles.HexNumber, CultureInfo.InvariantCulture) / (ulong.MaxValue + 1.0);

    private static void Increment(SortedDictionary<string, int> counts, string name) => counts[name] = counts.GetValueOrDefault(name) + 1;

    private static IEnumerable<string> Needed() =>
    [
        DatasetNames.Split(DatasetNames.Demonstrations, "train"), DatasetNames.Split(DatasetNames.Demonstrations, "validation"),
        DatasetNames.Split(DatasetNames.Preferences, "train"), DatasetNames.Split(DatasetNames.Preferences, "validation"),
        DatasetNames.Split(DatasetNames.Preferences, "test"), DatasetNames.Split(DatasetNames.Prompts, "train"),
        DatasetNames.Split(DatasetNames.Prompts, "validation"), DatasetNames.Split(DatasetNames.Evaluation, "test"),
        DatasetNames.Split(DatasetNames.FewShot, "train"),
    ];

    /// <summary>Keeps as worked examples the few demonstrations with the smallest ids: a choice that no order of files changes.</summary>
    private void Example(Row row)
    {
        fewShot[row.Id] = row;
        if (fewShot.Count > run.Spec.Evaluate.FewShot)
            fewShot.Remove(fewShot.Keys.Last());
    }

    private SpooledRows Split(string dataset, string split) => Split(DatasetNames.Split(dataset, split));

    private SpooledRows Split(string name)
    {
        if (!splits.TryGetValue(name, out SpooledRows? rows))
            splits[name] = rows = new SpooledRows();
        return rows;
    }

    private void CheckNotEmpty()
    {
        RunSpec spec = run.Spec;
        const string more = "give more rows";
        (string Dataset, string Split, bool Needed, string Remedy)[] rules =
        [
            (DatasetNames.Text, "train", spec.Pretrain is not null, "list files under data.text or data.demonstrations"),
            (DatasetNames.Demonstrations, "train", spec.Sft.Epochs > 0, more),
            (DatasetNames.Preferences, "train", spec.Aligns(), more),
            (DatasetNames.Preferences, DatasetNames.HeldOutReward, spec.Aligns() && spec.Evaluate.HeldOutRewardModel,
                $"{more}, or set evaluate.heldOutRewardModel to false"),
            (DatasetNames.Preferences, "validation", spec.Gates.MinRewardAccuracy is not null,
                $"{more}, raise data.validationFraction, or remove gates.minRewardAccuracy"),
            (DatasetNames.Preferences, "test", spec.Aligns(), $"{more}, raise data.testFraction, or mark a file with split: test"),
            (DatasetNames.Prompts, "train", spec.Aligns() && spec.Online() is not null, more),
            (DatasetNames.Prompts, "validation", spec.Aligns() && spec.Answers().ValidationPrompts > 0,
                $"{more}, raise data.validationFraction, or set {Stages.Of(spec.Method)}.validationPrompts to 0"),
            (DatasetNames.Evaluation, "test", true, $"{more}, raise data.testFraction, or list files under data.evaluation"),
        ];
        foreach ((string dataset, string split, bool needed, string remedy) in rules)
        {
            if (needed && Split(dataset, split).Count == 0)
                throw new UnusableInputException($"The data set '{dataset}' has no rows left for its split '{split}': {remedy}.");
        }
    }
}
