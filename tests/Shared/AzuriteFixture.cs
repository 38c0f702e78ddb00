using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Rlhf.Storage;
using Xunit;

namespace Rlhf.Tests;

/// <summary>
/// The storage emulator on free ports, with data of its own. Installed from npm on first use, into the cache folder that
/// <c>dotnet run --project local</c> uses too.
/// </summary>
public sealed class AzuriteFixture : IAsyncLifetime
{
    private const string Version = "3.37.0";
    private const string Key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    private readonly string _data = Directory.CreateTempSubdirectory("rlhf-azurite-").FullName;
    private int _blobPort;
    private int _queuePort;
    private int _tablePort;
    private string _script = "";
    private Process? _process;

    /// <summary>The connection string of the emulator's account.</summary>
    public string ConnectionString =>
        $"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={Key};"
        + $"BlobEndpoint=http://127.0.0.1:{_blobPort}/devstoreaccount1;QueueEndpoint=http://127.0.0.1:{_queuePort}/devstoreaccount1;";

    /// <summary>The account as the product opens it.</summary>
    public StorageAccount Account => StorageAccount.FromSettings(name => name == "AzureWebJobsStorage" ? ConnectionString : null);

    /// <summary>False once it was stopped or killed.</summary>
    public bool IsRunning => _process is { HasExited: false };

    /// <summary>
    /// What the emulator has saved of what it knows about its blobs, and when; from there it goes on after <see cref="KillAsync"/>. It saves every
    /// five seconds, if there is anything new.
    /// </summary>
    public (DateTime Utc, string Text) SavedBlobs()
    {
        string file = Path.Combine(_data, "__azurite_db_blob__.json");
        return File.Exists(file) ? (File.GetLastWriteTimeUtc(file), File.ReadAllText(file)) : (default, string.Empty);
    }

    public async ValueTask InitializeAsync()
    {
        _script = await InstallAsync();
        for (int tries = 0; ; tries++)
        {
            (_blobPort, _queuePort, _tablePort) = FreePorts();
            try
            {
                await StartAsync();
                break;
            }
            catch (InvalidOperationException) when (tries < 3)
            {
                // Somebody else took one of the ports in between.
            }
        }

        await Account.EnsureCreatedAsync([], CancellationToken.None);
    }

    /// <summary>Ends the emulator as SIGTERM does: what it has acknowledged is there again after <see cref="StartAsync"/>.</summary>
    public async Task StopAsync()
    {
        await SignalAsync("-TERM");
        await _process!.WaitForExitAsync();
    }

    /// <summary>Ends the emulator as SIGKILL does: it forgets what it has acknowledged of late.</summary>
    public async Task KillAsync()
    {
        _process!.Kill();
        await _process.WaitForExitAsync();
    }

    /// <summary>Stops the emulator where it stands (SIGSTOP): connections are taken and nothing is answered.</summary>
    public Task FreezeAsync() => SignalAsync("-STOP");

    /// <summary>Lets it go on (SIGCONT).</summary>
    public Task ThawAsync() => SignalAsync("-CONT");

    public async ValueTask DisposeAsync()
    {
        if (_process is { HasExited: false })
        {
            _process.Kill(entireProcessTree: true);
            await _process.WaitForExitAsync();
        }

        _process?.Dispose();
        Directory.Delete(_data, recursive: true);
    }

    /// <summary>Starts the emulator on its ports and waits until it answers.</summary>
    public async Task StartAsync()
    {
        var start = new ProcessStartInfo("node")
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            ArgumentList =
            {
                _script, "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", _data,
                "--blobHost", "127.0.0.1", "--blobPort", $"{_blobPort}", "--queueHost", "127.0.0.1", "--queuePort", $"{_queuePort}",
                "--tableHost", "127.0.0.1", "--tablePort", $"{_tablePort}",
            },
        };
        _process = Process.Start(start)!;
        _process.OutputDataReceived += (_, _) => { };
        _process.ErrorDataReceived += (_, _) => { };
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
        foreach (int port in (int[])[_blobPort, _queuePort])
        {
            for (int tries = 0; !await AnswersAsync(port); tries++)
            {
                if (_process.HasExited || tries > 1200)
                    throw new InvalidOperationException("Azurite did not start.");
                await Task.Delay(100);
            }
        }
    }

    private async Task SignalAsync(string signal)
    {
        using Process kill = Process.Start("kill", [signal, $"{_process!.Id}"]);
        await kill.WaitForExitAsync();
    }

    private static async Task<bool> AnswersAsync(int port)
    {
        using var client = new TcpClient();
        try
        {
            await client.ConnectAsync(IPAddress.Loopback, port);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    /// <summary>Three at once, so that they differ.</summary>
    private static (int Blob, int Queue, int Table) FreePorts()
    {
        TcpListener[] listeners = [.. Enumerable.Range(0, 3).Select(_ => new TcpListener(IPAddress.Loopback, 0))];
        foreach (TcpListener listener in listeners)
            listener.Start();
        int[] ports = [.. listeners.Select(listener => ((IPEndPoint)listener.LocalEndpoint).Port)];
        foreach (TcpListener listener in listeners)
            listener.Dispose();
        return (ports[0], ports[1], ports[2]);
    }

    private static async Task<string> InstallAsync()
    {
        string cache = Path.Combine(
            Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } root
                ? root
                : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache"),
            "rlhf");
        Directory.CreateDirectory(cache);
        if (Directory.GetDirectories(cache, $"azurite-{Version}-*").Select(Script).FirstOrDefault(File.Exists) is { } installed)
            return installed;

        // Installed aside and renamed, so that an interrupted install is never taken for a finished one.
        string target = Path.Combine(cache, $"azurite-{Version}-tests"), aside = $"{target}.{Guid.NewGuid():N}";
        using Process npm = Process.Start(
            "npm",
            ["install", $"azurite@{Version}", "--prefix", aside, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
        await npm.WaitForExitAsync();
        if (npm.ExitCode != 0)
        {
            throw new InvalidOperationException(
                $"npm could not install azurite@{Version}; these tests need Node.js, npm and, once, a registry.");
        }

        if (!Directory.Exists(target))
            Directory.Move(aside, target);
        return Script(target);

        static string Script(string folder) => Path.Combine(folder, "node_modules", "azurite", "dist", "src", "azurite.js");
    }
}
