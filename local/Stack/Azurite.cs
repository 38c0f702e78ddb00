using System.Diagnostics;
using System.Security.Cryptography;

namespace Rlhf.Local.Stack;

/// <summary>The storage emulator: installed once per user from npm, at the version that package-lock.json fixes.</summary>
internal static class Azurite
{
    private const string Version = "3.37.0";

    /// <summary>Starts Azurite on the given ports and waits until it answers.</summary>
    /// <exception cref="UserErrorException">Node.js is missing, npm failed, or Azurite did not start.</exception>
    public static async Task<ChildProcess> StartAsync(StateFolder state, StoragePorts ports, Action<string> tell, CancellationToken cancellation)
    {
        string node = ChildProcess.FindOnPath("node") ?? throw new UserErrorException(
            "Node.js was not found on PATH; the storage emulator Azurite runs on it. Install Node.js 20 or later with npm "
            + "(https://nodejs.org, on Debian 'apt-get install nodejs npm') and start again.");
        string program = await InstallAsync(tell, cancellation);
        ChildProcess process = ChildProcess.Start(
            node,
            [
                program, "--silent", "--disableTelemetry", "--location", state.AzuriteData,
                "--blobHost", "127.0.0.1", "--blobPort", $"{ports.Blob}",
                "--queueHost", "127.0.0.1", "--queuePort", $"{ports.Queue}",
                "--tableHost", "127.0.0.1", "--tablePort", $"{ports.Table}",
            ],
            new Dictionary<string, string>(),
            state.Log("azurite"));
        state.Record("azurite", process);

        using var http = new HttpClient();
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(TimeSpan.FromSeconds(60));
        foreach (int port in (int[])[ports.Blob, ports.Queue])
        {
            while (!await AnswersAsync(http, port, patience.Token))
            {
                if (process.Exit.IsCompleted || patience.IsCancellationRequested)
                {
                    cancellation.ThrowIfCancellationRequested();
                    await process.StopAsync(TimeSpan.FromSeconds(5));
                    throw new UserErrorException(
                        $"Azurite did not start. Its last words ({state.Log("azurite")}):\n{string.Join("\n", process.LastLines(5))}");
                }

                await Task.Delay(50, cancellation);
            }
        }

        return process;
    }

    /// <summary>The program's main script, installed first where it is missing.</summary>
    private static async Task<string> InstallAsync(Action<string> tell, CancellationToken cancellation)
    {
        byte[] manifest = Resource("azurite/package.json");
        byte[] lockfile = Resource("azurite/package-lock.json");
        string target = Path.Combine(CacheFolder(), $"azurite-{Version}-{Convert.ToHexStringLower(SHA256.HashData(lockfile))[..8]}");
        string program = Path.Combine(target, "node_modules", "azurite", "dist", "src", "azurite.js");
        if (File.Exists(program))
            return program;

        string npm = ChildProcess.FindOnPath("npm") ?? throw new UserErrorException(
            $"npm was not found on PATH; it installs Azurite {Version}, once. Install Node.js 20 or later with npm "
            + "(https://nodejs.org, on Debian 'apt-get install nodejs npm') and start again.");
        tell($"installing Azurite {Version} from npm (once, about a minute)");

        // Installed aside and renamed, so that an interrupted install is never taken for a finished one.
        string aside = $"{target}.{Guid.NewGuid():N}";
        Directory.CreateDirectory(aside);
        try
        {
            await File.WriteAllBytesAsync(Path.Combine(aside, "package.json"), manifest, cancellation);
            await File.WriteAllBytesAsync(Path.Combine(aside, "package-lock.json"), lockfile, cancellation);
            await RunNpmAsync(npm, aside, cancellation);
            if (!Directory.Exists(target))
                Directory.Move(aside, target);
        }
        catch (IOException) when (File.Exists(program))
        {
            // Another start has just installed it.
        }
        finally
        {
            if (Directory.Exists(aside))
                Directory.Delete(aside, recursive: true);
        }

        return program;
    }

    private static async Task RunNpmAsync(string npm, string folder, CancellationToken cancellation)
    {
        var start = new ProcessStartInfo(npm)
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            ArgumentList = { "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error" },
        };
        using Process process = Process.Start(start)!;
        try
        {
            Task<string> errors = process.StandardError.ReadToEndAsync(cancellation);
            await process.StandardOutput.ReadToEndAsync(cancellation);
            await process.WaitForExitAsync(cancellation);
            if (process.ExitCode != 0)
            {
                string why = string.Join("\n", (await errors).Split('\n', StringSplitOptions.RemoveEmptyEntries).Take(4));
                throw new UserErrorException(
                    $"npm could not install Azurite {Version}:\n{why}\n"
                    + "Check the network and the registry ('npm config get registry'). It is needed once; later starts work offline.");
            }
        }
        finally
        {
            if (!process.HasExited)
                process.Kill(entireProcessTree: true);
        }
    }

    private static async Task<bool> AnswersAsync(HttpClient http, int port, CancellationToken cancellation)
    {
        try
        {
            // Any answer will do; without a signature it is 403.
            using HttpResponseMessage answer = await http.GetAsync($"http://127.0.0.1:{port}/devstoreaccount1", cancellation);
            return true;
        }
        catch (Exception e) when (e is HttpRequestException or OperationCanceledException)
        {
            return false;
        }
    }

    private static string CacheFolder()
    {
        string root = Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } cache
            ? cache
            : OperatingSystem.IsWindows()
                ? Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData)
                : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache");
        return Path.Combine(root, "rlhf");
    }

    private static byte[] Resource(string name)
    {
        using Stream stream = typeof(Azurite).Assembly.GetManifestResourceStream(name)!;
        using var content = new MemoryStream();
        stream.CopyTo(content);
        return content.ToArray();
    }
}
