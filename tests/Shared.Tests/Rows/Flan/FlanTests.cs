using System.IO.Compression;
using System.Text;
using Rlhf.Rows;
using Rlhf.Rows.Flan;
using Rlhf.Spec;
using Xunit;

namespace Rlhf.Shared.Tests.Rows.Flan;

public sealed class FlanTests
{
    private const string Templates = """
        {"PATTERNS": {
          "quiz": [["{question}\n\n{options_}", "{answer}"], ["Q: {question}\nA:\n{options_}", "{answer}"], ["Ask something.", "{question}"]],
          "needs": [["{premise} {question}\n{options_}", "{answer}"]],
          "turned": [["Ask something.", "{question}"]]}}
        """;

    [Theory]
    [InlineData(@"What flies?\nOptions:\n- a stone\n- a bird", "a bird", "What flies?", new[] { "a stone", "a bird" }, 1)]
    [InlineData(@"What is 2 + 2?\nOptions:\n(A) 3\n(B) 4\n(C) 5", "(B)", "What is 2 + 2?", new[] { "3", "4", "5" }, 1)]
    [InlineData(@"What swims?\nOptions:\n- (A) fish\n- (B) sand", "(A)", "What swims?", new[] { "fish", "sand" }, 0)]
    [InlineData(
        @"Which makes no sense?\nOptions:\n- Sentence A: ""He drinks tea.""\n- Sentence B: ""He drinks 3:30.""\n", "Sentence B",
        "Which makes no sense?", new[] { "He drinks tea.", "He drinks 3:30." }, 1)]
    [InlineData(@"""Snow is warm.""\nIs that so?", "no", "\"Snow is warm.\"\nIs that so?", new[] { "yes", "no" }, 1)]
    public void A_line_gives_question_options_and_the_text_of_the_answer(
        string field, string answer, string question, string[] options, int right)
    {
        FlanResult result = FlanTaskFile.Parse($"{field}\t{answer}\tIt is so.\\nIndeed.", 7, "yes", "no");
        Assert.Null(result.Reason);
        Assert.Equal(question, result.Example!.Question);
        Assert.Equal(options, result.Example.Options);
        Assert.Equal(right, result.Example.Answer);
        Assert.Equal("It is so.\nIndeed.", result.Example.Rationale);
    }

    [Theory]
    [InlineData("Why?", "has 1 fields")]
    [InlineData("Why?\tbecause", "lists no options, and the task has no labels")]
    [InlineData(@"\nOptions:\n- a\n- b" + "\ta", "has no question")]
    [InlineData(@"Why?\nOptions:\n- a" + "\ta", "lists no options")]
    [InlineData(@"Why?\nOptions:\n- a\n- b" + "\tc", "has the answer 'c', which is none of its options")]
    [InlineData(@"Why?\nOptions:\n(A) 1\n(B) 2" + "\t(C)", "has the answer '(C)', which is none of its options")]
    [InlineData(@"Why?\nOptions:\n(A) 1\n(B) 1" + "\t(A)", "has two equal options")]
    [InlineData(@"Why?\nOptions:\n- a\n- b\n- a" + "\tb", "has two equal options")]
    public void A_line_that_cannot_be_used_says_why(string line, string reason)
    {
        FlanResult result = FlanTaskFile.Parse(line);
        Assert.Null(result.Example);
        Assert.StartsWith(reason, result.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void The_options_suffix_is_that_of_FLAN() =>
        // flan/preprocessors.py, format_options: 'OPTIONS:\n- ' and the options joined by '\n- '.
        Assert.Equal("OPTIONS:\n- yes\n- no\n- maybe", FlanTemplate.OptionsSuffix(["yes", "no", "maybe"]));

    [Fact]
    public void A_template_puts_question_options_and_answer_in_their_places_and_nothing_else()
    {
        var example = new FlanExample("Is {answer} a word?", ["{question}", "no"], 0, "");
        var template = new FlanTemplate("Q: {question}\n\n{options_}\nAgain: {question}", "{answer}!");
        // What is filled in is not looked at again.
        Assert.Equal(
            ("Q: Is {answer} a word?\n\nOPTIONS:\n- {question}\n- no\nAgain: Is {answer} a word?", "{question}!"), template.Fill(example));
        Assert.False(template.IsClassification);
        Assert.True((template with { Target = "{answer}" }).IsClassification);
        Assert.False(new FlanTemplate("Ask something.", "{question}").IsClassification);
    }

    [Fact]
    public async Task Templates_are_read_plain_and_refused_with_a_reason()
    {
        FlanTemplates templates = await Read(Templates);
        Assert.Equal(3, templates.Of("quiz").Count);
        Assert.Contains("has no templates 'arc'; it has needs, quiz, turned", Refusal(() => templates.Of("arc")), StringComparison.Ordinal);
        Assert.Contains("need premise", Refusal(() => templates.Of("needs")), StringComparison.Ordinal);
        Assert.Contains("no template of 'turned' that lists the options", Refusal(() => templates.Of("turned")), StringComparison.Ordinal);
        foreach ((string json, string reason) in ((string, string)[])
        [
            ("{}", "no object 'PATTERNS'"), ("[1", "no file of templates"), ("""{"PATTERNS": {"a": [["x"]]}}""", "no pair"),
        ])
        {
            var refused = await Assert.ThrowsAsync<UnreadableFileException>(() => Read(json));
            Assert.Contains(reason, refused.Message, StringComparison.Ordinal);
        }

        static string Refusal(Action read) => Assert.Throws<UnreadableFileException>(read).Message;
    }

    [Fact]
    public async Task The_held_out_cluster_is_in_no_training_data_and_no_question_is_on_both_sides()
    {
        FlanMixture mixture = await Mix(seed: 1);
        Assert.Equal(["maths"], mixture.Demonstrations.Select(row => row.Subset).Distinct());
        Assert.DoesNotContain(mixture.Text, row => row.Completions[0].Contains("animal", StringComparison.Ordinal));
        Assert.DoesNotContain(mixture.Demonstrations, row => (row.Prompt[0].Content + row.Completions[0]).Contains("animal", StringComparison.Ordinal));
        Assert.Equal(
            [("animals, unseen cluster", 4), ("maths, seen cluster", 4)],
            mixture.Comparisons.GroupBy(row => row.Subset).Select(group => (group.Key, group.Count())).Order());
        foreach (Row kept in mixture.Comparisons)
        {
            string question = kept.Prompt[0].Content.Split('\n')[0].Replace("Q: ", "", StringComparison.Ordinal);
            Assert.DoesNotContain(mixture.Text, row => row.Completions[0].Contains(question, StringComparison.Ordinal));
            Assert.DoesNotContain(mixture.Demonstrations, row =>
                (row.Prompt[0].Content + row.Completions[0]).Contains(question, StringComparison.Ordinal));
        }
    }

    [Fact]
    public async Task Comparisons_rank_the_right_option_first_and_list_them_all()
    {
        foreach (Row row in (await Mix(seed: 2)).Comparisons)
        {
            Assert.EndsWith(FlanTemplate.OptionsSuffix(row.Completions), row.Prompt[0].Content, StringComparison.Ordinal);
            Assert.Equal("right", row.Completions[row.Ranks!.ToList().IndexOf(1)][..5]);
            Assert.Equal(1, row.Ranks!.Count(rank => rank == 1));
        }
    }

    [Fact]
    public async Task A_task_gives_at_most_its_share_and_every_template_is_used()
    {
        FlanMixture mixture = await Mix(seed: 3);
        Assert.Equal(30, mixture.Demonstrations.Count); // of 60, less 4 for the evaluation
        Assert.Contains(mixture.Demonstrations, row => row.Prompt[0].Content.StartsWith("Q: ", StringComparison.Ordinal));
        Assert.Contains(mixture.Demonstrations, row => row.Prompt[0].Content.StartsWith("Sum", StringComparison.Ordinal));
        Assert.Contains(mixture.Demonstrations, row => row.Prompt[0].Content == "Ask something." && row.Completions[0].StartsWith("Sum", StringComparison.Ordinal));
        Assert.DoesNotContain(mixture.Comparisons, row => row.Prompt[0].Content == "Ask something.");
    }

    [Fact]
    public async Task The_seed_decides_the_rows()
    {
        Assert.Equal(Ids(await Mix(seed: 4)), Ids(await Mix(seed: 4)));
        Assert.NotEqual(Ids(await Mix(seed: 4)), Ids(await Mix(seed: 5)));
        static string[] Ids(FlanMixture mixture) =>
            [.. mixture.Text.Concat(mixture.Demonstrations).Concat(mixture.Comparisons).Select(row => row.Id)];
    }

    [Theory]
    [InlineData(true)] // a few kilobytes that unpack to it
    [InlineData(false)]
    public async Task Templates_larger_than_any_are_refused(bool gzip)
    {
        byte[] content = [.. Encoding.UTF8.GetBytes("{\"PATTERNS\":{\"a\":[[\""), .. Enumerable.Repeat((byte)'x', 17 * 1024 * 1024)];
        if (gzip)
        {
            using var packed = new MemoryStream();
            using (var target = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true))
                target.Write(content);
            content = packed.ToArray();
        }

        var refused = await Assert.ThrowsAsync<UnreadableFileException>(
            () => FlanTemplates.ReadAsync("templates.json", new MemoryStream(content), TestContext.Current.CancellationToken));
        Assert.Contains("'templates.json' is no file of templates: it holds more than 16 MiB", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Templates_nested_without_end_are_refused() =>
        await Assert.ThrowsAsync<UnreadableFileException>(() => Read("{\"PATTERNS\":" + new string('[', 50_000)));

    private static Task<FlanTemplates> Read(string json) => FlanTemplates.ReadAsync("templates.json", new MemoryStream(Encoding.UTF8.GetBytes(json)));

    private static async Task<FlanMixture> Mix(long seed)
    {
        IReadOnlyList<FlanTemplate> quiz = (await Read(Templates)).Of("quiz");
        var spec = new FlanSpec
        {
            Templates = "templates.json",
            HeldOutCluster = "nature",
            EvaluationExamples = 4,
            MaxExamplesPerTask = 30,
            Tasks = [new FlanTaskSpec { File = "maths.tsv", Cluster = "numbers" }, new FlanTaskSpec { File = "animals.tsv", Cluster = "nature" }],
        };
        FlanTask[] tasks =
        [
            new("maths", spec.Tasks[0], [.. Examples(60, "Sum")], quiz),
            new("animals", spec.Tasks[1], [.. Examples(20, "Which animal is number")], quiz),
        ];
        return FlanMixture.Of(spec, tasks, seed);
    }

    /// <summary>Each twice, as real files have them.</summary>
    private static IEnumerable<FlanExample> Examples(int count, string stem) =>
        Enumerable.Range(0, 2 * count).Select(i => i / 2).Select(i =>
            new FlanExample($"{stem} [{i}]?", [.. Enumerable.Range(0, 3).Select(o => o == i % 3 ? $"right {i}" : $"wrong {o}")], i % 3, $"So it is, {i}."));
}
