using System.Text;
using Rlhf.Jobs;
using Rlhf.Simulation.Storage;
using Rlhf.Spec;

namespace Rlhf.Simulation.Parts;

/// <summary>The run that every simulation carries out: data, SFT, reward model, PPO in two slices, evaluation, promotion.</summary>
internal static class RunUnderTest
{
    public const string Id = "run";
    public const string Name = "sim";
    public const string Machine = "sim";

    /// <summary>Steps between checkpoints.</summary>
    public const int CheckpointEvery = 3;

    private const int Slice = 2;
    private const string Preferences = "inputs/preferences.jsonl";
    private const string Base = "inputs/base";

    public static RunSpec Spec { get; } = new()
    {
        Name = Name,
        Seed = 7,
        Data = new DataSpec
        {
            Preferences = [new DataFileSpec { File = Preferences }],
            ValidationFraction = 0.3,
            TestFraction = 0.3,
        },
        Model = new ModelSpec { Base = Base },
        Trainer = new TrainerSpec
        {
            Machine = Machine,
            CheckpointEverySteps = CheckpointEvery,
            HeartbeatSeconds = 8,
            PollSeconds = 10,
            StartTimeoutSeconds = 300,
            LostAfterSeconds = 60,
            WedgedAfterSeconds = 300,
        },
        Ppo = new PpoSpec { Iterations = 2 * Slice, IterationsPerSlice = Slice, Episodes = 8, MinibatchSize = 8 },
        // What the faults may cost: each trainer and each message that they take.
        Budget = new BudgetSpec { LostTrainers = 1000, StartTimeouts = 1000, CorruptCheckpoints = 1000, ErrorRetries = 1000 },
    };

    /// <summary>The results that a finished run has published, by the states of its jobs.</summary>
    public static IReadOnlyDictionary<string, int> ResultsOf { get; } = new Dictionary<string, int>
    {
        [Stages.Sft] = 1,
        [Stages.Reward] = 1,
        [Stages.Ppo] = Spec.Ppo.Iterations / Slice,
        [Stages.Evaluate] = 1,
    };

    public static int StepsOf(JobKind kind, RunSpec spec) => kind switch
    {
        JobKind.Sft => 7,
        JobKind.Reward => 5,
        JobKind.Ppo => spec.Ppo.Iterations,
        _ => 2,
    };

    /// <summary>Puts the run's inputs into storage.</summary>
    public static void Upload(BlobServer blobs)
    {
        var rows = new StringBuilder();
        for (int i = 0; i < 16; i++)
        {
            string prompt = $"\\n\\nHuman: What is number {i}?\\n\\nAssistant:";
            rows.Append($$"""{"chosen": "{{prompt}} It is {{i}}.", "rejected": "{{prompt}} No idea."}""").Append('\n');
        }

        blobs.Write(Preferences, Encoding.UTF8.GetBytes(rows.ToString()));
        blobs.Write($"{Base}/config.json", "{}"u8.ToArray());
        blobs.Write($"{Base}/model.safetensors", "the weights of the base model"u8.ToArray());
    }
}
