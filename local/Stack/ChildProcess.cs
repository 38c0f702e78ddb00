using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Rlhf.Local.Stack;

/// <summary>
/// A process of the stack with its output in a log file. Where there is a shell, the child writes the file itself and runs in a session
/// of its own: then neither Ctrl+C at the terminal nor the sudden end of this program cuts off a write, and
/// <see cref="StopAsync(TimeSpan)"/> decides the order in which things end.
/// </summary>
internal sealed partial class ChildProcess : IDisposable
{
    private const int SigTerm = 15;
    private readonly Process process;
    private readonly string log;

    private ChildProcess(Process process, string log)
    {
        this.process = process;
        this.log = log;
        Started = process.StartTime.ToUniversalTime();
        Exit = WaitAsync();
    }

    public int Id => process.Id;

    /// <summary>When the operating system says that it started: with the id, its identity.</summary>
    public DateTime Started { get; }

    /// <summary>Ends with the process; its exit code, 128 + n after signal n.</summary>
    public Task<int> Exit { get; }

    /// <summary>Starts a program.</summary>
    /// <param name="program">The file, by its full path.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="settings">Environment variables beside the inherited ones.</param>
    /// <param name="log">The file its output is appended to.</param>
    public static ChildProcess Start(string program, IEnumerable<string> arguments, IReadOnlyDictionary<string, string> settings, string log)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(log)!);
        bool shell = File.Exists("/bin/sh");
        var start = new ProcessStartInfo(shell ? "/bin/sh" : program)
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = !shell,
            RedirectStandardError = !shell,
        };
        if (shell)
        {
            string session = FindOnPath("setsid") is null ? string.Empty : "setsid ";
            foreach (string argument in (string[])["-c", $"exec {session}\"$@\" >>\"$RLHF_LOG\" 2>&1", "sh", program])
                start.ArgumentList.Add(argument);
            start.Environment["RLHF_LOG"] = log;
        }

        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        foreach ((string name, string value) in settings)
            start.Environment[name] = value;

        Process process = Process.Start(start) ?? throw new InvalidOperationException($"'{program}' did not start.");
        process.StandardInput.Close();
        if (!shell)
            Copy(process, log);
        return new ChildProcess(process, log);
    }

    /// <summary>The end of the log, for a message about a process that failed.</summary>
    public IReadOnlyList<string> LastLines(int count)
    {
        if (!File.Exists(log))
            return [];
        using var stream = new FileStream(log, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        stream.Seek(-Math.Min(stream.Length, 64 * 1024), SeekOrigin.End);
        using var reader = new StreamReader(stream);
        return [.. reader.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries).TakeLast(count)];
    }

    /// <summary>Asks the process to end (SIGTERM), and ends it when it has not after the grace.</summary>
    public async Task StopAsync(TimeSpan grace)
    {
        if (!Exit.IsCompleted)
            await StopAsync(process, grace);
        await Exit;
    }

    /// <summary>Ends the process of an earlier start, if the id still means that process.</summary>
    /// <returns>True if there was something to end.</returns>
    public static async Task<bool> StopLeftoverAsync(int id, DateTime started, TimeSpan grace)
    {
        try
        {
            using var process = Process.GetProcessById(id);
            // The system counts start times in hundredths of a second from a boot time that it estimates.
            if ((process.StartTime.ToUniversalTime() - started).Duration() > TimeSpan.FromSeconds(2))
                return false;
            await StopAsync(process, grace);
            return true;
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException or System.ComponentModel.Win32Exception)
        {
            return false; // It is gone, or it is another user's.
        }
    }

    /// <summary>The full path of a program that the shell would find, or null.</summary>
    public static string? FindOnPath(string program)
    {
        string[] names = OperatingSystem.IsWindows() ? [program + ".exe", program + ".cmd"] : [program];
        return (Environment.GetEnvironmentVariable("PATH") ?? string.Empty)
            .Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
            .SelectMany(folder => names.Select(name => Path.Combine(folder, name)))
            .FirstOrDefault(File.Exists);
    }

    public void Dispose() => process.Dispose();

    private static async Task StopAsync(Process process, TimeSpan grace)
    {
        if (OperatingSystem.IsWindows() || Signal(process.Id, SigTerm) != 0)
            process.Kill(entireProcessTree: true);
        using var patience = new CancellationTokenSource(grace);
        try
        {
            await process.WaitForExitAsync(patience.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync(CancellationToken.None);
        }
    }

    private static void Copy(Process process, string log)
    {
        var file = TextWriter.Synchronized(new StreamWriter(log, append: true) { AutoFlush = true });
        void Append(object sender, DataReceivedEventArgs line) => file.WriteLine(line.Data);
        process.OutputDataReceived += Append;
        process.ErrorDataReceived += Append;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    private async Task<int> WaitAsync()
    {
        await process.WaitForExitAsync();
        return process.ExitCode;
    }

    [DllImport("libc", EntryPoint = "kill")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Signal(int id, int signal);
}
