using Rlhf.Jobs;

namespace Rlhf.Trainer.Work;

/// <summary>
/// What the training loop tells and the heartbeat passes on. The step comes from the loop alone, so that a wedged loop shows.
/// </summary>
internal sealed class AttemptProgress(string stage, TimeProvider clock)
{
    private readonly Lock _gate = new();
    private readonly long _claimed = clock.GetTimestamp();
    private readonly List<MetricRow> _pending = [];
    private IReadOnlyDictionary<string, double> _metrics = new Dictionary<string, double>();
    private string _phase = "load";
    private int _step;
    private int _totalSteps;
    private int _checkpointStep;
    private double _secondsPerStep;
    private double _computeSeconds;

    /// <summary>Seconds since the claim.</summary>
    public double Seconds => clock.GetElapsedTime(_claimed).TotalSeconds;

    public void Enter(string phase)
    {
        lock (_gate)
            _phase = phase;
    }

    public void Started(int step, int totalSteps, int checkpointStep)
    {
        lock (_gate)
            (_step, _totalSteps, _checkpointStep) = (step, totalSteps, checkpointStep);
    }

    /// <summary>Records a step that is done.</summary>
    public void Stepped(int step, double seconds, IReadOnlyDictionary<string, double> metrics)
    {
        lock (_gate)
        {
            // A mean that follows the last ten steps or so: early steps are slow and must not spoil the estimate of the time left.
            _secondsPerStep = _secondsPerStep == 0 ? seconds : 0.9 * _secondsPerStep + 0.1 * seconds;
            _step = step;
            _metrics = metrics;
            _computeSeconds += seconds;
            _pending.Add(new MetricRow(stage, step, seconds, metrics));
        }
    }

    /// <summary>Counts time that the method spent outside its steps, such as a slice's validation.</summary>
    public void Computed(double seconds)
    {
        lock (_gate)
            _computeSeconds += seconds;
    }

    public void Checkpointed(int step)
    {
        lock (_gate)
            _checkpointStep = step;
    }

    /// <summary>The metric rows since the last call.</summary>
    public IReadOnlyList<MetricRow> TakeRows()
    {
        lock (_gate)
        {
            MetricRow[] rows = [.. _pending];
            _pending.Clear();
            return rows;
        }
    }

    /// <summary>Takes rows back that could not be appended, so that no checkpoint is published without them.</summary>
    public void PutBack(IReadOnlyList<MetricRow> rows)
    {
        lock (_gate)
            _pending.InsertRange(0, rows);
    }

    /// <summary>The result of an attempt that ends here and now.</summary>
    public JobResult Result(JobState outcome)
    {
        lock (_gate)
        {
            double seconds = Seconds;
            return new JobResult
            {
                Outcome = outcome,
                Step = _step,
                TotalSteps = _totalSteps,
                Seconds = seconds,
                OverheadSeconds = Math.Max(0, seconds - _computeSeconds),
            };
        }
    }

    public Heartbeat Beat(JobAttempt attempt, long sequence)
    {
        lock (_gate)
        {
            return new Heartbeat
            {
                AttemptId = attempt.AttemptId,
                Fence = attempt.Fence,
                Sequence = sequence,
                Phase = _phase,
                Step = _step,
                TotalSteps = _totalSteps,
                SecondsPerStep = _secondsPerStep,
                CheckpointStep = _checkpointStep,
                Seconds = Seconds,
                Metrics = _metrics,
            };
        }
    }
}
