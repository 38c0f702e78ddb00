using System.Reflection;
using System.Runtime.InteropServices;

namespace Rlhf.Local.Stack;

/// <summary>Where the build put what this program starts and reads but does not reference.</summary>
internal static class BuildLayout
{
    /// <summary>The trainer's program, in its own output folder (its native libraries are never copied here).</summary>
    public static string TrainerProgram => Path.Combine(Folder("TrainerFolder"), "Rlhf.Trainer.dll");

    /// <summary>The run specs that ship with the project.</summary>
    public static string Samples => Folder("SamplesFolder");

    /// <summary>
    /// The <c>dotnet</c> that runs this program. The trainer is started by it rather than by its own launcher, which looks for the
    /// runtime in places of its own.
    /// </summary>
    public static string DotNet =>
        Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", "..", OperatingSystem.IsWindows() ? "dotnet.exe" : "dotnet"));

    private static string Folder(string key) => Path.GetFullPath(Path.Combine(
        AppContext.BaseDirectory,
        typeof(BuildLayout).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().First(attribute => attribute.Key == key).Value!));
}
