using System.Globalization;

namespace Rlhf.Trainer.Work;

/// <summary>Plain lines with a time, for people and for the container's log. Safe to use from several threads.</summary>
public sealed class WorkerLog(TextWriter writer, TimeProvider? clock = null)
{
    private readonly Lock _gate = new();
    private readonly TimeProvider _clock = clock ?? TimeProvider.System;

    /// <summary>The time between two lines about a job's progress; zero gives a line for every step.</summary>
    public TimeSpan ProgressEvery { get; init; } = TimeSpan.FromSeconds(5);

    public void Line(string text)
    {
        string line = string.Create(CultureInfo.InvariantCulture, $"{_clock.GetUtcNow():HH:mm:ss.fff} {text}");
        lock (_gate)
        {
            writer.WriteLine(line);
            writer.Flush();
        }
    }
}
