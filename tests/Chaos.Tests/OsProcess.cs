using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>
/// A process whose output goes into a file, written by the process itself: what it said before a SIGKILL is there afterwards. It ends with
/// the test that started it.
/// </summary>
internal sealed class OsProcess : IAsyncDisposable
{
    private const int SigTerm = 15, SigCont = 18, SigStop = 19;
    private readonly Process process;
    private readonly string log;

    private OsProcess(Process process, string log) => (this.process, this.log) = (process, log);

    public int Id => process.Id;

    public bool HasExited => process.HasExited;

    /// <summary>All that it has written so far.</summary>
    public string Output
    {
        get
        {
            if (!File.Exists(log))
                return string.Empty;
            using var reader = new StreamReader(new FileStream(log, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
            return reader.ReadToEnd();
        }
    }

    /// <summary>The whole lines that it has written since the position, which moves behind them.</summary>
    public string NewLines(ref long position)
    {
        if (!File.Exists(log))
            return string.Empty;
        using var stream = new FileStream(log, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        byte[] written = new byte[stream.Length - position];
        stream.Position = position;
        stream.ReadExactly(written);
        int whole = written.AsSpan().LastIndexOf((byte)'\n') + 1;
        position += whole;
        return Encoding.UTF8.GetString(written, 0, whole);
    }

    /// <summary>Starts <c>dotnet</c> with a program.</summary>
    /// <param name="arguments">The program's assembly and its arguments.</param>
    /// <param name="settings">Environment variables beside the inherited ones.</param>
    /// <param name="log">The file for its output.</param>
    /// <param name="limits">Shell commands that run before it in the same process, such as <c>ulimit</c>.</param>
    public static OsProcess Start(
        IEnumerable<string> arguments, IReadOnlyDictionary<string, string> settings, string log, string limits = "")
    {
        var start = new ProcessStartInfo("/bin/sh", ["-c", $"{limits} exec \"$@\" >>\"$RLHF_TEST_LOG\" 2>&1", "sh", BuildOutput.DotNet, .. arguments]);
        start.Environment["RLHF_TEST_LOG"] = log;
        foreach ((string name, string value) in settings)
            start.Environment[name] = value;
        return new OsProcess(Process.Start(start)!, log);
    }

    /// <summary>SIGKILL.</summary>
    public async Task KillAsync()
    {
        process.Kill();
        await process.WaitForExitAsync();
    }

    /// <summary>SIGSTOP: it stands still, and knows nothing of it when it goes on.</summary>
    public void Freeze() => Send(SigStop);

    /// <summary>SIGCONT.</summary>
    public void Thaw() => Send(SigCont);

    /// <summary>SIGTERM.</summary>
    public void Terminate() => Send(SigTerm);

    /// <summary>Waits for its end.</summary>
    /// <returns>Its exit code.</returns>
    public async Task<int> ExitAsync(TimeSpan limit)
    {
        await process.WaitForExitAsync().WaitAsync(limit);
        return process.ExitCode;
    }

    /// <summary>Waits until its output has the text.</summary>
    public async Task WaitForAsync(string text, TimeSpan limit)
    {
        for (var clock = Stopwatch.StartNew(); !Output.Contains(text, StringComparison.Ordinal); await Task.Delay(20))
        {
            if (process.HasExited || clock.Elapsed > limit)
                throw new TimeoutException($"'{text}' did not appear.\n{Output}");
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (!process.HasExited)
            await KillAsync(); // also ends a process that stands still
        process.Dispose();
    }

    private void Send(int signal) => Assert.Equal(0, Signal(process.Id, signal));

    [DllImport("libc", EntryPoint = "kill")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Signal(int id, int signal);
}
