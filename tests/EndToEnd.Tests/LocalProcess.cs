using System.Diagnostics;
using System.Net.Http.Json;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Rlhf.EndToEnd.Tests;

/// <summary><c>local</c> as a process of its own, as a person starts it, in a folder of its own.</summary>
internal sealed partial class LocalProcess : IAsyncDisposable
{
    private readonly Process process;
    private readonly StringBuilder output = new();
    private readonly StringBuilder error = new();

    private LocalProcess(Process process)
    {
        this.process = process;
        process.OutputDataReceived += (_, line) => Append(output, line.Data);
        process.ErrorDataReceived += (_, line) => Append(error, line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    public static string DotNet =>
        Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", "..", "dotnet"));

    public static string Samples => Metadata("SamplesFolder");

    public string Output => Read(output);

    public string Error => Read(error);

    /// <summary>Starts the program.</summary>
    /// <param name="folder">Its working folder.</param>
    /// <param name="path">PATH for it; null inherits this one's.</param>
    /// <param name="arguments">Its arguments.</param>
    public static LocalProcess Start(string folder, string? path, params string[] arguments)
    {
        var start = new ProcessStartInfo(DotNet)
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.ArgumentList.Add(Metadata("LocalProgram"));
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        if (path is not null)
            start.Environment["PATH"] = path;
        return new LocalProcess(Process.Start(start)!);
    }

    /// <summary>Waits for the end.</summary>
    /// <returns>The exit code.</returns>
    /// <exception cref="TimeoutException">It did not come in time; the message has all output.</exception>
    public async Task<int> ExitAsync(TimeSpan limit)
    {
        try
        {
            await process.WaitForExitAsync(TestContext.Current.CancellationToken).WaitAsync(limit, TestContext.Current.CancellationToken);
        }
        catch (TimeoutException)
        {
            throw new TimeoutException($"The process did not end within {limit.TotalSeconds} s.\n{Output}\n{Error}");
        }

        return process.ExitCode;
    }

    /// <summary>Waits until its standard output has the text.</summary>
    public async Task<string> WaitForAsync(string text, TimeSpan limit)
    {
        var clock = Stopwatch.StartNew();
        while (!Output.Contains(text, StringComparison.Ordinal))
        {
            if (process.HasExited || clock.Elapsed > limit)
                throw new TimeoutException($"'{text}' did not appear.\n{Output}\n{Error}");
            await Task.Delay(50, TestContext.Current.CancellationToken);
        }

        return Output;
    }

    /// <summary>Waits, over the API, until a trainer works on the stage; on a fast machine that is over before the display has said much.</summary>
    /// <param name="stage">The stage.</param>
    /// <param name="step">The step that it must have done.</param>
    /// <param name="limit">How long it may take.</param>
    public async Task WaitForTrainerAsync(string stage, int step, TimeSpan limit)
    {
        Match url = RunUrl().Match(await WaitForAsync(": started, http", limit));
        using var http = new HttpClient();
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(20, TestContext.Current.CancellationToken))
        {
            RunView run = (await http.GetFromJsonAsync<RunView>(url.Value, RlhfJson.Compact, TestContext.Current.CancellationToken))!;
            bool isClaimed = run.Stage == stage && run.Stages.Any(entry => entry.Name == stage && entry.Attempts > 0);
            if (isClaimed && (run.Progress?.Step ?? 0) >= step)
                return;
            if (process.HasExited || clock.Elapsed > limit)
                throw new TimeoutException($"No trainer was seen at step {step} of {stage}.\n{Output}\n{Error}");
        }
    }

    /// <summary>SIGKILL, to this process alone: its children live on.</summary>
    public void Kill() => process.Kill(entireProcessTree: false);

    /// <summary>SIGTERM.</summary>
    public void Terminate() => Assert.Equal(0, Signal(process.Id, 15));

    /// <summary>The id of a process of the stack, from the state folder.</summary>
    public static int StackProcess(string state, string role)
    {
        using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(state, "pids.json")));
        return document.RootElement.EnumerateArray().Single(entry => entry.GetProperty("role").GetString() == role)
            .GetProperty("processId").GetInt32();
    }

    /// <summary>A test that failed in the middle leaves nothing running.</summary>
    public async ValueTask DisposeAsync()
    {
        if (!process.HasExited)
        {
            _ = Signal(process.Id, 15);
            using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
            await process.WaitForExitAsync(patience.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (!process.HasExited)
                process.Kill(entireProcessTree: true);
        }

        process.Dispose();
    }

    private static string Metadata(string key) => Path.GetFullPath(Path.Combine(
        AppContext.BaseDirectory,
        typeof(LocalProcess).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().First(attribute => attribute.Key == key).Value!));

    private static void Append(StringBuilder text, string? line)
    {
        lock (text)
            text.AppendLine(line);
    }

    private static string Read(StringBuilder text)
    {
        lock (text)
            return text.ToString();
    }

    [GeneratedRegex(@"http://\S+")]
    private static partial Regex RunUrl();

    [DllImport("libc", EntryPoint = "kill")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Signal(int id, int signal);
}
