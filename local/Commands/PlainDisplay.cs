using System.Globalization;

namespace Rlhf.Local.Commands;

/// <summary>A run as lines of text, for logs and pipes: one for each change of a stage and about ten for its progress.</summary>
internal sealed class PlainDisplay(TextWriter output) : IRunDisplay
{
    private readonly Dictionary<string, string> states = [];
    private string lastProgress = string.Empty;
    private string lastState = string.Empty;

    public Task<T> WhileAsync<T>(Func<Task<T>> work) => work();

    public void Show(RunView run)
    {
        foreach (StageView stage in run.Stages)
        {
            if (stage.State == states.GetValueOrDefault(stage.Name, "pending"))
                continue;
            states[stage.Name] = stage.State;
            // What no trainer works on has no attempts, and what is skipped takes no time.
            string time = stage.State == StageStates.Skipped ? string.Empty : string.Create(CultureInfo.InvariantCulture, $" after {stage.Seconds:0.0} s");
            string attempts = stage.Attempts > 0 ? string.Create(CultureInfo.InvariantCulture, $", attempts {stage.Attempts}") : string.Empty;
            Note(stage.State == "running" ? $"{stage.Name}: started" : $"{stage.Name}: {stage.State}{time}{attempts}");
        }

        if (run.State != lastState && run.State is RunStates.Paused or RunStates.WaitingForApproval)
            Note($"run: {run.State}{(run.Activity is null ? null : ": " + run.Activity)}");
        lastState = run.State;

        if (run is not { State: RunStates.Running, Stage: { } name, Progress: { Total: > 0 } progress })
            return;
        string tenth = $"{name} {progress.Step * 10 / progress.Total}";
        if (tenth == lastProgress)
            return;
        lastProgress = tenth;
        string eta = progress.EtaSeconds is { } left ? string.Create(CultureInfo.InvariantCulture, $", {left:0} s left") : string.Empty;
        Note($"{name}: step {progress.Step} of {progress.Total}{eta}{MetricText.Of(run.Metrics, 4, ", ")}");
    }

    public void Note(string text)
    {
        output.WriteLine(text);
        output.Flush();
    }
}
