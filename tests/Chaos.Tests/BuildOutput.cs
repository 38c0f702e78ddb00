using System.Reflection;
using System.Runtime.InteropServices;

namespace Rlhf.Chaos.Tests;

/// <summary>Where the build put the programs that these tests start.</summary>
internal static class BuildOutput
{
    public static string DotNet => Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", "..", "dotnet"));

    public static string Trainer => Metadata("TrainerProgram");

    public static string Repository => Metadata("Repository");

    public static string Spec(string name) => Path.Combine(AppContext.BaseDirectory, "specs", name + ".json");

    private static string Metadata(string key) => Path.GetFullPath(Path.Combine(
        AppContext.BaseDirectory,
        typeof(BuildOutput).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().First(attribute => attribute.Key == key).Value!));
}
