using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Loader;

namespace Rlhf.Trainer.Native;

/// <summary>
/// Loads libtorch and TorchSharp's bridge library before TorchSharp looks for them itself. TorchSharp's own search copies half a gigabyte
/// into <c>bin/</c> and may pick up a libtorch of the system; this one takes, by absolute path, the libraries next to the application
/// (a published folder) or those of the package folder the application was built with.
/// </summary>
/// <remarks>
/// On Linux with a libstdc++ older than GCC 13's (Debian 12) the bridge does not load as shipped: it names the symbol version
/// GLIBCXX_3.4.32, although nothing in it is bound to a symbol of that version. There a copy whose version need is marked weak is kept in
/// the user's cache folder and loaded instead.
/// </remarks>
public static partial class TorchNative
{
    private const string Bridge = "LibTorchSharp";
    private const string UnmetVersion = "GLIBCXX_3.4.32";

    /// <summary>Libraries of libtorch in the order in which they depend on each other.</summary>
    private static readonly string[] LibTorch = ["libc10.so", "libtorch_cpu.so", "libtorch.so"];

    private static nint bridge;
    private static TorchNativeException? failure;

    /// <summary>Loads once, when the first type of this assembly is used. A failure is kept for <see cref="Require"/>.</summary>
    [ModuleInitializer]
    internal static void Initialise()
    {
        // Windows, macOS and the CUDA build have the natives where TorchSharp looks for them.
        if (!OperatingSystem.IsLinux()) return;

        // OpenMP reads its settings when libgomp is loaded, from the C environment, which Environment.SetEnvironmentVariable does not
        // reach. Spinning workers starve whatever else runs on the machine, so waiting is passive unless the user says otherwise.
        _ = SetEnvironment("OMP_WAIT_POLICY", "PASSIVE", overwrite: 0);
        try
        {
            Load();
        }
        catch (TorchNativeException e)
        {
            failure = e;
        }
    }

    /// <summary>Throws if libtorch could not be loaded. Commands that compute call it first, for a clear message.</summary>
    /// <exception cref="TorchNativeException">The libraries are missing or the system refuses them.</exception>
    public static void Require()
    {
        if (failure is not null) throw failure;
    }

    private static void Load()
    {
        string bridgeFile = $"lib{Bridge}.so";
        string[] folders = SearchFolders();
        string? bridgePath = folders.Select(f => Path.Combine(f, bridgeFile)).FirstOrDefault(File.Exists);
        string? torchFolder = folders.FirstOrDefault(f => File.Exists(Path.Combine(f, LibTorch[1])));
        if (bridgePath is null || torchFolder is null)
        {
            throw new TorchNativeException(
                $"{(bridgePath is null ? bridgeFile : LibTorch[1])} was not found in {string.Join(" or ", folders)}. "
                + "Run 'dotnet restore', or publish the trainer again ('dotnet publish trainer').");
        }

        foreach (string library in LibTorch)
        {
            string path = Path.Combine(torchFolder, library);
            if (TryLoad(path, out _) is { } reason) throw new TorchNativeException($"The system cannot load {path}: {reason}");
        }

        if (TryLoad(bridgePath, out bridge) is { } refusal)
        {
            if (!refusal.Contains(UnmetVersion, StringComparison.Ordinal))
                throw new TorchNativeException($"The system cannot load {bridgePath}: {refusal}");
            bridge = LoadWithWeakVersion(bridgePath);
        }

        AssemblyLoadContext.Default.ResolvingUnmanagedDll += (_, name) => name == Bridge ? bridge : 0;
    }

    private static string[] SearchFolders()
    {
        string application = AppContext.BaseDirectory;
        string packages = typeof(TorchNative).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>()
            .FirstOrDefault(a => a.Key == "TorchNatives")?.Value ?? "";
        return
        [
            application,
            Path.Combine(application, "runtimes", "linux-x64", "native"),
            .. packages.Split(';', StringSplitOptions.RemoveEmptyEntries),
        ];
    }

    /// <summary>Loads the library; returns null, or the reason why the system refused it.</summary>
    private static string? TryLoad(string path, out nint handle)
    {
        handle = 0;
        try
        {
            handle = NativeLibrary.Load(path);
            return null;
        }
        catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
        {
            return e.Message.ReplaceLineEndings(" ");
        }
    }

    private static nint LoadWithWeakVersion(string original)
    {
        string version = typeof(TorchSharp.torch).Assembly.GetName().Version?.ToString() ?? "unknown";
        string copy = Path.Combine(CacheFolder(), $"lib{Bridge}-{version}-{new FileInfo(original).Length}.so");
        if (File.Exists(copy) && TryLoad(copy, out nint cached) is null) return cached;

        try
        {
            byte[] library = File.ReadAllBytes(original);
            if (!ElfVersions.MarkWeak(library, UnmetVersion))
                throw new TorchNativeException(
                    $"{original} asks for {UnmetVersion} in a way that cannot be relaxed. Use a system with GCC 13's libstdc++ or newer.");
            Directory.CreateDirectory(CacheFolder());
            // Another process may do the same at this moment: each writes its own file, and the move is atomic.
            string temporary = $"{copy}.{Environment.ProcessId}";
            File.WriteAllBytes(temporary, library);
            File.Move(temporary, copy, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TorchNativeException(
                $"This system's libstdc++ lacks {UnmetVersion}, and the adapted copy of {Path.GetFileName(original)} cannot be written to "
                + $"{CacheFolder()}: {e.Message} Set XDG_CACHE_HOME to a folder that can be written.");
        }

        if (TryLoad(copy, out nint handle) is { } reason) throw new TorchNativeException($"The system cannot load {copy}: {reason}");
        return handle;
    }

    private static string CacheFolder()
    {
        string? cache = Environment.GetEnvironmentVariable("XDG_CACHE_HOME");
        if (string.IsNullOrEmpty(cache))
        {
            string home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
            cache = home.Length > 0 ? Path.Combine(home, ".cache") : Path.GetTempPath();
        }

        return Path.Combine(cache, "rlhf-trainer");
    }

    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetEnvironment(string name, string value, int overwrite);
}

/// <summary>libtorch cannot be loaded on this machine; the message says why and what to do.</summary>
public sealed class TorchNativeException(string message) : Exception(message);
