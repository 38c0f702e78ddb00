using System.Diagnostics;
using System.Text;
using Rlhf.Trainer.Work;

namespace Rlhf.Trainer.Tests.Work;

/// <summary>A real <c>work</c> process of the trainer, as the container starts it.</summary>
internal sealed class WorkerProcess : IAsyncDisposable
{
    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly TemporaryFolder _cache = new();

    private WorkerProcess(ProcessStartInfo start)
    {
        start.Environment["RLHF_CACHE"] = _cache.Path;
        _process = Process.Start(start)!;
        _process.OutputDataReceived += (_, line) => Append(line.Data);
        _process.ErrorDataReceived += (_, line) => Append(line.Data);
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
    }

    public string Output
    {
        get
        {
            lock (_output)
                return _output.ToString();
        }
    }

    /// <summary>Starts a worker on the run's own queue.</summary>
    public static WorkerProcess Start(JobTestRun run, params IEnumerable<(string Name, string Value)> settings)
    {
        var start = new ProcessStartInfo("dotnet")
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            ArgumentList = { "exec", typeof(JobWorker).Assembly.Location, "work" },
        };
        start.Environment["AzureWebJobsStorage"] = run.Azurite.ConnectionString;
        start.Environment["RLHF_MACHINE"] = run.Machine;
        foreach ((string name, string value) in settings)
            start.Environment[name] = value;
        return new WorkerProcess(start);
    }

    /// <summary>Ends the process without warning.</summary>
    public async Task KillAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync();
    }

    /// <summary>Sends SIGTERM, as a platform does that takes the machine away.</summary>
    public void Terminate()
    {
        using Process kill = Process.Start("kill", ["-TERM", $"{_process.Id}"]);
        kill.WaitForExit();
    }

    /// <summary>Stops (SIGSTOP) or continues (SIGCONT) the process, which makes it a zombie that comes back.</summary>
    public void Freeze(bool frozen)
    {
        using Process kill = Process.Start("kill", [frozen ? "-STOP" : "-CONT", $"{_process.Id}"]);
        kill.WaitForExit();
    }

    /// <summary>The exit code, once the process has ended.</summary>
    public async Task<int> ExitAsync()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromMinutes(2));
        try
        {
            await _process.WaitForExitAsync(patience.Token);
            return _process.ExitCode;
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException($"The worker did not end.\n{Output}");
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
            await KillAsync();
        _process.Dispose();
        _cache.Dispose();
    }

    private void Append(string? line)
    {
        lock (_output)
            _output.AppendLine(line);
    }
}
