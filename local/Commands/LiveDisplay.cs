using System.Globalization;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace Rlhf.Local.Commands;

/// <summary>A run as a table that is drawn over itself: a line for each stage with its bar, and the newest metrics below.</summary>
internal sealed class LiveDisplay(IAnsiConsole console) : IRunDisplay
{
    private const int BarWidth = 24;
    private readonly Lock gate = new();
    private readonly List<string> notes = [];
    private RunView? run;
    private LiveDisplayContext? context;

    public Task<T> WhileAsync<T>(Func<Task<T>> work) => console.Live(Draw()).AutoClear(false).StartAsync(live =>
    {
        context = live;
        return work();
    });

    public void Show(RunView now)
    {
        run = now;
        Refresh();
    }

    public void Note(string text)
    {
        if (context is null)
            console.MarkupLineInterpolated($"[grey]{text}[/]");
        lock (gate)
            notes.Add(text);
        Refresh();
    }

    private void Refresh()
    {
        lock (gate)
        {
            context?.UpdateTarget(Draw());
            context?.Refresh();
        }
    }

    private Spectre.Console.Rows Draw()
    {
        var rows = new List<IRenderable>();
        if (run is { } now)
        {
            var table = new Table().Border(TableBorder.None).AddColumns("stage", "progress", "step", "time", "state");
            foreach (StageView stage in now.Stages)
                table.AddRow(Line(now, stage));
            rows.Add(new Markup($"[bold]{Markup.Escape(now.RunId)}[/] {Markup.Escape(now.State)}{(now.Activity is { } what ? ": " + Markup.Escape(what) : null)}"));
            rows.Add(table);
            rows.Add(new Markup($"[aqua]{Markup.Escape(MetricText.Of(now.Metrics, 6, "  "))}[/]"));
        }

        rows.AddRange(notes.TakeLast(3).Select(note => new Markup($"[grey]{Markup.Escape(note)}[/]")));
        return new Spectre.Console.Rows(rows);
    }

    private static string[] Line(RunView run, StageView stage)
    {
        bool isCurrent = stage.Name == run.Stage && stage.State == "running";
        ProgressView? progress = isCurrent && run.Progress is { Total: > 0 } known ? known : null;
        double share = stage.State is "succeeded" or "stoppedByGuard" ? 1 : progress is null ? 0 : Math.Clamp((double)progress.Step / progress.Total, 0, 1);
        int filled = (int)Math.Round(share * BarWidth);
        string colour = stage.State switch { "succeeded" => "green", "failed" => "red", "running" => "yellow", _ => "grey" };
        string bar = stage.State is "pending" or "skipped"
            ? $"[grey]{new string('─', BarWidth)}[/]"
            : $"[{colour}]{new string('━', filled)}[/][grey]{new string('─', BarWidth - filled)}[/]";
        return
        [
            stage.Name,
            bar,
            progress is null ? string.Empty : $"{progress.Step}/{progress.Total}",
            stage.State == "pending" ? string.Empty : string.Create(CultureInfo.InvariantCulture, $"{stage.Seconds:0} s"),
            $"[{colour}]{Markup.Escape(stage.State)}[/]"
            + (progress?.EtaSeconds is { } eta ? string.Create(CultureInfo.InvariantCulture, $" [grey]{eta:0} s left[/]") : string.Empty)
            + (stage.Attempts > 1 ? $" [grey]attempt {stage.Attempts}[/]" : string.Empty),
        ];
    }
}
