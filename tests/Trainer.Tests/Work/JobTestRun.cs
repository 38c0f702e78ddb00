using Rlhf.Jobs;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Storage;
using Rlhf.Tests;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using Rlhf.Trainer.Work;

namespace Rlhf.Trainer.Tests.Work;

/// <summary>A run of its own on the shared storage: spec, tiny base model and toy data, with both halves of the job protocol.</summary>
internal sealed class JobTestRun
{
    private static readonly string[] Things = ["sky", "sea", "grass", "leaf", "sun", "corn", "snow", "milk"];
    private static readonly string[] Colours = ["blue", "blue", "green", "green", "yellow", "yellow", "white", "white"];

    private readonly Dictionary<string, DatasetRef> _datasets = [];
    private readonly Dictionary<string, ModelRef> _models = [];

    private JobTestRun(AzuriteFixture azurite, RunSpec spec)
    {
        Azurite = azurite;
        Account = azurite.Account;
        Spec = spec;
        Log = new WorkerLog(TextWriter.Synchronized(Output));
        Patience = new Patience(Log);
        Blobs = new PatientBlobStore(Account.Blobs, Patience);
        Control = new JobControl(Blobs, Account.Queue);
    }

    public AzuriteFixture Azurite { get; }

    public StorageAccount Account { get; }

    /// <summary>The run's blobs, as the worker sees them: an emulator that restarts is waited for.</summary>
    public IBlobStore Blobs { get; }

    public RunSpec Spec { get; }

    public string RunId => Spec.RunId!;

    /// <summary>A queue that no other test reads.</summary>
    public string Machine => Spec.Trainer.Machine;

    public JobControl Control { get; }

    public StringWriter Output { get; } = new();

    public WorkerLog Log { get; }

    public Patience Patience { get; }

    /// <summary>Stores spec, data and base model under a fresh run id.</summary>
    public static async Task<JobTestRun> CreateAsync(AzuriteFixture azurite, Func<RunSpec, RunSpec>? change = null)
    {
        string id = Guid.NewGuid().ToString("N")[..12];
        var spec = new RunSpec
        {
            RunId = $"run-{id}",
            Name = "toy",
            Data = new DataSpec(),
            Model = new ModelSpec { Base = "toy", MaxPromptTokens = 24, MaxCompletionTokens = 8 },
            Trainer = new TrainerSpec { Machine = $"t{id}", Threads = 1, CheckpointEverySteps = 4, HeartbeatSeconds = 0.1 },
            Sft = new SftSpec { Epochs = 3, BatchSize = 4, LearningRate = 3e-3 },
            Reward = new RewardSpec { BatchSize = 4 },
            Ppo = new PpoSpec
            {
                Iterations = 4,
                IterationsPerSlice = 2,
                Episodes = 8,
                MinibatchSize = 4,
                Epochs = 1,
                MaxNewTokens = 6,
                ValidationPrompts = 8,
            },
            Evaluate = new EvaluateSpec { MaxPrompts = 16, MaxNewTokens = 6, BestOf = [2], FewShot = 1, Samples = 2 },
        };
        var run = new JobTestRun(azurite, change is null ? spec : change(spec));
        await run.StoreAsync();
        return run;
    }

    public JobSpec Job(JobKind kind, int? untilStep = null) => new()
    {
        Kind = kind,
        RunDocument = BlobLayout.RunDocument(RunId),
        Models = _models,
        Datasets = _datasets,
        UntilStep = untilStep,
    };

    /// <summary>Makes a model that a job has made an input of the jobs after it.</summary>
    public void Use(JobResult result)
    {
        foreach ((string role, ModelRef model) in result.Models)
            _models[role] = model;
    }

    /// <summary>A model that is an input of the next job.</summary>
    public ModelRef Model(string role) => _models[role];

    public Task<JobDocument> EnqueueAsync(string stage, int fence, JobSpec job) =>
        Control.EnqueueAsync(Machine, RunId, stage, fence, job, null, null, CancellationToken.None);

    public async Task<JobDocument> JobAsync(string stage) =>
        (await Blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(RunId, stage), CancellationToken.None))!;

    public JobInbox Inbox() => new(Blobs, Account.Queue(StorageAccount.JobQueue(Machine)), Account.Queue(StorageAccount.PoisonQueue));

    public async Task<JobAttempt> ClaimAsync() =>
        await Inbox().TryTakeAsync(CancellationToken.None) ?? throw new InvalidOperationException("No message waited.");

    /// <summary>Runs a claimed attempt in this process.</summary>
    public async Task<JobState?> RunAsync(JobAttempt attempt, CancellationToken preempted = default)
    {
        string cache = Directory.CreateTempSubdirectory("rlhf-cache-").FullName;
        try
        {
            var copies = new ContentCache(Blobs, Patience, cache);
            var runner = new StageRunner(
                Blobs, copies, new TorchBackend(copies, Log), Log, Path.Combine(cache, "scratch"), TimeProvider.System, TimeSpan.FromSeconds(25));
            return await runner.RunAsync(attempt, preempted, CancellationToken.None);
        }
        finally
        {
            Directory.Delete(cache, recursive: true);
        }
    }

    /// <summary>Enqueues, claims and runs one attempt in this process.</summary>
    public async Task<JobResult> RunAsync(string stage, JobSpec job, int fence = 1)
    {
        await EnqueueAsync(stage, fence, job);
        await RunAsync(await ClaimAsync());
        JobResult? result = (await JobAsync(stage)).Result;
        return result is { Error: null } ? result : throw new InvalidOperationException($"{result?.Error?.Message}\n{Output}");
    }

    private async Task StoreAsync()
    {
        string[] queues = [StorageAccount.JobQueue(Machine), StorageAccount.PoisonQueue, StorageAccount.EventsQueue];
        await Account.EnsureCreatedAsync(queues, CancellationToken.None);
        var document = new RunDocument(RunId, Spec, "", DateTimeOffset.UnixEpoch);
        await Blobs.WriteAsync(BlobLayout.RunDocument(RunId), CasDocument.Serialize(document), CancellationToken.None);

        Row[] demonstrations = [.. Things.Index().Select(thing => Demonstration(thing.Item, Colours[thing.Index]))];
        Row[] preferences = [.. Things.Index().Select(thing => Preference(thing.Item, Colours[thing.Index]))];
        Row[] prompts = [.. demonstrations.Select(row => row with { Completions = [] })];
        foreach ((string dataset, string split, Row[] rows) in (IEnumerable<(string, string, Row[])>)
        [
            (DatasetNames.Demonstrations, "train", demonstrations), (DatasetNames.Demonstrations, "validation", demonstrations[..2]),
            (DatasetNames.Preferences, "train", preferences), (DatasetNames.Preferences, "validation", preferences[..4]),
            (DatasetNames.Preferences, "test", preferences),
            (DatasetNames.Prompts, "train", prompts), (DatasetNames.Prompts, "validation", prompts),
            (DatasetNames.Evaluation, "test", prompts), (DatasetNames.FewShot, "train", demonstrations[..2]),
        ])
        {
            await StoreAsync(DatasetNames.Split(dataset, split), rows);
        }

        await StoreBaseAsync(demonstrations);
    }

    private async Task StoreAsync(string name, Row[] rows)
    {
        var content = BinaryData.FromString(string.Concat(rows.Select(row => CasDocument.Serialize(row).ToString() + "\n")));
        string path = BlobLayout.Data(RunId, name + ".jsonl");
        await Blobs.WriteAsync(path, content, CancellationToken.None);
        _datasets[name] = new DatasetRef(path, CasDocument.Sha256(content), rows.Length);
    }

    private async Task StoreBaseAsync(IEnumerable<Row> rows)
    {
        ByteLevelBpe tokenizer = ByteLevelBpe.Train(
            rows.Select(row => $"\n\nHuman: {row.Prompt[0].Content}\n\nAssistant: {row.Completions[0]}"),
            320, ["<|endoftext|>", "<|pad|>"]);
        using var model = new Transformer(ModelConfig.Llama(
            tokenizer.VocabularySize, hiddenSize: 32, layers: 2, heads: 2, keyValueHeads: 1, intermediateSize: 64, maxPositions: 64,
            eosId: tokenizer.EosId, padId: tokenizer.PadId));
        model.InitialiseWeights(7);
        string folder = Directory.CreateTempSubdirectory("rlhf-base-").FullName;
        HuggingFaceFolder.Save(folder, model, tokenizer);
        _models["base"] = await ModelExport.PublishFolderAsync(Blobs, folder, ModelExport.WeightsFile, CancellationToken.None);
        Directory.Delete(folder, recursive: true);
    }

    private static Row Demonstration(string thing, string colour) =>
        new() { Id = thing, Prompt = [new Turn("user", $"Colour of the {thing}?")], Completions = [$"It is {colour}."] };

    private static Row Preference(string thing, string colour)
    {
        string other = Colours.First(c => c != colour);
        return new Row
        {
            Id = thing,
            Prompt = [new Turn("user", $"Colour of the {thing}?")],
            Completions = [$"It is {other}.", $"It is {colour}."],
            Ranks = [2, 1],
            Subset = thing.Length > 3 ? "long" : "short",
        };
    }
}
