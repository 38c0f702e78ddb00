namespace Rlhf.Fuzz.Tests;

/// <summary>Good inputs to start from: the samples' specs and the fixtures of the trainer's tests.</summary>
internal static class Corpus
{
    public static string Folder(params string[] parts) => Path.Combine([AppContext.BaseDirectory, "corpus", .. parts]);

    public static IReadOnlyList<byte[]> Files(string folder, string pattern = "*") =>
        [.. Directory.GetFiles(Folder(folder), pattern, SearchOption.AllDirectories).Order(StringComparer.Ordinal).Select(File.ReadAllBytes)];
}
