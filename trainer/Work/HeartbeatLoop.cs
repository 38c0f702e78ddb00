using Rlhf.Jobs;

namespace Rlhf.Trainer.Work;

/// <summary>
/// Beats beside the training loop: tells the orchestrator how far it is, appends the metric rows, and learns within one tick whether the
/// attempt is to go on. What it learns is acted on by the training loop, after the current step.
/// </summary>
internal sealed class HeartbeatLoop : IAsyncDisposable
{
    private readonly JobAttempt _attempt;
    private readonly AttemptProgress _progress;
    private readonly PeriodicTimer _timer;
    private readonly WorkerLog _log;
    private readonly CancellationTokenSource _stopping;
    private readonly SemaphoreSlim _appending = new(1);
    private readonly CancellationTokenSource _overdue;
    private readonly TimeSpan _grace;
    private readonly CancellationToken _cancellation;
    private readonly Task _loop;
    private double _nextAppendSeconds;
    private volatile FencedException? _fenced;
    private volatile CancellationTokenSource _interruption = new();
    private int _desired;

    private HeartbeatLoop(
        JobAttempt attempt, AttemptProgress progress, WorkerLog log, TimeProvider clock, TimeSpan grace, CancellationToken cancellation)
    {
        _grace = grace;
        _overdue = new CancellationTokenSource(Timeout.InfiniteTimeSpan, clock);
        _attempt = attempt;
        _progress = progress;
        _log = log;
        _timer = new PeriodicTimer(TimeSpan.FromSeconds(1), clock);
        _cancellation = cancellation;
        _stopping = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        _loop = Task.Factory.StartNew(
            RunAsync, CancellationToken.None, TaskCreationOptions.DenyChildAttach, TaskScheduler.Current).Unwrap();
    }

    /// <summary>Starts to beat; the first beat goes out at once.</summary>
    /// <param name="attempt">The attempt.</param>
    /// <param name="progress">How far it is.</param>
    /// <param name="log">Where it says what it does.</param>
    /// <param name="clock">Measures the pauses.</param>
    /// <param name="grace">The time that a step has to end once the job has gone on without the attempt.</param>
    /// <param name="cancellation">Ends the beating.</param>
    public static HeartbeatLoop Start(
        JobAttempt attempt, AttemptProgress progress, WorkerLog log, TimeProvider clock, TimeSpan grace, CancellationToken cancellation) =>
        new(attempt, progress, log, clock, grace, cancellation);

    /// <summary>The time between two beats; a second until it is set.</summary>
    public TimeSpan Interval
    {
        set => _timer.Period = value;
    }

    /// <summary>What the orchestrator wanted at the last beat.</summary>
    public DesiredState Desired => (DesiredState)Volatile.Read(ref _desired);

    /// <summary>
    /// Cancelled while the orchestrator wants the attempt to stop, or has gone on without it: for waits within a step. A wish that is
    /// withdrawn leads to a new token.
    /// </summary>
    public CancellationToken Interruption => _interruption.Token;

    /// <summary>Cancelled when the job has gone on without the attempt, and its step has not ended within the grace.</summary>
    public CancellationToken Overdue => _overdue.Token;

    /// <summary>Throws once the job is known to have gone on without this attempt.</summary>
    /// <exception cref="FencedException">It has.</exception>
    public void ThrowIfFenced()
    {
        if (_fenced is { } fenced)
            throw new FencedException(_attempt.RunId, _attempt.Stage, _attempt.Fence, fenced);
    }

    /// <summary>Appends the metric rows that have not been appended yet.</summary>
    public async Task FlushMetricsAsync(CancellationToken cancellation)
    {
        await _appending.WaitAsync(CancellationToken.None); // whoever appends heeds the cancellation
        try
        {
            IReadOnlyList<MetricRow> rows = _progress.TakeRows();
            if (rows.Count == 0)
                return;
            // An append blob holds 50,000 blocks, so the pause between appends grows with the attempt's age.
            _nextAppendSeconds = _progress.Seconds * 1.001;
            using var lines = new MemoryStream();
            foreach (MetricRow row in rows)
            {
                lines.Write(CasDocument.Serialize(row).ToMemory().Span);
                lines.WriteByte((byte)'\n');
            }

            try
            {
                await _attempt.AppendMetricsAsync(BinaryData.FromBytes(lines.ToArray()), cancellation);
            }
            catch
            {
                _progress.PutBack(rows);
                throw;
            }
        }
        finally
        {
            _appending.Release();
        }
    }

    public async ValueTask DisposeAsync()
    {
#pragma warning disable CA1849 // CancelAsync would only borrow another thread for the loop's continuation.
        _stopping.Cancel();
#pragma warning restore CA1849
        await _loop;
        _timer.Dispose();
        _stopping.Dispose();
        _interruption.Dispose();
        _overdue.Dispose();
        _appending.Dispose();
    }

    private async Task RunAsync()
    {
        try
        {
            long sequence = 0;
            do
                await BeatAsync(sequence++);
            while (_fenced is null && await _timer.WaitForNextTickAsync(_stopping.Token));
        }
        catch (OperationCanceledException) when (_stopping.IsCancellationRequested)
        {
            // The attempt is over.
        }
    }

    private void Interrupt(bool wanted)
    {
        if (wanted)
            _interruption.Cancel();
        else if (_interruption.IsCancellationRequested)
            _interruption = new CancellationTokenSource();
    }

    private async Task BeatAsync(long sequence)
    {
        try
        {
            DesiredState desired = await _attempt.BeatAsync(_progress.Beat(_attempt, sequence), _stopping.Token);
            Volatile.Write(ref _desired, (int)desired);
            Interrupt(desired != DesiredState.Run);
            if (_progress.Seconds >= _nextAppendSeconds)
                await FlushMetricsAsync(_cancellation);
        }
        catch (FencedException e)
        {
            _fenced = e;
            Interrupt(true);
            _overdue.CancelAfter(_grace);
        }
        catch (Exception e) when (!_stopping.IsCancellationRequested)
        {
            // Whatever else a beat meets (storage that refuses, a damaged job.json) is the orchestrator's to judge: it sees the silence.
            _log.Line($"{_attempt.RunId}/{_attempt.Stage}#{_attempt.Fence} heartbeat failed: {e.Message.Split('\n')[0]}");
        }
    }
}
