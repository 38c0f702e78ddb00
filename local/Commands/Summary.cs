using System.Globalization;
using Rlhf.Report;
using Spectre.Console;

namespace Rlhf.Local.Commands;

/// <summary>The last page on the terminal: what alignment changed.</summary>
internal static class Summary
{
    private static readonly string[] Metrics = ["gold_reward", "proxy_reward", "helpful", "honest", "harmless", "kl"];

    /// <summary>Prints the table of base, SFT and the aligned model with 95% intervals, and where the report is.</summary>
    public static void Print(IAnsiConsole console, RunReport report, string folder)
    {
        IReadOnlyList<EvaluationRow> rows = report.Evaluation?.Table ?? [];
        string[] models = ["base", "sft", Stages.Of(report.Spec.Method)];
        var table = new Table().Border(TableBorder.Simple).AddColumn("metric");
        foreach (string model in models)
            table.AddColumn(new TableColumn(model).RightAligned());
        foreach (string metric in Metrics.Where(metric => rows.Any(row => row.Metric == metric)))
            table.AddRow([metric, .. models.Select(model => Cell(rows.FirstOrDefault(row => row.Model == model && row.Metric == metric)))]);
        if (table.Rows.Count > 0)
            console.Write(table);

        // Not through the console's layout, which would break long lines where there is no terminal.
        TextWriter output = console.Profile.Out.Writer;
        output.WriteLine(report.Summary);
        output.WriteLine(string.Create(
            CultureInfo.InvariantCulture, $"time: {report.Time.TotalSeconds:0} s, of it not computing {report.Time.Overhead * 100:0.0}%"));
        output.WriteLine($"report: {Path.Combine(folder, "report.html")}");
        if (report.Models.Count > 0)
            output.WriteLine($"models: {Path.Combine(folder, "models")}");
    }

    private static string Cell(EvaluationRow? row) => row is null
        ? "-"
        : string.Create(CultureInfo.InvariantCulture, $"{row.Value:0.000} ± {row.Ci95:0.000}");
}
