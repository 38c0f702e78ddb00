using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text.RegularExpressions;
using Rlhf.Spec;
using Xunit;

namespace Rlhf.Shared.Tests.World;

/// <summary>The base model that ships is the one its page describes.</summary>
public sealed partial class BaseModelTests
{
    private const long LargestFolder = 8_000_000;

    [Fact]
    public void The_page_beside_the_base_model_states_the_sha256_of_every_file()
    {
        IReadOnlyList<Match> stated = Line().Matches(File.ReadAllText(Path.Combine(Samples(), "base", "README.md")));
        Assert.Equal(
            Directory.GetFiles(Path.Combine(Samples(), "base")).Select(Path.GetFileName).Where(name => name != "README.md").Order(),
            stated.Select(line => line.Groups[1].Value).Order());
        Assert.All(stated, line => Assert.Equal(
            line.Groups[2].Value,
            Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(Path.Combine(Samples(), "base", line.Groups[1].Value))))));
    }

    [Fact]
    public void The_base_model_is_small_enough_to_ship() =>
        Assert.True(Directory.GetFiles(Path.Combine(Samples(), "base")).Sum(file => new FileInfo(file).Length) < LargestFolder);

    [Fact]
    public void The_sample_runs_address_the_base_in_the_form_it_was_made_for()
    {
        ChatTemplateName made = Read("base.json").Model.ChatTemplate;
        Assert.Equal(made, Read("sample.json").Model.ChatTemplate);
        Assert.Equal(made, Read("overoptimise.json").Model.ChatTemplate);
    }

    [GeneratedRegex(@"^\| `([\w.]+)` \| `([0-9a-f]{64})` \|$", RegexOptions.Multiline)]
    private static partial Regex Line();

    private static RunSpec Read(string name) => SpecReader.Read(File.ReadAllText(Path.Combine(Samples(), name)));

    private static string Samples([CallerFilePath] string source = "") =>
        Path.GetFullPath(Path.Combine(Path.GetDirectoryName(source)!, "../../../samples"));
}
