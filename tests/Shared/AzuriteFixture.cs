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
    private Process? _process;

    /// <summary>The connection string of the emulator's account.</summary>
    public string ConnectionString =>
        $"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={Key};"
        + $"BlobEndpoint=http://127.0.0.1:{_blobPort}/devstoreaccount1;QueueEndpoint=http://127.0.0.1:{_queuePort}/devstoreaccount1;";

    /// <summary>The account as the product opens it.</summary>
    public StorageAccount Account => StorageAccount.FromSettings(name => name == "AzureWebJobsStorage" ? ConnectionString : null);

    public async ValueTask InitializeAsync()
    {
        string script = await InstallAsync();
        (_blobPort, _queuePort) = (FreePort(), FreePort());
        await StartAsync(script);
        await Account.EnsureCreatedAsync([], CancellationToken.None);
    }

    /// <summary>Stops the emulator as a machine in trouble would: it keeps its ports and does not answer.</summary>
    public void Freeze() => Signal("-STOP");

    /// <summary>Ends what <see cref="Freeze"/> began.</summary>
    public void Thaw() => Signal("-CONT");

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

    private async Task StartAsync(string script)
    {
        var start = new ProcessStartInfo("node")
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            ArgumentList =
            {
                script, "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", _data,
                "--blobHost", "127.0.0.1", "--blobPort", $"{_blobPort}", "--queueHost", "127.0.0.1", "--queuePort", $"{_queuePort}",
                "--tableHost", "127.0.0.1", "--tablePort", $"{FreePort()}",
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
                if (_process.HasExited || tries > 300)
                    throw new InvalidOperationException("Azurite did not start.");
                await Task.Delay(100);
            }
        }
    }

    private void Signal(string signal)
    {
        using Process kill = Process.Start("kill", [signal, $"{_process!.Id}"]);
        kill.WaitForExit();
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

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
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
            "npm", ["install", $"azurite@{Version}", "--prefix", aside, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
        await npm.WaitForExitAsync();
        if (npm.ExitCode != 0)
            throw new InvalidOperationException($"npm could not install azurite@{Version}; these tests need Node.js, npm and, once, a registry.");
        if (!Directory.Exists(target))
            Directory.Move(aside, target);
        return Script(target);

        static string Script(string folder) => Path.Combine(folder, "node_modules", "azurite", "dist", "src", "azurite.js");
    }
}
