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
    internal static readonly string Repository = Path.GetFullPath(Path.Combine(
        AppContext.BaseDirectory,
        typeof(RoomsTests).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(item => item.Key == "Repository").Value!));

    private const string Durable = "(Microsoft\\.)?DurableTask|Microsoft\\.Azure\\.Functions";
    private const string Functions = "Rlhf\\.Functions";
    private const string Trainer = "Rlhf\\.Trainer";
    private const string Local = "Rlhf\\.Local";

    [Theory]
    [InlineData("functions", $"TorchSharp|{Trainer}|{Local}")]
    [InlineData("trainer", $"{Durable}|{Functions}|{Local}")]
    [InlineData("shared", $"TorchSharp|{Durable}|{Functions}|{Trainer}|{Local}|Microsoft\\.AspNetCore")]
    public void A_room_names_nothing_of_a_room_it_must_not_know(string room, string forbidden)
    {
        string[] files = [.. Sources(room)];
        Assert.NotEmpty(files);
        Assert.Empty(files.SelectMany(file => Names(file)
            .Where(name => Regex.IsMatch(name, $"^({forbidden})(\\.|$)")).Select(name => $"{file}: {name}")));

        string project = File.ReadAllText(Directory.GetFiles(Path.Combine(Repository, room), "*.csproj").Single());
        Assert.DoesNotMatch($"PackageReference Include=\"({forbidden})", project);
        string[] rooms = [.. Reference().Matches(project).Select(match => match.Groups[1].Value)];
        Assert.Equal(room == "shared" ? [] : ["../shared/Rlhf.Shared.csproj"], rooms);
    }

    [Fact]
    public void Every_http_function_asks_for_a_key()
    {
        string[] triggers =
        [
            .. Sources("functions").SelectMany(file => HttpTrigger().Matches(File.ReadAllText(file)).Select(match => match.Value)),
        ];
        Assert.True(triggers.Length >= 9, $"Only {triggers.Length} HTTP functions were found.");
        Assert.All(triggers, trigger => Assert.StartsWith("HttpTrigger(AuthorizationLevel.Function, ", trigger, StringComparison.Ordinal));
    }

    internal static IEnumerable<string> Sources(string room) =>
        Directory.EnumerateFiles(Path.Combine(Repository, room), "*.cs", SearchOption.AllDirectories)
            .Where(file => !file.Split(Path.DirectorySeparatorChar).Any(part => part is "bin" or "obj"));

    [GeneratedRegex("ProjectReference Include=\"([^\"]*)\"")]
    private static partial Regex Reference();

    [GeneratedRegex(@"HttpTrigger\([^)]*\)")]
    private static partial Regex HttpTrigger();

    /// <summary>The dotted names of a file, in usings and in code.</summary>
    private static IEnumerable<string> Names(string file) =>
        CSharpSyntaxTree.ParseText(File.ReadAllText(file)).GetRoot().DescendantNodes()
            .Where(node => node
                is QualifiedNameSyntax or MemberAccessExpressionSyntax or IdentifierNameSyntax { Parent: UsingDirectiveSyntax })
            .Select(node => node.ToString().Replace("global::", string.Empty, StringComparison.Ordinal));
}
