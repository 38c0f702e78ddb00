using System.Text.RegularExpressions;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>docs/reliability.md names the tests that prove each promise: they must exist.</summary>
public sealed partial class PromiseTests
{
    private const int Promises = 10;

    [Fact]
    public void Every_promise_names_tests_that_exist()
    {
        string[] sources = [.. Directory.GetFiles(Path.Combine(BuildOutput.Repository, "tests"), "*.cs", SearchOption.AllDirectories)
            .Where(file => !file.Contains($"{Path.DirectorySeparatorChar}obj{Path.DirectorySeparatorChar}", StringComparison.Ordinal))];
        string[] rows = [.. File.ReadAllLines(Path.Combine(BuildOutput.Repository, "docs", "reliability.md")).Where(line => Row().IsMatch(line))];
        var missing = new List<string>();
        foreach (string row in rows)
        {
            MatchCollection tests = Test().Matches(row);
            if (tests.Count == 0)
                missing.Add($"no test in: {row}");
            missing.AddRange(tests.Where(test => !Exists(test.Groups["class"].Value, test.Groups["method"].Value, sources)).Select(test => test.Value));
        }

        Assert.Equal(Promises, rows.Length);
        Assert.Empty(missing);
    }

    [Fact]
    public void A_test_that_does_not_exist_is_found_missing() =>
        Assert.False(Exists(nameof(PromiseTests), "No_such_test", [Path.Combine(BuildOutput.Repository, "tests", "Chaos.Tests", "PromiseTests.cs")]));

    private static bool Exists(string type, string method, string[] sources) =>
        sources.Where(file => Path.GetFileNameWithoutExtension(file) == type).Select(File.ReadAllText)
            .Any(source => Regex.IsMatch(source, $@"\[(Fact|Theory|Property)[^\n]*(\n\s*\[[^\n]*)*\n\s*public [\w<> ]+ {method}\("));

    [GeneratedRegex(@"^\| \d+ \|")]
    private static partial Regex Row();

    [GeneratedRegex("`(?<class>[A-Za-z]+Tests)\\.(?<method>\\w+)`")]
    private static partial Regex Test();
}
