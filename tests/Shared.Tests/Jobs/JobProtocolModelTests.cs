using FsCheck;
using FsCheck.Fluent;
using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Shared.Tests.Jobs;

/// <summary>
/// Both halves of the job protocol in random order, by actors with random fences, who die at random requests and whose steps come again:
/// whatever they do, the rules of docs/architecture.md hold after each step.
/// </summary>
public sealed class JobProtocolModelTests
{
    private static readonly JobState[] Outcomes =
        [JobState.SliceDone, JobState.SliceDone, JobState.Failed, JobState.Preempted, JobState.Paused, JobState.Succeeded];

    [Fact]
    public void No_order_of_steps_and_deaths_breaks_a_rule()
    {
        Gen<string> what = Gen.Elements(
            "enqueue", "enqueue", "enqueue", "claim", "claim", "claim", "beat", "publish", "publish", "publish", "finish", "request", "shut out");
        Gen<Step> step =
            from kind in what
            from who in Gen.Choose(0, 5)
            from value in Gen.Choose(0, 5)
            from dies in Gen.Choose(-12, 5)
            from after in Gen.Elements(true, false)
            select new Step(kind, who, value, dies, after);
        int succeeded = 0, highest = 0, refused = 0;
        Prop.ForAll(step.ArrayOf(50).ToArbitrary(), steps =>
        {
            var job = new Job();
            foreach (Step next in steps)
                job.Take(next);
            succeeded += job.IsOver ? 1 : 0;
            highest = Math.Max(highest, job.Fence);
            refused += job.Refused;
            return true;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(150).WithQuietOnSuccess(true));

        // The steps must get somewhere, or the rules hold of nothing.
        Assert.InRange(succeeded, 5, 145);
        Assert.InRange(highest, 5, 50);
        Assert.InRange(refused, 50, 7_500);
    }

    /// <summary>One step of one actor.</summary>
    /// <param name="What">What is done.</param>
    /// <param name="Who">Which attempt does it.</param>
    /// <param name="Value">A choice within it.</param>
    /// <param name="Dies">The request at which the actor dies; below 0 it lives.</param>
    /// <param name="After">It dies after the request's effect.</param>
    private sealed record Step(string What, int Who, int Value, int Dies, bool After);

    /// <summary>A stage's job, everyone who ever claimed it, and what must stay true of it.</summary>
    private sealed class Job
    {
        private const string RunId = "r", Stage = "sft";
        private readonly MemoryBlobs _blobs = new();
        private readonly JobControl _control;
        private readonly List<JobAttempt> _attempts = [];
        private readonly Dictionary<int, string> _holders = [];
        private JobDocument? _job;
        private Head? _head;
        private int _claims;

        public Job() => _control = new JobControl(_blobs, _ => new NoQueue());

        public bool IsOver => _job?.State is JobState.Succeeded or JobState.Cancelled;

        public int Fence => _job?.Fence ?? 0;

        public int Refused { get; private set; }

        public void Take(Step step)
        {
            JobAttempt? actor = _attempts.Count == 0 ? null : _attempts[^(1 + (step.Who % _attempts.Count))];
            _blobs.DieAt(step.Dies, step.After);
            bool fenced = false;
            try
            {
                DoAsync(step, actor).GetAwaiter().GetResult();
            }
            catch (DiedException)
            {
                // What it has done stays; what it had yet to do does not happen, unless the step comes again.
            }
            catch (FencedException)
            {
                fenced = true;
                Refused++;
            }
            catch (CorruptBlobException) when (step.What == "enqueue" && FenceOf(step) > Fence + 1)
            {
                // No fence is skipped.
            }

            _blobs.DieAt(-1, false);
            Check(step, actor, fenced);
        }

        private Task DoAsync(Step step, JobAttempt? actor)
        {
            switch (step.What)
            {
                case "enqueue":
                    return _control.EnqueueAsync(
                        "local", RunId, Stage, FenceOf(step), new JobSpec { Kind = JobKind.Sft, RunDocument = "d" }, null, null, CancellationToken.None);
                case "claim":
                    return ClaimAsync(Math.Max(1, Fence - (step.Value % 3)));
                case "request":
                    return _control.RequestAsync(RunId, Stage, step is { Value: 5, Who: < 2 } ? DesiredState.Cancel : (DesiredState)(step.Value / 2 % 2 * 2), CancellationToken.None);
                case "shut out" when step is { Value: 5, Who: 5 }:
                    return _control.CancelUnresponsiveAsync(RunId, Stage, CancellationToken.None);
            }

            return (actor, step.What) switch
            {
                ({ } a, "beat") => a.BeatAsync(
                    new Heartbeat { AttemptId = a.AttemptId, Fence = a.Fence, Sequence = step.Value, Phase = "train" }, CancellationToken.None),
                // An attempt goes on from the head, so its steps rise; the same step may come again.
                ({ } a, "publish") => a.PublishCheckpointAsync(
                    new CheckpointManifest { RunId = RunId, Stage = Stage, Fence = a.Fence, Step = (_head?.Step ?? 0) + (step.Value % 3), Parts = [] },
                    CancellationToken.None),
                ({ } a, "finish") => a.FinishAsync(new JobResult { Outcome = Outcomes[step.Value], Step = step.Who }, CancellationToken.None),
                _ => Task.CompletedTask,
            };
        }

        /// <summary>The next fence, the present one again, or one that is late or comes too early.</summary>
        private int FenceOf(Step step) => Math.Max(1, Fence + (step.Value < 4 ? 1 : step.Who - 3));

        private async Task ClaimAsync(int fence)
        {
            string id = $"attempt-{_claims++ / 2}"; // every second one is the one before it, once more
            if (await JobAttempt.TryClaimAsync(_blobs, new JobMessage(1, RunId, Stage, fence), id, CancellationToken.None) is not { } attempt)
                return;
            Hold(fence, id);
            _attempts.Add(attempt);
        }

        /// <summary>One holder a fence.</summary>
        private void Hold(int fence, string id)
        {
            _holders.TryAdd(fence, id);
            Assert.Equal(_holders[fence], id);
        }

        private void Check(Step step, JobAttempt? actor, bool fenced)
        {
            (JobDocument? before, Head? headBefore) = (_job, _head);
            (_job, _head) = (Read<JobDocument>(BlobLayout.Job(RunId, Stage)), Read<Head>(BlobLayout.Head(RunId, Stage)));
            bool changed = !Same(before, _job), moved = _head?.Manifest != headBefore?.Manifest || _head?.Fence != headBefore?.Fence;

            Assert.InRange(_job?.Fence ?? 0, before?.Fence ?? 0, (before?.Fence ?? 0) + 1);
            Assert.True(_head?.SealedBy >= headBefore?.SealedBy || headBefore is null);
            Assert.True(_head?.Fence >= headBefore?.Fence || headBefore is null);
            Assert.True(_head?.Step >= headBefore?.Step || headBefore is null);
            if (before?.State is JobState.Succeeded or JobState.Cancelled)
                Assert.False(changed, "a final state must stay");
            if (fenced)
                Assert.False(changed || moved, "who is refused must change nothing");
            if (_job?.AttemptId is { } holder)
                Hold(_job.Fence, holder);
            foreach (AttemptRecord record in (_job?.History ?? []).Where(record => record.AttemptId is not null))
                Hold(record.Fence, record.AttemptId!);
            Assert.Equal(Enumerable.Range(1, Math.Max(0, Fence - 1)), (_job?.History ?? []).Select(record => record.Fence));

            if (moved && step.What == "publish")
                Assert.True(actor!.Fence == before!.Fence && actor.AttemptId == before.AttemptId && actor.Fence >= (headBefore?.SealedBy ?? 0));
            else
                Assert.Equal(headBefore?.Manifest, _head?.Manifest);
            if (before is not null && _job!.Fence == before.Fence && before.State is not (JobState.Queued or JobState.Running))
                Assert.True(_job.State == before.State || _job.State == JobState.Cancelled, $"{before.State} became {_job.State} under one fence");
            if (_job?.Result is not null && before?.Result is null)
                Assert.True(step.What == "finish" && actor!.AttemptId == before!.AttemptId && before.State == JobState.Running);
        }

        private T? Read<T>(string path)
            where T : class => _blobs.Peek(path) is { } content ? CasDocument.Parse<T>(path, content) : null;

        private static bool Same(JobDocument? a, JobDocument? b) =>
            a is null == b is null && (a is null || CasDocument.Sha256(CasDocument.Serialize(a)) == CasDocument.Sha256(CasDocument.Serialize(b!)));
    }

    /// <summary>Messages are claimed by their fence, delivered or not: the queue may do as it likes.</summary>
    private sealed class NoQueue : IMessageQueue
    {
        public Task SendAsync(string text, CancellationToken cancellation) => Task.CompletedTask;

        public Task<QueueDelivery?> ReceiveAsync(TimeSpan visibility, CancellationToken cancellation) => Task.FromResult<QueueDelivery?>(null);

        public Task DeleteAsync(QueueDelivery delivery, CancellationToken cancellation) => Task.CompletedTask;
    }
}
