namespace Rlhf.EndToEnd.Tests;

/// <summary>A folder of a test's own, deleted with it.</summary>
internal sealed class Workspace : IDisposable
{
    public string Root { get; } = Directory.CreateTempSubdirectory("rlhf-e2e-").FullName;

    public string State => Path.Combine(Root, ".rlhf");

    public string Out => Path.Combine(Root, "artifacts");

    /// <summary>Writes a file and returns its path.</summary>
    public string Write(string name, string content)
    {
        string path = Path.Combine(Root, name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, content);
        return path;
    }

    public void Dispose() => Directory.Delete(Root, recursive: true);
}
