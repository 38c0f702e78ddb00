using System.Globalization;

namespace Rlhf.Trainer.Work;

/// <summary>How a worker process behaves; the storage account is named by the same settings as the function app's.</summary>
/// <param name="Machine">The kind of machine, which names the job queue (<c>RLHF_MACHINE</c>, default <c>local</c>).</param>
/// <param name="CacheDirectory">Where verified copies of models and data are kept (<c>RLHF_CACHE</c>, default below the temporary
/// folder).</param>
/// <param name="ExitWhenIdle">End when no job has come for so long (<c>RLHF_EXIT_WHEN_IDLE_SECONDS</c>); null waits for ever.</param>
/// <param name="MaxJobs">End after so many jobs (<c>RLHF_MAX_JOBS</c>; 1 in queue-scaled containers); null has no limit.</param>
/// <param name="Grace">The time between SIGTERM and the end of the process (<c>RLHF_GRACE_SECONDS</c>, default 25: Container Apps kill
/// after 30); also the time that a step has to end once its job has gone on without it.</param>
/// <param name="LogEvery">The time between two log lines about a job's progress (<c>RLHF_LOG_EVERY_SECONDS</c>, default 5; 0 gives a line
/// for every step).</param>
public sealed record WorkerSettings(
    string Machine, string CacheDirectory, TimeSpan? ExitWhenIdle, int? MaxJobs, TimeSpan Grace, TimeSpan LogEvery)
{
    /// <summary>Reads the settings.</summary>
    /// <param name="setting">Reads one environment variable.</param>
    /// <exception cref="FormatException">A setting has a value that is none.</exception>
    public static WorkerSettings From(Func<string, string?> setting)
    {
        string machine = Text("RLHF_MACHINE") ?? "local";
        if (!machine.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c)) || machine.Length > 20)
            throw new FormatException($"RLHF_MACHINE is '{machine}'; it must be 1 to 20 lower-case letters and digits.");
        return new WorkerSettings(
            machine,
            Text("RLHF_CACHE") ?? Path.Combine(Path.GetTempPath(), "rlhf-cache"),
            Number("RLHF_EXIT_WHEN_IDLE_SECONDS", 0) is { } idle ? TimeSpan.FromSeconds(idle) : null,
            Number("RLHF_MAX_JOBS", 1) is { } jobs ? (int)jobs : null,
            TimeSpan.FromSeconds(Number("RLHF_GRACE_SECONDS", 0) ?? 25),
            TimeSpan.FromSeconds(Number("RLHF_LOG_EVERY_SECONDS", 0) ?? 5));

        string? Text(string name) => setting(name) is { Length: > 0 } value ? value : null;

        double? Number(string name, double least)
        {
            if (Text(name) is not { } text)
                return null;
            bool isNumber = double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double value);
            return isNumber && value >= least && value <= 1e7
                ? value
                : throw new FormatException($"{name} is '{text}'; it must be a number of at least {least}.");
        }
    }
}
