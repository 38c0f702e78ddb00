using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>
/// Orchestrators are replayed, so they must not ask the world anything (the Durable Task analyzers DURABLE0001 to 0006, which not every
/// package feed has). Symbols, not texts, are looked up, so neither an alias nor a using hides one.
/// </summary>
public sealed class DeterminismTests
{
    private static readonly string[] Banned =
    [
        "System.DateTime.Now", "System.DateTime.UtcNow", "System.DateTime.Today",
        "System.DateTimeOffset.Now", "System.DateTimeOffset.UtcNow", "System.TimeProvider.System", "System.Diagnostics.Stopwatch",
        "System.Environment", "System.Guid.NewGuid", "System.Guid.CreateVersion7", "System.Random",
        "System.Security.Cryptography.RandomNumberGenerator",
        "System.Threading.Thread", "System.Threading.ThreadPool", "System.Threading.Timer", "System.Threading.SemaphoreSlim",
        "System.Threading.Tasks.Task.Delay", "System.Threading.Tasks.Task.Run", "System.Threading.Tasks.Task.Wait",
        "System.Threading.Tasks.Task.ConfigureAwait", "System.Threading.Tasks.Task<TResult>.ConfigureAwait",
        "System.Threading.Tasks.Task<TResult>.Result", "System.Threading.Tasks.Task.ContinueWith",
        "System.Threading.Tasks.TaskFactory", "System.Threading.Tasks.Parallel",
        "System.Threading.CancellationTokenSource.CancelAsync", "System.Threading.CancellationTokenSource.CancelAfter",
        "System.IO.File", "System.IO.Directory", "System.Net.Http.HttpClient", "Rlhf.Storage", "Azure.Storage",
    ];

    [Fact]
    public void Orchestrators_ask_the_world_nothing()
    {
        string[] files =
        [
            .. RoomsTests.Sources("functions").Where(file => Path.GetFileName(Path.GetDirectoryName(file)) == "Orchestrators"),
        ];
        Assert.True(files.Length >= 6, $"Only {files.Length} orchestrator files were found.");
        Assert.Empty(Violations([.. files.Select(file => (Path.GetFileName(file), File.ReadAllText(file)))]));
    }

    [Theory]
    [InlineData("System.DateTime.UtcNow.ToString()")]
    [InlineData("Task.Delay(1)")]
    [InlineData("System.Guid.NewGuid()")]
    [InlineData("Task.FromResult(1).ConfigureAwait(false)")]
    [InlineData("new System.Random().Next()")]
    [InlineData("System.Environment.MachineName")]
    [InlineData("File.ReadAllText(\"x\")")]
    [InlineData("new CancellationTokenSource().CancelAsync()")]
    public void The_test_finds_what_it_bans(string expression) =>
        Assert.NotEmpty(Violations([("Bad.cs", $"class Bad {{ object M() => {expression}; }}")]));

    [Fact]
    public void Orchestrations_that_loop_continue_as_new()
    {
        foreach (string name in new[] { "StageJob.cs", "StageSlices.cs" })
        {
            string file = RoomsTests.Sources("functions").Single(file => Path.GetFileName(file) == name);
            Assert.Contains("ContinueAsNew(", File.ReadAllText(file), StringComparison.Ordinal);
        }
    }

    private static List<string> Violations(IReadOnlyList<(string Name, string Text)> files)
    {
        const string usings = "global using System; global using System.Collections.Generic; global using System.IO;"
            + "global using System.Linq; global using System.Net.Http; global using System.Threading; global using System.Threading.Tasks;";
        SyntaxTree[] trees = [.. files.Select(file => CSharpSyntaxTree.ParseText(file.Text, path: file.Name))];
        MetadataReference[] references =
        [
            .. ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!).Split(Path.PathSeparator)
                .Select(path => MetadataReference.CreateFromFile(path)),
        ];
        CSharpCompilation compilation = CSharpCompilation.Create(
            "Orchestrators", [.. trees, CSharpSyntaxTree.ParseText(usings)], references,
            new CSharpCompilationOptions(OutputKind.DynamicallyLinkedLibrary, nullableContextOptions: NullableContextOptions.Enable));
        var found = new List<string>();
        foreach (SyntaxTree tree in trees)
        {
            SemanticModel model = compilation.GetSemanticModel(tree);
            foreach (SimpleNameSyntax name in tree.GetRoot().DescendantNodes().OfType<SimpleNameSyntax>())
            {
                if (name.FirstAncestorOrSelf<UsingDirectiveSyntax>() is not null || model.GetSymbolInfo(name).Symbol is not { } symbol)
                    continue;
                string full = symbol.OriginalDefinition.ToDisplayString(SymbolDisplayFormat.CSharpErrorMessageFormat);
                string whole = full.Split('(')[0] + ".";
                if (Banned.Any(banned => whole.StartsWith(banned + ".", StringComparison.Ordinal)))
                    found.Add($"{tree.FilePath}({name.GetLocation().GetLineSpan().StartLinePosition.Line + 1}): {full}");
            }
        }

        return found;
    }
}
