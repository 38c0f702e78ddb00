using System.Globalization;
using Rlhf.Jobs;
using Rlhf.Spec;
using Rlhf.Storage;
using Rlhf.Trainer.Methods;

namespace Rlhf.Trainer.Work;

/// <summary>
/// One attempt from its claim to its result: load and verify the inputs, resume from the newest intact checkpoint, step until the slice
/// or stage is done or something asks to stop, checkpoint, export.
/// </summary>
/// <param name="blobs">The container.</param>
/// <param name="cache">Verified copies of its blobs.</param>
/// <param name="backend">What the jobs compute with.</param>
/// <param name="log">Where it says what it does.</param>
/// <param name="scratchDirectory">For each attempt's own files.</param>
/// <param name="clock">Measures beats and steps.</param>
/// <param name="grace">The time that a step has to end once the job has gone on without its attempt.</param>
internal sealed class StageRunner(
    IBlobStore blobs, ContentCache cache, IComputeBackend backend, WorkerLog log, string scratchDirectory, TimeProvider clock, TimeSpan grace)
{
    private KeptSlice? _kept;

    /// <summary>Runs the attempt and records how it ended.</summary>
    /// <param name="attempt">The claimed attempt.</param>
    /// <param name="preempted">Cancelled when the machine goes away: the attempt stops after its step and leaves a checkpoint.</param>
    /// <param name="cancellation">Cancelled when there is no time left even for that.</param>
    /// <returns>The job's state; null where the job has gone on without this attempt.</returns>
    /// <exception cref="WedgedStepException">It has, and the step does not end: the process can do no more than end itself.</exception>
    public async Task<JobState?> RunAsync(JobAttempt attempt, CancellationToken preempted, CancellationToken cancellation)
    {
        string name = $"{attempt.RunId}/{attempt.Stage}#{attempt.Fence}";
        var progress = new AttemptProgress(attempt.Stage, clock);
        string scratch = Path.Combine(scratchDirectory, attempt.AttemptId);
        log.Line($"{name} claimed ({attempt.Spec.Kind.ToString().ToLowerInvariant()})");
        try
        {
            JobResult result = await RunAsync(attempt, progress, scratch, preempted, cancellation);
            log.Line(result.Error is { } error
                ? $"{name} failed ({error.Kind}): {error.Message} {error.Remedy}"
                : string.Create(CultureInfo.InvariantCulture,
                    $"{name} {result.Outcome} at step {result.Step}/{result.TotalSteps} after {result.Seconds:0.0} s")
                + string.Create(CultureInfo.InvariantCulture, $" ({result.OverheadSeconds:0.0} s of them not computing)")
                + $", memory at most {MemoryEstimate.Text(result.PeakMemoryBytes)}");
            return result.Outcome;
        }
        catch (FencedException)
        {
            log.Line($"{name} was superseded and stops without a trace");
            return null;
        }
        catch (Exception e) when (e is not WedgedStepException && !cancellation.IsCancellationRequested)
        {
            // Not even its end could be recorded (access withdrawn, a damaged job.json): to the orchestrator the attempt is lost.
            log.Line($"{name} could not record its end: {e}");
            return null;
        }
        finally
        {
            if (Directory.Exists(scratch))
                Directory.Delete(scratch, recursive: true);
        }
    }

    private async Task<JobResult> RunAsync(
        JobAttempt attempt, AttemptProgress progress, string scratch, CancellationToken preempted, CancellationToken cancellation)
    {
        // The heart beats until the result stands, so that slow loading or a slow ending is not taken for a loss.
        await using HeartbeatLoop heartbeat = HeartbeatLoop.Start(attempt, progress, log, clock, grace, cancellation);
        JobResult result;
        try
        {
            RunDocument run = await blobs.ReadJsonAsync<RunDocument>(attempt.Spec.RunDocument, cancellation)
                ?? throw new CorruptBlobException(attempt.Spec.RunDocument, "it is missing");
            heartbeat.Interval = TimeSpan.FromSeconds(run.Spec.Trainer.HeartbeatSeconds);
            KeptSlice? before = Interlocked.Exchange(ref _kept, null);
            RunSpec spec = run.Spec with { RunId = run.RunId }; // the document keeps the id beside the spec
            var execution = new Execution(
                blobs, cache, backend, log, attempt, spec, progress, heartbeat, before, scratch, clock, preempted, cancellation);
            // A thread of its own: libtorch keeps its number of threads, its gradient mode and TorchSharp its dispose scopes by thread.
            (result, _kept) = await Task.Factory
                .StartNew(execution.Run, cancellation, TaskCreationOptions.LongRunning, TaskScheduler.Current)
                .WaitAsync(heartbeat.Overdue);
        }
        catch (OperationCanceledException) when (heartbeat.Overdue.IsCancellationRequested && !cancellation.IsCancellationRequested)
        {
            throw new WedgedStepException(attempt, progress.Result(JobState.Failed).Step, grace);
        }
        catch (Exception e) when (e is not FencedException && !cancellation.IsCancellationRequested)
        {
            JobError error = JobErrors.Describe(e, attempt);
            if (error.Kind == JobErrorKind.Internal)
                log.Line(e.ToString());
            if (error.Kind == JobErrorKind.DiskFull)
                cache.Clear(); // for the next attempt
            result = progress.Result(JobState.Failed) with { Error = error };
        }

        result = result with { PeakMemoryBytes = backend.PeakMemoryBytes };
        try
        {
            await heartbeat.FlushMetricsAsync(cancellation);
        }
        catch (CorruptBlobException) when (result.Error is not null)
        {
            // The attempt has failed, perhaps of this very thing: that is to be recorded all the same.
        }

        await attempt.FinishAsync(result, cancellation);
        return result;
    }

    /// <summary>A slice's work as its last checkpoint left it, kept for the next slice of the same job.</summary>
    private sealed record KeptSlice(JobSpec Job, Checkpoints Checkpoints, StageWork Work);

    /// <summary>The attempt's computation, on one thread.</summary>
    private sealed class Execution(
        IBlobStore blobs,
        ContentCache cache,
        IComputeBackend backend,
        WorkerLog log,
        JobAttempt attempt,
        RunSpec spec,
        AttemptProgress progress,
        HeartbeatLoop heartbeat,
        KeptSlice? before,
        string scratch,
        TimeProvider clock,
        CancellationToken preempted,
        CancellationToken cancellation)
    {
        private readonly Checkpoints _checkpoints = new(blobs, cache, attempt, log, scratch);
        private long _logged = clock.GetTimestamp();
        private double? _microBatchSize = spec.Trainer.MicroBatchSize;

        private string Name => $"{attempt.RunId}/{attempt.Stage}#{attempt.Fence}";

        /// <summary>What the heartbeat calls the method's steps.</summary>
        private string Phase => attempt.Spec.Kind == JobKind.Evaluate ? "evaluate" : "train";

        public (JobResult Result, KeptSlice? Kept) Run()
        {
            backend.EnterThread(spec);
            StageWork work = TakeUp();
            KeptSlice? kept = null;
            try
            {
                JobResult result = Train(work);
                if (result.Outcome == JobState.SliceDone)
                    kept = new KeptSlice(attempt.Spec, _checkpoints, work);
                return (result, kept);
            }
            finally
            {
                if (kept is null)
                    work.Dispose();
            }
        }

        /// <summary>The stage's work where it was left: from memory, from the newest intact checkpoint, or from its inputs.</summary>
        private StageWork TakeUp()
        {
            if (before is not null
                && IsSameWork(before.Job, attempt.Spec)
                && Await(_checkpoints.TryGoOnFromAsync(before.Checkpoints, cancellation)))
            {
                log.Line($"{Name} goes on at step {before.Work.Method.Step}/{before.Work.Method.TotalSteps}");
                return before.Work;
            }

            before?.Work.Dispose();
            CheckpointReader? resume = Await(_checkpoints.ResumeAsync(cancellation));
            StageWork work = backend.Build(attempt.Spec, spec, resume, scratch, cancellation);
            if (resume is not null)
            {
                work.Method.Load(resume);
                log.Line($"{Name} resumes at step {work.Method.Step}/{work.Method.TotalSteps} from the checkpoint of attempt {resume.Fence}");
            }

            return work;
        }

        private JobResult Train(StageWork work)
        {
            ITrainingMethod method = work.Method;
            int until = Math.Min(attempt.Spec.UntilStep ?? method.TotalSteps, method.TotalSteps);
            progress.Started(method.Step, method.TotalSteps, _checkpoints.Step);
            progress.Enter(Phase);
            while (method.Step < until)
            {
                heartbeat.ThrowIfFenced();
                if (AskedToStop() is { } outcome)
                    return Stop(work, outcome);
                if (!TryAdvance(work))
                    continue;
                if (method.Step % spec.Trainer.CheckpointEverySteps == 0 && method.Step < until)
                    Checkpoint(work);
            }

            Checkpoint(work);
            return Finish(work, until);
        }

        private static bool IsSameWork(JobSpec one, JobSpec other) =>
            CasDocument.Sha256(CasDocument.Serialize(one with { UntilStep = null }))
            == CasDocument.Sha256(CasDocument.Serialize(other with { UntilStep = null }));

        /// <summary>Does a step. False where it was left before anything changed, because the attempt is to stop.</summary>
        private bool TryAdvance(StageWork work)
        {
            ITrainingMethod method = work.Method;
            long begun = clock.GetTimestamp();
            if (Interruptibly(work, method.Advance) is not { } metrics)
                return false;
            double seconds = clock.GetElapsedTime(begun).TotalSeconds;
            progress.Stepped(method.Step, seconds, metrics);
            if (metrics.TryGetValue("micro_batch_size", out double rows) && rows != _microBatchSize)
            {
                _microBatchSize = rows;
                log.Line($"{Name} goes on in micro-batches of {rows} rows: more did not fit into memory");
            }

            if (clock.GetElapsedTime(_logged) < log.ProgressEvery)
                return true;
            _logged = clock.GetTimestamp();
            log.Line(string.Create(CultureInfo.InvariantCulture,
                $"{Name} step {method.Step}/{method.TotalSteps} {seconds:0.00} s {Figures(metrics)}"));
            return true;
        }

        /// <summary>
        /// Computes what may wait for a reward endpoint. Null where the wait was ended because the attempt is to stop, or was to stop for
        /// a moment.
        /// </summary>
        private IReadOnlyDictionary<string, double>? Interruptibly(StageWork work, Func<IReadOnlyDictionary<string, double>> compute)
        {
            using var interruption = CancellationTokenSource.CreateLinkedTokenSource(heartbeat.Interruption, preempted, cancellation);
            if (work.Rewards is { } rewards)
                rewards.Interruption = interruption.Token;
            try
            {
                return compute();
            }
            catch (OperationCanceledException) when (interruption.IsCancellationRequested && !cancellation.IsCancellationRequested)
            {
                return null;
            }
        }

        private JobState? AskedToStop() => heartbeat.Desired switch
        {
            DesiredState.Cancel => JobState.Cancelled,
            DesiredState.Pause => JobState.Paused,
            _ => preempted.IsCancellationRequested ? JobState.Preempted : null,
        };

        private JobResult Stop(StageWork work, JobState outcome)
        {
            if (outcome != JobState.Cancelled)
                Checkpoint(work);
            return progress.Result(outcome) with { CorruptCheckpoints = _checkpoints.Corrupt };
        }

        private JobResult Finish(StageWork work, int until)
        {
            progress.Enter("evaluate");
            long begun = clock.GetTimestamp();
            IReadOnlyDictionary<string, double>? metrics;
            while ((metrics = Interruptibly(work, work.Measure)) is null)
            {
                heartbeat.ThrowIfFenced();
                if (AskedToStop() is { } outcome)
                    return Stop(work, outcome);
            }

            progress.Computed(clock.GetElapsedTime(begun).TotalSeconds);

            progress.Enter("export");
            Await(heartbeat.FlushMetricsAsync(cancellation));
            IReadOnlyDictionary<string, ModelRef> models = Await(work.ExportAsync(blobs, Path.Combine(scratch, "export"), cancellation));
            IReadOnlyDictionary<string, ContentFile> artifacts = Await(PublishArtifactsAsync(work, Path.Combine(scratch, "artifacts")));
            return progress.Result(until == work.Method.TotalSteps ? JobState.Succeeded : JobState.SliceDone) with
            {
                Metrics = metrics,
                Models = models,
                Artifacts = artifacts,
                CorruptCheckpoints = _checkpoints.Corrupt,
            };
        }

        private async Task<IReadOnlyDictionary<string, ContentFile>> PublishArtifactsAsync(StageWork work, string folder)
        {
            Directory.CreateDirectory(folder);
            work.WriteFiles?.Invoke(folder);
            await EventFile.WriteAsync(blobs, attempt.RunId, attempt.Stage, folder, cancellation);
            var artifacts = new SortedDictionary<string, ContentFile>(StringComparer.Ordinal);
            foreach (string file in Directory.GetFiles(folder).Order(StringComparer.Ordinal))
                artifacts[Path.GetFileName(file)] = await ModelExport.PublishFileAsync(blobs, file, cancellation);
            return artifacts;
        }

        private void Checkpoint(StageWork work)
        {
            if (_checkpoints.Step == work.Method.Step)
                return;
            progress.Enter("checkpoint");
            // First: an attempt that resumes here appends only the rows after it.
            Await(heartbeat.FlushMetricsAsync(cancellation));
            Await(_checkpoints.PublishAsync(work.Method.Step, work.Save, cancellation));
            progress.Checkpointed(work.Method.Step);
            progress.Enter(Phase);
        }

        private static string Figures(IReadOnlyDictionary<string, double> metrics) => string.Join(' ', metrics
            .Where(metric => metric.Key is "loss" or "accuracy" or "lr" or "objective/scores" or "objective/kl" or "answers")
            .Select(metric => string.Create(CultureInfo.InvariantCulture, $"{metric.Key}={metric.Value:0.####}")));

        /// <summary>This thread computes and has nothing to do meanwhile.</summary>
        private T Await<T>(Task<T> task)
        {
            backend.Wait(task);
            return task.GetAwaiter().GetResult();
        }

        private void Await(Task task) => backend.Wait(task);
    }
}

/// <summary>The job has gone on without the attempt, whose step does not end.</summary>
internal sealed class WedgedStepException(JobAttempt attempt, int step, TimeSpan grace)
    : Exception(string.Create(CultureInfo.InvariantCulture,
        $"Run '{attempt.RunId}', stage '{attempt.Stage}', attempt {attempt.Fence}: the step after {step} has not ended ")
        + string.Create(CultureInfo.InvariantCulture, $"{grace.TotalSeconds:0.#} s after the attempt was superseded."));
