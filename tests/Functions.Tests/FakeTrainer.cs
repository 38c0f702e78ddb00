using System.Collections.Concurrent;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Spec;
using Rlhf.Storage;

namespace Rlhf.Functions.Tests;

/// <summary>How a fake attempt behaves. The default does everything right.</summary>
internal sealed record FakeBehaviour
{
    /// <summary>Steps of the job; of an online method the spec's iterations.</summary>
    public int Steps { get; init; } = 3;

    public TimeSpan StepTime { get; init; } = TimeSpan.FromMilliseconds(20);

    /// <summary>Falls silent before this step, as a killed process does.</summary>
    public int? DieAt { get; init; }

    /// <summary>After dying wakes up again, as a machine that was only suspended, and goes on as if nothing had happened.</summary>
    public Task? WakesAfter { get; init; }

    /// <summary>Goes on beating without ever making this step.</summary>
    public int? WedgeAt { get; init; }

    /// <summary>Ends before this step with <see cref="Error"/>, or, without one, as a machine that is taken away (Preempted).</summary>
    public int? EndAt { get; init; }

    public JobError? Error { get; init; }

    /// <summary>Goes on whatever it is told.</summary>
    public bool Deaf { get; init; }

    /// <summary>What the evaluation finds; SFT has 0.1.</summary>
    public double AlignedReward { get; init; } = 0.6;

    /// <summary>Summary metrics, above the default ones.</summary>
    public IReadOnlyDictionary<string, double> Metrics { get; init; } = new Dictionary<string, double>();
}

/// <summary>
/// A trainer that computes nothing but speaks the real protocol (<see cref="JobInbox"/>, <see cref="JobAttempt"/>) against real
/// storage. The models that it makes are folders with one small file.
/// </summary>
internal sealed class FakeTrainer : IAsyncDisposable
{
    private readonly CancellationTokenSource stop = new();
    private readonly StorageAccount storage;
    private readonly Func<JobAttempt, FakeBehaviour> behave;
    private readonly JobInbox inbox;
    private readonly Task loop;
    private readonly ConcurrentBag<Task> working = [];

    public FakeTrainer(StorageAccount storage, string machine, Func<JobAttempt, FakeBehaviour>? behave = null)
    {
        this.storage = storage;
        this.behave = behave ?? (_ => new FakeBehaviour());
        inbox = new JobInbox(storage.Blobs, storage.Queue(StorageAccount.JobQueue(machine)), storage.Queue(StorageAccount.PoisonQueue));
        loop = LoopAsync(machine);
    }

    /// <summary>Sends no hints.</summary>
    public bool IsSilent { get; init; }

    /// <summary>Attempts claimed, in their order.</summary>
    public ConcurrentQueue<(string Stage, int Fence)> Claims { get; } = [];

    /// <summary>Attempts that found themselves superseded.</summary>
    public ConcurrentQueue<(string Stage, int Fence)> Fenced { get; } = [];

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        try
        {
            await Task.WhenAll([loop, .. working]);
        }
        catch (OperationCanceledException)
        {
            // stopped
        }

        stop.Dispose();
    }

    private async Task LoopAsync(string machine)
    {
        await storage.EnsureCreatedAsync([StorageAccount.JobQueue(machine)], stop.Token);
        while (true)
        {
            if (await inbox.TryTakeAsync(stop.Token) is { } attempt)
            {
                Claims.Enqueue((attempt.Stage, attempt.Fence));
                working.Add(Task.Run(() => WorkAsync(attempt)));
            }
            else
            {
                await Task.Delay(100, stop.Token);
            }
        }
    }

    private async Task WorkAsync(JobAttempt attempt)
    {
        try
        {
            JobResult result = await RunAsync(attempt, behave(attempt));
            await attempt.FinishAsync(result, stop.Token);
            if (IsSilent)
                return;
            var hint = new JobEvent(attempt.RunId, attempt.Stage, attempt.Fence, result.Outcome);
            await storage.Queue(StorageAccount.EventsQueue).SendAsync(CasDocument.Serialize(hint).ToString(), stop.Token);
        }
        catch (FencedException)
        {
            Fenced.Enqueue((attempt.Stage, attempt.Fence));
        }
    }

    private async Task<JobResult> RunAsync(JobAttempt attempt, FakeBehaviour behaviour)
    {
        RunDocument run = (await storage.Blobs.ReadJsonAsync<RunDocument>(attempt.Spec.RunDocument, stop.Token))!;
        int total = run.Spec.Online() is { } online && attempt.Stage == Stages.Of(run.Spec.Method) ? online.Iterations : behaviour.Steps;
        int until = attempt.Spec.UntilStep ?? total;
        int step = (await attempt.ReadHeadAsync(stop.Token))?.Step ?? 0;
        long sequence = 0;
        while (step < until)
        {
            if (step + 1 == behaviour.DieAt)
                await (behaviour.WakesAfter ?? Task.Delay(Timeout.Infinite, stop.Token)).WaitAsync(stop.Token);
            DesiredState desired = await BeatAsync();
            while (step + 1 == behaviour.WedgeAt)
            {
                await Task.Delay(50, stop.Token);
                desired = await BeatAsync();
            }

            if (desired != DesiredState.Run && !behaviour.Deaf)
                return Result(desired == DesiredState.Cancel ? JobState.Cancelled : JobState.Paused);
            if (step + 1 == behaviour.EndAt)
                return Result(behaviour.Error is null ? JobState.Preempted : JobState.Failed) with { Error = behaviour.Error };

            await Task.Delay(behaviour.StepTime, stop.Token);
            step++;
            var metrics = new Dictionary<string, double> { ["loss"] = 1.0 / step, ["fence"] = attempt.Fence };
            var row = new MetricRow(attempt.Stage, step, 0.02, metrics);
            await attempt.AppendMetricsAsync(new BinaryData(CasDocument.Serialize(row) + "\n"), stop.Token);
            await attempt.PublishCheckpointAsync(
                new CheckpointManifest { RunId = attempt.RunId, Stage = attempt.Stage, Fence = attempt.Fence, Step = step, Parts = [] },
                stop.Token);
        }

        await BeatAsync();
        JobResult done = Result(step == total ? JobState.Succeeded : JobState.SliceDone);
        return done with
        {
            Models = await ModelsAsync(attempt, run, step),
            Artifacts = attempt.Spec.Kind == JobKind.Evaluate ? await EvaluationAsync(run.Spec.Method, behaviour.AlignedReward) : new Dictionary<string, ContentFile>(),
            Metrics = DefaultMetrics(attempt.Spec.Kind, step).Concat(behaviour.Metrics)
                .GroupBy(metric => metric.Key).ToDictionary(group => group.Key, group => group.Last().Value),
        };

        Task<DesiredState> BeatAsync() => attempt.BeatAsync(
            new Heartbeat
            {
                AttemptId = attempt.AttemptId,
                Fence = attempt.Fence,
                Sequence = ++sequence,
                Phase = "train",
                Step = step,
                TotalSteps = total,
                SecondsPerStep = behaviour.StepTime.TotalSeconds,
                CheckpointStep = step,
                Seconds = sequence,
                Metrics = new Dictionary<string, double> { ["loss"] = 1.0 / (step + 1) },
            },
            stop.Token);

        JobResult Result(JobState outcome) =>
            new() { Outcome = outcome, Step = step, TotalSteps = total, Seconds = sequence, OverheadSeconds = 0.25 };
    }

    private static Dictionary<string, double> DefaultMetrics(JobKind kind, int step) => kind switch
    {
        JobKind.Sft => new() { [DecisionMetrics.EosRate] = 0.95 },
        JobKind.Reward => new() { [DecisionMetrics.RewardAccuracy] = 0.72 },
        JobKind.Ppo or JobKind.Dpo or JobKind.Rloo or JobKind.Grpo => new()
        {
            [DecisionMetrics.Kl] = 0.5 * step,
            [DecisionMetrics.ProxyReward] = 0.1 * step,
            [DecisionMetrics.ProxyReward + DecisionMetrics.Ci95] = 0.05,
        },
        _ => [],
    };

    private async Task<Dictionary<string, ModelRef>> ModelsAsync(JobAttempt attempt, RunDocument run, int step)
    {
        if (attempt.Spec.Kind == JobKind.Evaluate)
            return [];
        ContentFile weights = await StoreAsync("model.safetensors", new BinaryData($"{run.Spec.Seed} {attempt.Stage} {step}"));
        ContentFile folder = await StoreAsync("manifest", CasDocument.Serialize(new FolderManifest([weights])));
        string role = attempt.Spec.Kind == JobKind.Pretrain ? ModelRoles.Base : attempt.Stage;
        return new() { [role] = new ModelRef(BlobLayout.Content(folder.Sha256), weights.Sha256) };
    }

    private async Task<Dictionary<string, ContentFile>> EvaluationAsync(PreferenceMethod method, double alignedReward)
    {
        var report = new EvaluationReport
        {
            Table =
            [
                new EvaluationRow("sft", "proxy_reward", 0.1, 20, 0.05),
                new EvaluationRow(Stages.Of(method), "proxy_reward", alignedReward, 20, 0.05),
            ],
            Samples = [new EvaluationSample("What is 1?", "One", "It is 1").WithAligned(method, "It is 1.")],
        };
        return new() { [ArtifactNames.Evaluation] = await StoreAsync(ArtifactNames.Evaluation, CasDocument.Serialize(report)) };
    }

    private async Task<ContentFile> StoreAsync(string name, BinaryData content)
    {
        string sha256 = CasDocument.Sha256(content);
        await storage.Blobs.TryCreateAsync(BlobLayout.Content(sha256), content, stop.Token);
        return new ContentFile(name, sha256, content.ToMemory().Length);
    }
}
