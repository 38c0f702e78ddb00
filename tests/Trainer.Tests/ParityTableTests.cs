using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Rlhf.Trainer.Tests.Methods;
using Rlhf.Trainer.Tests.Models;
using Rlhf.Trainer.Tokenizers;
using Xunit;

namespace Rlhf.Trainer.Tests;

/// <summary>
/// docs/parity.md holds the largest deviation from the references, fixture by fixture. With UPDATE_DOCS=1 this test writes it.
/// </summary>
public sealed partial class ParityTableTests
{
    private static readonly string Fixtures = Path.Combine(AppContext.BaseDirectory, "fixtures");

    /// <summary>The classes whose tests go through the cases of fixtures/rl.</summary>
    private static readonly Type[] LossTests = [typeof(LossesTests), typeof(StatisticsTests), typeof(OptimizerTests)];

    [Fact]
    public void The_table_in_docs_lists_what_is_measured_and_nothing_exceeds_its_tolerance()
    {
        (string Name, Deviation[] Deviations)[] models =
            [.. FixtureNames("models").Select(name => (name, ModelParity.Measure(name).ToArray()))];
        Assert.All(models.SelectMany(m => m.Deviations), d => Assert.True(d.Largest <= d.Tolerance, d.ToString()));
        IReadOnlyList<ParityFigure> losses = Parity.Record(RunLossTests);
        Assert.All(losses, f => Assert.True(f.Deviation <= f.Tolerance, f.ToString()));

        var page = new StringBuilder(Introduction);
        WriteModels(page, "Language models", models.Where(m => !ModelFixture.RewardModels.Contains(m.Name)));
        WriteModels(page, "Reward models", models.Where(m => ModelFixture.RewardModels.Contains(m.Name)));
        WriteLosses(page, losses);
        WriteTokenizer(page);
        Compare(page.ToString());
    }

    private const string Introduction =
        """
        # Parity

        How far our numbers are from those of independent references: the largest deviation over every comparison of a fixture, on a CPU,
        in 32 bits where nothing else is said. The numbers are in `tests/Trainer.Tests/fixtures`; each was computed by the named code on the
        named inputs, not by us. This page is written by

        ```
        UPDATE_DOCS=1 dotnet run --project tests/Trainer.Tests -- -class Rlhf.Trainer.Tests.ParityTableTests
        ```

        and the same test, in every run of `dotnet test`, measures all of it again, fails where a deviation exceeds its tolerance, and fails
        where this page does not list every fixture, function and quantity. The last digits differ from one processor to another.

        """;

    private static void WriteModels(StringBuilder page, string title, IEnumerable<(string Name, Deviation[] Deviations)> models)
    {
        (string Name, Deviation[] Deviations)[] rows = [.. models];
        Deviation[] columns = rows[0].Deviations;
        page.Append(CultureInfo.InvariantCulture, $"\n## {title}\n\n");
        page.Append(title == "Language models"
            ? """
              transformers 4.44 (commit 50c3ba88), eager attention, on the same random weights. Logits and token log-probabilities are
              compared where the attention mask is 1; cached logits are those of a prompt, single tokens and a chunk with the key/value
              cache. The reference's losses, gradients and its six clipped AdamW steps are in 64 bits. A gradient's deviation (its norm
              and first eight numbers, each weight) is relative to that norm plus 0.1. Greedy: 16 tokens of each prompt, plain and
              left-padded, by the decoder that the sampler chooses and by libtorch.


              """
            : """
              `GPT2ForSequenceClassification` and `LlamaForSequenceClassification` with one label: the score at the last real token, and the
              Bradley-Terry loss of the first row over the second with its gradients.


              """);
        page.Append(CultureInfo.InvariantCulture, $"| fixture | {string.Join(" | ", columns.Select(c => c.Quantity))} |\n");
        page.Append(CultureInfo.InvariantCulture, $"|---|{string.Concat(columns.Select(_ => "---:|"))}\n");
        page.Append(CultureInfo.InvariantCulture, $"| *tolerance* | {string.Join(" | ", columns.Select(c => Limit(c.Tolerance)))} |\n");
        foreach ((string name, Deviation[] deviations) in rows)
        {
            Assert.Equal(columns.Select(c => (c.Quantity, c.Tolerance)), deviations.Select(d => (d.Quantity, d.Tolerance)));
            page.Append(CultureInfo.InvariantCulture, $"| {name} | {string.Join(" | ", deviations.Select(d => Figure(d.Largest)))} |\n");
        }
    }

    private static void WriteLosses(StringBuilder page, IReadOnlyList<ParityFigure> figures)
    {
        page.Append(
            """

            ## Losses, advantages, statistics, optimizer

            The named functions of TRL, verl, OpenRLHF, DPO, PyTorch and transformers, extracted from the named commit and run on fixed
            inputs in 64 bits (`fixtures/rl`); gradients by autograd. Deviations are relative to max(1, |reference|). A function stands
            twice where parts of it, or a run in 32 bits, have a tolerance of their own. Variants that this project does not have are not
            among the fixtures: hinge and further losses of DPO, dual clipping, GSPO, CISPO, KTO, ORPO, SimPO, filters of sampling, other
            schedules.

            | file | function | cases | largest deviation | tolerance |
            |---|---|---:|---:|---:|

            """);
        var compared = new HashSet<(string, string)>();
        foreach (var group in figures.GroupBy(f => (f.File, f.Function, f.Tolerance)).OrderBy(g => g.Key.File, StringComparer.Ordinal)
            .ThenBy(g => g.Key.Function, StringComparer.Ordinal).ThenBy(g => g.Key.Tolerance))
        {
            (string file, string function, double tolerance) = group.Key;
            compared.Add((file, function));
            int cases = Cases(file).Count(f => f == function);
            page.Append(
                CultureInfo.InvariantCulture,
                $"| {file} | {function} | {cases} | {Figure(group.Max(f => f.Deviation))} | {Limit(tolerance)} |\n");
        }

        Assert.Empty(FixtureNames("rl").SelectMany(file => Cases(file).Select(function => (file, function)).Except(compared)));
    }

    private static void WriteTokenizer(StringBuilder page)
    {
        string folder = Path.Combine(Fixtures, "tokenizer");
        ByteLevelBpe tokenizer = ByteLevelBpe.Load(folder);
        using JsonDocument document = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "cases.json")));
        int cases = 0, otherIds = 0, otherText = 0;
        foreach (JsonElement sample in document.RootElement.GetProperty("cases").EnumerateArray())
        {
            string text = sample.GetProperty("text").GetString()!;
            int[] expected = [.. sample.GetProperty("ids").EnumerateArray().Select(id => id.GetInt32())];
            cases++;
            if (!expected.SequenceEqual(tokenizer.Encode(text))) otherIds++;
            if (tokenizer.Decode(expected) != text) otherText++;
        }

        Assert.Equal((0, 0), (otherIds, otherText));
        page.Append(
            CultureInfo.InvariantCulture,
            $"""

            ## Tokenizer

            Byte-level BPE by `src/encoder.py` of openai/gpt-2, run unmodified: {cases} strings, {otherIds} with other ids, {otherText}
            decoded to another text.

            """);
    }

    /// <summary>Runs every test of the classes as the test runner would: what they compare is recorded.</summary>
    private static void RunLossTests()
    {
        foreach (Type type in LossTests)
        {
            object tests = Activator.CreateInstance(type)!;
            foreach (MethodInfo method in type.GetMethods().Where(m => m.IsDefined(typeof(FactAttribute))))
            {
                object?[][] rows = [.. method.GetCustomAttributes<InlineDataAttribute>().Select(row => row.Data)];
                foreach (object?[] arguments in rows.DefaultIfEmpty([])) method.Invoke(tests, arguments);
            }
        }
    }

    private static string[] FixtureNames(string kind) =>
        [.. new DirectoryInfo(Path.Combine(Fixtures, kind)).EnumerateFileSystemInfos().Select(f => f.Name).Order(StringComparer.Ordinal)];

    private static IEnumerable<string> Cases(string file)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllText(Path.Combine(Fixtures, "rl", file)));
        return [.. document.RootElement.GetProperty("cases").EnumerateArray().Select(c => c.GetProperty("fn").GetString()!)];
    }

    /// <summary>Two digits, as in 3.4e-06; tolerances have one. The comparison below knows measured numbers by that.</summary>
    private static string Figure(double value) => value == 0 ? "0" : value.ToString("0.0e-00", CultureInfo.InvariantCulture);

    private static string Limit(double value) => value == 0 ? "none" : value.ToString("0e-0", CultureInfo.InvariantCulture);

    private static void Compare(string generated, [CallerFilePath] string source = "")
    {
        string path = Path.GetFullPath(Path.Combine(Path.GetDirectoryName(source)!, "../../docs/parity.md"));
        if (Environment.GetEnvironmentVariable("UPDATE_DOCS") == "1") File.WriteAllText(path, generated);
        string committed = File.Exists(path) ? File.ReadAllText(path).ReplaceLineEndings("\n") : "";
        Assert.True(
            Measured().Replace(committed, "#") == Measured().Replace(generated, "#"),
            "docs/parity.md does not list what is measured. Write it anew with: UPDATE_DOCS=1 dotnet run --project tests/Trainer.Tests -- "
            + $"-class {typeof(ParityTableTests).FullName}");
    }

    [GeneratedRegex(@"(?<=\| )(0|\d\.\de-\d\d)(?= \|)")]
    private static partial Regex Measured();
}
