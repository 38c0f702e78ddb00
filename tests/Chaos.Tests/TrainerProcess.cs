using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;

namespace Rlhf.Chaos.Tests;

/// <summary>A line of a trainer's log about an attempt.</summary>
/// <param name="Utc">When.</param>
/// <param name="Job">Run and stage: <c>run/stage</c>.</param>
/// <param name="Fence">The attempt's fence.</param>
/// <param name="Text">What it says.</param>
internal readonly partial record struct AttemptLine(DateTime Utc, string Job, int Fence, string Text)
{
    /// <summary>The step that the line says is done; null where it says something else.</summary>
    public int? Step => Number("step ");

    /// <summary>The step at which the attempt took up its work; null where the line says something else.</summary>
    public int? TakenUpAt => Number("resumes at step ") ?? Number("goes on at step ");

    /// <summary>The attempt has just won its job.</summary>
    public bool IsClaim => Text.StartsWith("claimed", StringComparison.Ordinal);

    /// <summary>The attempt has learnt that another one has its job.</summary>
    public bool IsSuperseded => Text.StartsWith("was superseded", StringComparison.Ordinal);

    /// <summary>The attempt is over.</summary>
    public bool IsEnd => Ended().IsMatch(Text);

    private int? Number(string prefix) =>
        Text.StartsWith(prefix, StringComparison.Ordinal)
            ? int.Parse(Text[prefix.Length..].Split('/')[0], CultureInfo.InvariantCulture)
            : null;

    [GeneratedRegex("^(Succeeded|SliceDone|Cancelled|Paused|Preempted|failed|was superseded|could not)")]
    private static partial Regex Ended();
}

/// <summary>A <c>work</c> process of the trainer that writes a line for every step: a ledger that outlives it.</summary>
internal sealed partial class TrainerProcess : IAsyncDisposable
{
    private readonly OsProcess process;
    private readonly List<AttemptLine> ledger = [];
    private long read;

    private TrainerProcess(OsProcess process) => this.process = process;

    public int Id => process.Id;

    public bool HasExited => process.HasExited;

    public string Output => process.Output;

    /// <summary>The end of its output.</summary>
    public string Tail => string.Join('\n', Output.Split('\n').TakeLast(12));

    /// <summary>What it did, in order.</summary>
    public IReadOnlyList<AttemptLine> Ledger
    {
        get
        {
            ledger.AddRange(Line().Matches(process.NewLines(ref read)).Select(line => new AttemptLine(
                Time(line.Groups["time"].Value), line.Groups["job"].Value, int.Parse(line.Groups["fence"].Value, CultureInfo.InvariantCulture),
                line.Groups["text"].Value)));
            return ledger;
        }
    }

    /// <summary>The attempt it works on; null when it has none.</summary>
    public AttemptLine? Present
    {
        get
        {
            AttemptLine? present = null;
            foreach (AttemptLine line in Ledger)
                present = line.IsClaim ? line : line.IsEnd ? null : present;
            return present;
        }
    }

    /// <summary>Starts a trainer.</summary>
    /// <param name="folder">For its log and its cache.</param>
    /// <param name="name">Tells it from others.</param>
    /// <param name="connection">The storage account.</param>
    /// <param name="machine">The job queue it serves.</param>
    /// <param name="limits">Shell commands that run before it, such as <c>ulimit</c>.</param>
    /// <param name="settings">Further environment variables.</param>
    public static TrainerProcess Start(
        string folder, string name, string connection, string machine, string limits = "", params IEnumerable<(string Name, string Value)> settings)
    {
        var environment = new Dictionary<string, string>
        {
            ["AzureWebJobsStorage"] = connection,
            ["RLHF_MACHINE"] = machine,
            ["RLHF_CACHE"] = Path.Combine(folder, "cache-" + name.Split('.')[0]),
            ["RLHF_LOG_EVERY_SECONDS"] = "0",
            ["OMP_WAIT_POLICY"] = "PASSIVE",
            ["DOTNET_TieredPGO"] = "0", // these processes live for seconds: what they measured of themselves would never be used
        };
        foreach ((string setting, string value) in settings)
            environment[setting] = value;
        return new TrainerProcess(OsProcess.Start([BuildOutput.Trainer, "work"], environment, Path.Combine(folder, name + ".log"), limits));
    }

    /// <summary>SIGKILL.</summary>
    public Task KillAsync() => process.KillAsync();

    /// <summary>SIGSTOP.</summary>
    public void Freeze() => process.Freeze();

    /// <summary>SIGCONT.</summary>
    public void Thaw() => process.Thaw();

    public Task<int> ExitAsync(TimeSpan limit) => process.ExitAsync(limit);

    public Task WaitForAsync(string text, TimeSpan limit) => process.WaitForAsync(text, limit);

    /// <summary>Waits until its ledger has such a line.</summary>
    public Task<AttemptLine> WaitForAsync(Func<AttemptLine, bool> line, TimeSpan limit) => WaitForAsync([this], line, limit);

    /// <summary>Waits until one of the trainers has such a line in its ledger.</summary>
    public static async Task<AttemptLine> WaitForAsync(IReadOnlyList<TrainerProcess> trainers, Func<AttemptLine, bool> line, TimeSpan limit)
    {
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(10))
        {
            foreach (TrainerProcess trainer in trainers)
            {
                if (trainer.Ledger.Where(line).Cast<AttemptLine?>().FirstOrDefault() is { } found)
                    return found;
            }

            if (clock.Elapsed > limit)
                throw new TimeoutException("No trainer came to that point.\n" + string.Join('\n', trainers.Select(trainer => trainer.Tail)));
        }
    }

    public ValueTask DisposeAsync() => process.DisposeAsync();

    /// <summary>The log has the time of day alone; a test is shorter than a day.</summary>
    private static DateTime Time(string text)
    {
        DateTime today = DateTime.UtcNow.Date + TimeSpan.Parse(text, CultureInfo.InvariantCulture);
        return today > DateTime.UtcNow.AddHours(1) ? today.AddDays(-1) : today;
    }

    [GeneratedRegex(@"^(?<time>\S+) (?<job>[a-z0-9-]+/[a-z]+)#(?<fence>\d+) (?<text>.*)$", RegexOptions.Multiline)]
    private static partial Regex Line();
}
