using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Shared.Tests.Jobs;

/// <summary>The tests that share one storage emulator.</summary>
[CollectionDefinition(Name)]
public sealed class AzuriteTests : ICollectionFixture<AzuriteFixture>
{
    public const string Name = "azurite";
}

/// <summary>One stage of a run of its own, with a queue that no other test reads, seen from both sides of the protocol.</summary>
internal sealed class TestJob
{
    public const string Stage = "sft";

    private readonly StorageAccount account;
    private readonly string machine = Guid.NewGuid().ToString("N")[..16];

    public TestJob(AzuriteFixture azurite)
    {
        account = azurite.Account;
        Control = new JobControl(Blobs, account.Queue);
    }

    public string RunId { get; } = $"run-{Guid.NewGuid():N}";

    public IBlobStore Blobs => account.Blobs;

    public IMessageQueue Queue => account.Queue(QueueName);

    public string QueueName => StorageAccount.JobQueue(machine);

    public JobControl Control { get; }

    public JobInbox Inbox => new(Blobs, Queue, account.Queue(PoisonQueueName));

    public string PoisonQueueName => QueueName + "-poison";

    public JobSpec Spec { get; } = new() { Kind = JobKind.Sft, RunDocument = "runs/x/run.json" };

    public static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public static JobMessage Message(TestJob job, int fence) => new(1, job.RunId, Stage, fence);

    public Task<JobDocument> EnqueueAsync(int fence, string? outcome = null, string? reason = null) =>
        Control.EnqueueAsync(machine, RunId, Stage, fence, Spec, outcome, reason, Cancellation);

    public Task<JobDocument> EnqueueAsync(JobControl control, int fence) =>
        control.EnqueueAsync(machine, RunId, Stage, fence, Spec, null, null, Cancellation);

    public async Task<JobAttempt> ClaimAsync() =>
        await Inbox.TryTakeAsync(Cancellation) ?? throw new InvalidOperationException("No message led to a claim.");

    public async Task<JobDocument> ReadAsync() => (await Blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(RunId, Stage), Cancellation))!;

    public Task<Head?> HeadAsync() => Blobs.ReadJsonAsync<Head>(BlobLayout.Head(RunId, Stage), Cancellation);

    public CheckpointManifest Manifest(JobAttempt attempt, int step) =>
        new() { RunId = RunId, Stage = Stage, Fence = attempt.Fence, Step = step, Parts = [new ContentFile("policy", new string('0', 64), 1)] };

    public static Heartbeat Beat(JobAttempt attempt, long sequence, int step = 0, double seconds = 0) =>
        new() { AttemptId = attempt.AttemptId, Fence = attempt.Fence, Sequence = sequence, Phase = "train", Step = step, TotalSteps = 100, Seconds = seconds };
}
