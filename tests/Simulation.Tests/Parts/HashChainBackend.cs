using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Simulation.Core;
using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Work;

namespace Rlhf.Simulation.Parts;

/// <summary>
/// Computes a chain of hashes where the trainer would compute weights: each step is SHA-256 of the state before and of the step, the first
/// state that of the job's inputs as they were read and verified. So the last state depends on every step and every input, and a step
/// that was left out, done twice, or begun from another state shows.
/// </summary>
internal sealed class HashChainBackend(SimProcess process, ContentCache cache, Ledger ledger) : IComputeBackend
{
    public void EnterThread(RunSpec spec)
    {
    }

    public void Wait(Task task) => SimThread.Current.Wait(task);

    public StageWork Build(JobSpec job, RunSpec spec, ICheckpointReader? resume, string scratch, CancellationToken cancellation)
    {
        var inputs = new StringBuilder($"{job.Kind} {spec.Seed}");
        foreach ((string role, ModelRef model) in job.Models.OrderBy(model => model.Key, StringComparer.Ordinal))
        {
            string folder = Read(cache.FolderAsync(model, cancellation));
            inputs.Append(role).Append(File.ReadAllText(Path.Combine(folder, ModelExport.WeightsFile)));
        }

        foreach ((string name, DatasetRef set) in job.Datasets.OrderBy(set => set.Key, StringComparer.Ordinal))
            inputs.Append(name).Append(ContentCache.Sha256Of(Read(cache.FileAsync(set.Path, set.Sha256, cancellation))));

        var chain = new HashChain(process, ledger, job.Kind, spec, inputs.ToString());
        ledger.Resumed(job.Kind, resume is CheckpointReader reader ? reader.Step : 0);
        return new StageWork
        {
            Method = chain,
            Model = job.Kind == JobKind.Evaluate ? null : new FinishedModel(RoleOf(job.Kind), chain.Export),
            WriteFiles = job.Kind == JobKind.Evaluate ? chain.WriteEvaluation : null,
        };
    }

    private static string RoleOf(JobKind kind) => kind switch
    {
        JobKind.Sft => ModelRoles.Sft,
        JobKind.Reward => ModelRoles.Reward,
        JobKind.Ppo => ModelRoles.Ppo,
        _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, "The simulated run has no such stage."),
    };

    private T Read<T>(Task<T> task)
    {
        Wait(task);
        return task.GetAwaiter().GetResult();
    }

    /// <summary>The method: a state of 32 bytes.</summary>
    private sealed class HashChain(SimProcess process, Ledger ledger, JobKind kind, RunSpec spec, string inputs) : ITrainingMethod
    {
        private const string Part = "state";
        private string state = Next(inputs, 0);

        public int Step { get; private set; }

        public int TotalSteps => RunUnderTest.StepsOf(kind, spec);

        public IReadOnlyDictionary<string, double> Advance()
        {
            SimThread.Current.Compute(process.World.Between(1, 5));
            Step++;
            state = Next(state, Step);
            ledger.Stepped(kind, Step);
            return new Dictionary<string, double> { ["loss"] = 1.0 / Step };
        }

        public void Save(ICheckpointWriter checkpoint) => checkpoint.WriteState(Part, new State(Step, state));

        public void Load(ICheckpointReader checkpoint) => (Step, state) = checkpoint.ReadState<State>(Part);

        public IReadOnlyDictionary<string, double> Summary() => kind switch
        {
            JobKind.Sft => new Dictionary<string, double> { [DecisionMetrics.EosRate] = 1 },
            JobKind.Reward => new Dictionary<string, double> { [DecisionMetrics.RewardAccuracy] = 0.75 },
            JobKind.Ppo => new Dictionary<string, double>
            {
                [DecisionMetrics.Kl] = 0.1 * Step,
                [DecisionMetrics.ProxyReward] = 0.1 * Step,
            },
            _ => new Dictionary<string, double>(),
        };

        public void Export(string folder)
        {
            File.WriteAllText(Path.Combine(folder, "config.json"), "{}");
            File.WriteAllText(Path.Combine(folder, ModelExport.WeightsFile), state);
        }

        public void WriteEvaluation(string folder)
        {
            var report = new EvaluationReport
            {
                Table = [new EvaluationRow("ppo", "proxy_reward", 0.5, 1, 0)],
                Samples = [],
                Notes = [state],
            };
            File.WriteAllBytes(
                Path.Combine(folder, ArtifactNames.Evaluation), JsonSerializer.SerializeToUtf8Bytes(report, RlhfJson.Indented));
        }

        public void Dispose()
        {
        }

        private static string Next(string before, int step) =>
            Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{before} {step}")));

        private sealed record State(int Step, string Hash);
    }
}
