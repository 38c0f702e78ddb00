using System.Reflection;
using System.Text.RegularExpressions;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>Who may know whom, read from the sources.</summary>
public sealed partial class RoomsTests
{
    private static readonly string Repository = Path.GetFullPath(Path.Combine(
        AppContext.BaseDirectory, typeof(RoomsTests).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(item => item.Key == "Repository").Value!));

    [Theory]
    [InlineData("functions", "TorchSharp|Rlhf\\.Trainer|Rlhf\\.Local")]
    [InlineData("trainer", "Microsoft\\.DurableTask|Microsoft\\.Azure\\.Functions|Rlhf\\.Functions|Rlhf\\.Local|DurableTask")]
    [InlineData("shared", "TorchSharp|Microsoft\\.DurableTask|Microsoft\\.Azure\\.Functions|Rlhf\\.Trainer|Rlhf\\.Functions|Rlhf\\.Local|Microsoft\\.AspNetCore")]
    public void A_room_names_nothing_of_a_room_it_must_not_know(string room, string forbidden)
    {
        string[] files = [.. Sources(room)];
        Assert.NotEmpty(files);
        IEnumerable<string> found = files.SelectMany(file => Names(file).Where(name => Regex.IsMatch(name, $"^({forbidden})")).Select(name => $"{file}: {name}"));
        Assert.Empty(found);

        string project = File.ReadAllText(Directory.GetFiles(Path.Combine(Repository, room), "*.csproj").Single());
        Assert.DoesNotMatch($"(PackageReference|ProjectReference) Include=\"[^\"]*({forbidden})", project);
    }

    [Fact]
    public void Every_http_function_asks_for_a_key()
    {
        string[] triggers = [.. Sources("functions").SelectMany(file => HttpTrigger().Matches(File.ReadAllText(file)).Select(match => match.Value))];
        Assert.True(triggers.Length >= 9, $"Only {triggers.Length} HTTP functions were found.");
        Assert.All(triggers, trigger => Assert.StartsWith("HttpTrigger(AuthorizationLevel.Function, ", trigger, StringComparison.Ordinal));
    }

    internal static IEnumerable<string> Sources(string room) =>
        Directory.EnumerateFiles(Path.Combine(Repository, room), "*.cs", SearchOption.AllDirectories)
            .Where(file => !file.Split(Path.DirectorySeparatorChar).Any(part => part is "bin" or "obj"));

    [GeneratedRegex(@"HttpTrigger\([^)]*\)")]
    private static partial Regex HttpTrigger();

    /// <summary>The dotted names of a file, in usings and in code.</summary>
    private static IEnumerable<string> Names(string file) =>
        CSharpSyntaxTree.ParseText(File.ReadAllText(file)).GetRoot().DescendantNodes()
            .Where(node => node is QualifiedNameSyntax or IdentifierNameSyntax { Parent: UsingDirectiveSyntax } or MemberAccessExpressionSyntax)
            .Select(node => node.ToString().Replace("global::", string.Empty, StringComparison.Ordinal));
}
