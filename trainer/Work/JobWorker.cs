using System.Runtime.InteropServices;
using Azure;
using Azure.Identity;
using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Trainer.Native;

namespace Rlhf.Trainer.Work;

/// <summary>
/// The trainer's main loop: takes jobs from the queue of its kind of machine and runs them one after the other. What a job came to is
/// in its <c>job.json</c>; the process only says whether it could work at all.
/// </summary>
public sealed class JobWorker
{
    /// <summary>Ended as it was asked to: idle, enough jobs, or SIGTERM with the job put aside.</summary>
    public const int ExitDone = 0;

    /// <summary>The settings or the installation are unusable; a message on stderr says how.</summary>
    public const int ExitUnusable = 2;

    /// <summary>The time after SIGTERM was over before the current step ended: the job goes on from its last checkpoint.</summary>
    public const int ExitGraceOver = 3;

    /// <summary>A step did not end though its job has gone on elsewhere: only the end of the process frees what it holds.</summary>
    public const int ExitWedged = 4;

    private static readonly TimeSpan ShortestPoll = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan LongestPoll = TimeSpan.FromSeconds(1);

    private readonly WorkerSettings _settings;
    private readonly WorkerLog _log;
    private readonly TimeProvider _clock;
    private readonly PatientMessageQueue _events;
    private readonly JobInbox _inbox;
    private readonly StageRunner _runner;

    /// <param name="blobs">The container.</param>
    /// <param name="queue">Its account's queues, by name.</param>
    /// <param name="settings">How the worker behaves.</param>
    /// <param name="log">Where it says what it does.</param>
    /// <param name="clock">Measures pauses, heartbeats and steps.</param>
    /// <param name="backend">Makes what the jobs compute with; its argument is the verified copies of the container's blobs.</param>
    internal JobWorker(
        IBlobStore blobs, Func<string, IMessageQueue> queue, WorkerSettings settings, WorkerLog log, TimeProvider clock,
        Func<ContentCache, IComputeBackend> backend)
    {
        _settings = settings;
        _log = log;
        _clock = clock;
        var patience = new Patience(log, clock);
        var store = new PatientBlobStore(blobs, patience);
        _events = Queue(StorageAccount.EventsQueue);
        _inbox = new JobInbox(store, Queue(StorageAccount.JobQueue(settings.Machine)), Queue(StorageAccount.PoisonQueue));
        var cache = new ContentCache(store, patience, settings.CacheDirectory);
        _runner = new StageRunner(store, cache, backend(cache), log, Path.Combine(settings.CacheDirectory, "scratch"), clock, settings.Grace);

        PatientMessageQueue Queue(string name) => new(name, queue(name), patience);
    }

    /// <summary>The <c>work</c> command: settings from the environment, runs until idle, done or stopped by a signal.</summary>
    /// <returns>The process's exit code: one of the constants of this class.</returns>
    public static async Task<int> RunAsync()
    {
        try
        {
            TorchNative.Require();
            WorkerSettings settings = WorkerSettings.From(Environment.GetEnvironmentVariable);
            StorageAccount account = StorageAccount.FromSettings(Environment.GetEnvironmentVariable);
            return await RunAsync(account, settings, new WorkerLog(Console.Out) { ProgressEvery = settings.LogEvery });
        }
        catch (Exception e) when (e is TorchNativeException or FormatException or InvalidOperationException
            or RequestFailedException or CredentialUnavailableException)
        {
            await Console.Error.WriteLineAsync($"The trainer cannot work: {e.Message.Split('\n')[0]}");
            return ExitUnusable;
        }
    }

    private static async Task<int> RunAsync(StorageAccount account, WorkerSettings settings, WorkerLog log)
    {
        using var preempted = new CancellationTokenSource();
        using var graceOver = new CancellationTokenSource();
        using PosixSignalRegistration terminated = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        using PosixSignalRegistration interrupted = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
        var worker = new JobWorker(
            account.Blobs, account.Queue, settings, log, TimeProvider.System, cache => new TorchBackend(cache, log));
        string[] queues = [StorageAccount.JobQueue(settings.Machine), StorageAccount.PoisonQueue, StorageAccount.EventsQueue];
        try
        {
            await new Patience(log).RetryAsync("storage account", token => account.EnsureCreatedAsync(queues, token), preempted.Token);
            await worker.WorkAsync(preempted.Token, graceOver.Token);
            return ExitDone;
        }
        catch (OperationCanceledException) when (graceOver.IsCancellationRequested)
        {
            log.Line("the time to stop is over; the job goes on from its last checkpoint");
            return ExitGraceOver;
        }
        catch (OperationCanceledException) when (preempted.IsCancellationRequested)
        {
            return ExitDone;
        }
        catch (WedgedStepException e)
        {
            log.Line($"{e.Message} The trainer ends itself, so that another can take its place.");
            return ExitWedged;
        }

        void Stop(PosixSignalContext signal)
        {
            signal.Cancel = true;
            if (preempted.IsCancellationRequested)
                return;
            log.Line($"{signal.Signal}: stopping after the current step, within {settings.Grace.TotalSeconds:0} s");
            graceOver.CancelAfter(settings.Grace);
            preempted.Cancel();
        }
    }

    /// <summary>Takes jobs until idle for long enough, done with as many as it may, or told to stop.</summary>
    /// <param name="preempted">The machine goes away: no more jobs, and the present one stops after its step.</param>
    /// <param name="graceOver">There is no time left even for that.</param>
    /// <exception cref="WedgedStepException">A step does not end.</exception>
    internal async Task WorkAsync(CancellationToken preempted, CancellationToken graceOver)
    {
        _log.Line($"waiting for jobs on {StorageAccount.JobQueue(_settings.Machine)}");
        long idleSince = _clock.GetTimestamp();
        TimeSpan poll = ShortestPoll;
        for (int jobs = 0; jobs < (_settings.MaxJobs ?? int.MaxValue);)
        {
            preempted.ThrowIfCancellationRequested();
            if (await TakeAsync(preempted).WaitAsync(graceOver) is { } attempt)
            {
                // A step cannot be interrupted from outside: when the time is over, the process ends in the middle of it.
                if (await _runner.RunAsync(attempt, preempted, graceOver).WaitAsync(graceOver) is { } state)
                    await TellAsync(attempt, state, graceOver);
                jobs++;
                idleSince = _clock.GetTimestamp();
                poll = ShortestPoll;
            }
            else if (_clock.GetElapsedTime(idleSince) >= _settings.ExitWhenIdle)
            {
                _log.Line($"no job came for {_settings.ExitWhenIdle.Value.TotalSeconds:0} s");
                return;
            }
            else
            {
                await Task.Delay(poll, _clock, preempted);
                poll = poll * 1.5 < LongestPoll ? poll * 1.5 : LongestPoll;
            }
        }
    }

    /// <summary>The next attempt, or null. A damaged job document never ends the worker.</summary>
    private async Task<JobAttempt?> TakeAsync(CancellationToken preempted)
    {
        try
        {
            return await _inbox.TryTakeAsync(preempted);
        }
        catch (CorruptBlobException e)
        {
            // The message comes back until it counts as poison and is set aside with its reason.
            _log.Line($"cannot claim: {e.Message}");
            return null;
        }
    }

    /// <summary>Hints to the orchestrator that the job has ended. It polls anyway, so a lost hint costs a few seconds.</summary>
    private async Task TellAsync(JobAttempt attempt, JobState state, CancellationToken cancellation)
    {
        var hint = new JobEvent(attempt.RunId, attempt.Stage, attempt.Fence, state);
        await _events.SendAsync(CasDocument.Serialize(hint).ToString(), cancellation);
    }
}
