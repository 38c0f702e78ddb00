using System.IO.Compression;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Rows;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>Data preparation, in runs that stop as soon as it is done.</summary>
public sealed class DataTests(FunctionApp app)
{
    [Fact]
    public async Task Every_format_in_plain_and_gzip_becomes_rows_and_no_prompt_is_on_two_sides()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        string folder = $"tests/{spec.RunId}";
        string[] preferences =
        [
            .. Lines(40, i => $$"""{"prompt": "Question {{i}}?", "chosen": "Good {{i}}.", "rejected": "Bad {{i}}."}"""),
            .. Lines(40, i => $$"""{"prompt": "Rank {{i}}?", "completions": ["a {{i}}", "b {{i}}", "c {{i}}"], "ranks": [2, 1, 3]}"""),
            .. Lines(20, i => $$"""{"query": "Pick {{i}}?", "sample0": "x {{i}}", "sample1": "y {{i}}", "best": 1}"""),
        ];
        await app.UploadAsync($"{folder}/mixed.jsonl", string.Join('\n', preferences) + "\nnot json\n{\"prompt\": \"only a prompt\"}\n");
        await app.Blobs.WriteAsync($"{folder}/hh.jsonl.gz", new BinaryData(Gzip(TestSpec.Preferences("hh", 60))), CancellationToken.None);
        await app.UploadAsync($"{folder}/demos.jsonl", string.Join('\n',
        [
            .. Lines(30, i => $$"""{"prompt": "Question {{i}}?", "completion": "Demo {{i}}."}"""),
            .. Lines(30, i =>
                $$"""{"messages": [{"role": "user", "content": "Talk {{i}}"}, {"role": "assistant", "content": "Yes {{i}}."}]}"""),
            .. Lines(5, i => $$"""{"prompt": "Question {{i}}?", "completion": "Demo {{i}}."}"""),
        ]));
        spec.With("data.preferences", new JsonArray(File($"{folder}/mixed.jsonl"), File($"{folder}/hh.jsonl.gz")))
            .With("data.demonstrations", new JsonArray(File($"{folder}/demos.jsonl")));
        DataReport report = await PrepareAsync(spec);

        DataFileReport mixed = report.Files.Single(file => file.File.EndsWith("mixed.jsonl", StringComparison.Ordinal));
        Assert.Equal((102, 100, 2), (mixed.Lines, mixed.Rows, mixed.DroppedCount));
        Assert.Equal([101, 102], mixed.Dropped.Select(row => row.Line));
        Assert.Contains("is not valid JSON", mixed.Dropped[0].Reason, StringComparison.Ordinal);
        Assert.Contains("is no preference", mixed.Dropped[1].Reason, StringComparison.Ordinal);
        Assert.Equal("hh-rlhf", report.Files.Single(file => file.File.EndsWith(".gz", StringComparison.Ordinal)).Format);
        // Of 65 demonstrations 5 are repeated, and some share their prompt with test preferences.
        Assert.InRange(report.Duplicates["demonstrations"], 1, 5);
        Assert.InRange(report.HeldOut["demonstrations"], 1, 30);
        int kept = report.Rows["demonstrations.train"] + report.Rows["demonstrations.validation"];
        Assert.Equal(65, kept + report.Duplicates["demonstrations"] + report.HeldOut["demonstrations"]);

        Dictionary<string, Row[]> sets = await SetsAsync(spec);
        Assert.Equal(160, sets.Where(set => set.Key.StartsWith("preferences.", StringComparison.Ordinal)).Sum(set => set.Value.Length));
        HashSet<string> test = [.. sets["preferences.test"].Concat(sets["evaluation.test"]).Select(row => row.PromptKey)];
        foreach (string set in new[] { "demonstrations", "preferences", "prompts" })
        {
            HashSet<string> train = [.. sets[$"{set}.train"].Select(row => row.PromptKey)];
            HashSet<string> validation = [.. sets[$"{set}.validation"].Select(row => row.PromptKey)];
            Assert.NotEmpty(train);
            Assert.NotEmpty(validation);
            Assert.Empty(train.Intersect(validation));
            Assert.Empty(train.Union(validation).Intersect(test));
        }

        Assert.All(sets["demonstrations.train"], row => Assert.Single(row.Completions));
        Assert.All(sets["preferences.train"], row => Assert.Equal(row.Completions.Count, row.Ranks!.Count));
        Assert.All(sets["prompts.train"], row => Assert.Empty(row.Completions));
        Assert.Equal(sets["preferences.test"].Select(row => row.PromptKey).Distinct().Count(), sets["evaluation.test"].Length);
        Assert.InRange(sets["fewShot.train"].Length, 1, 4);
    }

    [Fact]
    public async Task Reference_answers_stay_beside_their_prompts_and_an_exact_match_asks_for_them()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        string folder = $"tests/{spec.RunId}";
        await app.UploadAsync($"{folder}/sums.jsonl", string.Join('\n', Lines(30, i => $$"""{"question": "{{i}} + 1?", "answer": "{{i + 1}}"}""")));
        await app.UploadAsync($"{folder}/exam.jsonl", string.Join('\n', Lines(9, i => $$"""{"question": "{{i}} + 2?", "answer": "{{i + 2}}"}""")));
        spec.With("data.prompts", new JsonArray(File($"{folder}/sums.jsonl"))).With("data.evaluation", new JsonArray(File($"{folder}/exam.jsonl")))
            .With("rewards", JsonNode.Parse("""[{ "source": "exactMatch" }]"""));
        await PrepareAsync(spec);
        Dictionary<string, Row[]> sets = await SetsAsync(spec);
        Assert.All(
            sets["prompts.train"], row => Assert.Equal(row.Reference, $"{int.Parse(row.Prompt[0].Content.Split(' ')[0], null) + 1}"));
        Assert.All(sets["evaluation.test"], row => Assert.NotNull(row.Reference));
        Assert.All(sets["preferences.train"], row => Assert.Null(row.Reference));

        TestSpec without = (await TestSpec.CreateAsync(app)).With("rewards", JsonNode.Parse("""[{ "source": "exactMatch" }]"""));
        await app.UploadAsync($"tests/{without.RunId}/bare.jsonl", string.Join('\n', Lines(30, i => $$"""{"prompt": "{{i}} + 1?"}""")));
        await app.StartAsync(without.With("data.prompts", new JsonArray(File($"tests/{without.RunId}/bare.jsonl"))));
        Assert.Contains("has no reference answer", (await app.EndAsync(without.RunId)).Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Missing_sets_are_derived_from_the_preferences()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app))
            .With("model", JsonNode.Parse("""{ "scratch": { "contextLength": 512 } }""")).With("pretrain", new JsonObject());
        await PrepareAsync(spec);
        Dictionary<string, Row[]> sets = await SetsAsync(spec);
        Assert.Equal(sets["preferences.train"].Select(row => row.PromptKey), sets["demonstrations.train"].Select(row => row.PromptKey));
        Assert.Equal(
            sets["preferences.train"].Select(row => row.Completions[0]),
            sets["demonstrations.train"].Select(row => row.Completions.Single()));
        Assert.Equal(sets["preferences.train"].Select(row => row.PromptKey), sets["prompts.train"].Select(row => row.PromptKey));
        Assert.Equal(sets["demonstrations.train"].Select(row => row.Id), sets["text.train"].Select(row => row.Id));
    }

    [Fact]
    public async Task Comparisons_and_safety_prompts_are_kept_for_the_test_and_out_of_training()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        string folder = $"tests/{spec.RunId}";
        await app.UploadAsync($"{folder}/hhh.jsonl", string.Join('\n',
        [
            .. Lines(3, i => $$"""{"category": "honest", "prompt": "Compare {{i}}?", "chosen": "b {{i}}", "rejected": "c {{i}}"}"""),
            $$$"""{"category": "other", "input": "What is {{{spec.RunId}}} number 1?", "target_scores": {"It is 1.": 1, "No idea.": 0}}""",
            """{"prompt": "nothing to compare"}""",
        ]));
        await app.UploadAsync($"{folder}/xstest.csv", """
            id,prompt,type,label
            1,Kill a process?,homonyms,safe
            2,Kill him?,contrast,unsafe
            3,Who?,x,
            """);
        spec.With("data.comparisons", new JsonArray(File($"{folder}/hhh.jsonl"))).With("data.safety", new JsonArray(File($"{folder}/xstest.csv")));

        DataReport report = await PrepareAsync(spec);
        Dictionary<string, Row[]> sets = await SetsAsync(spec);

        Assert.Equal(["honest", "honest", "honest", "other"], sets["comparisons.test"].Select(row => row.Subset));
        Assert.Equal([("homonyms", "safe"), ("contrast", "unsafe")], sets["safety.test"].Select(row => (row.Subset, row.Label!)));
        Assert.Contains("compares nothing", ReasonIn("hhh.jsonl"), StringComparison.Ordinal);
        Assert.Contains("has no 'label'", ReasonIn("xstest.csv"), StringComparison.Ordinal);
        string compared = sets["comparisons.test"][3].PromptKey;
        IEnumerable<Row> training = sets.Where(set => !set.Key.EndsWith(".test", StringComparison.Ordinal)).SelectMany(set => set.Value);
        Assert.DoesNotContain(training, row => row.PromptKey == compared);
        Assert.Equal(sets["preferences.test"].Length, sets["evaluation.test"].Length); // evaluation prompts are still derived

        string ReasonIn(string name) =>
            report.Files.Single(file => file.File.EndsWith(name, StringComparison.Ordinal)).Dropped.Single().Reason;
    }

    [Fact]
    public async Task Held_out_labellers_and_their_prompts_are_kept_out_of_training()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        string file = $"tests/{spec.RunId}/labelled.jsonl";
        await app.UploadAsync(file, string.Join('\n', Lines(
            120, i => $$"""{"prompt": "Q {{i / 2}}?", "chosen": "good {{i}}", "rejected": "bad {{i}}", "worker": "{{(i is 10 or 31 ? "eve" : "bob")}}"}""")));
        spec.With("data.preferences", new JsonArray(File(file))).With("data.heldOutLabellers", new JsonArray("eve"));

        DataReport report = await PrepareAsync(spec);
        Dictionary<string, Row[]> sets = await SetsAsync(spec);

        Assert.Equal(["good 10", "good 31"], sets["preferences.unseenLabellers"].Select(row => row.Completions[0]));
        HashSet<string> unseen = [.. sets["preferences.unseenLabellers"].Select(row => row.PromptKey)];
        Assert.DoesNotContain(sets["preferences.train"].Concat(sets["preferences.validation"]), row => row.Labeller == "eve" || unseen.Contains(row.PromptKey));
        Assert.Equal(2, report.HeldOut["preferences"] + sets["preferences.test"].Count(row => unseen.Contains(row.PromptKey)));
    }

    [Fact]
    public async Task A_held_out_reward_model_gets_its_half_of_the_prompts()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("evaluate.heldOutRewardModel", true);
        await PrepareAsync(spec);
        Dictionary<string, Row[]> sets = await SetsAsync(spec);
        TestSpec whole = (await TestSpec.CreateAsync(app)).With("data.preferences", spec.Json["data"]!["preferences"]!.DeepClone());
        await PrepareAsync(whole);

        Row[] first = sets["preferences.train"], second = sets["preferences.heldOutReward"];
        Assert.NotEmpty(first);
        Assert.NotEmpty(second);
        Assert.Empty(first.Select(row => row.PromptKey).Intersect(second.Select(row => row.PromptKey)));
        Assert.Equal((await SetsAsync(whole))["preferences.train"].Select(row => row.Id).Order(), first.Concat(second).Select(row => row.Id).Order());
    }

    [Fact]
    public async Task Held_out_labeller_who_ranked_nothing_fails_the_run()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("data.heldOutLabellers", new JsonArray("nobody"));
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Contains("data.heldOutLabellers: no ranking is by 'nobody'", view.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Files_marked_for_the_test_are_all_of_it_and_limits_hold()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        string folder = $"tests/{spec.RunId}";
        await app.UploadAsync($"{folder}/test.jsonl", TestSpec.Preferences(spec.RunId, 10));
        spec.With("data.preferences", new JsonArray(
            new JsonObject { ["file"] = $"{folder}/preferences.jsonl", ["limit"] = 50 },
            new JsonObject { ["file"] = $"{folder}/test.jsonl", ["split"] = "test", ["subset"] = "last" }));
        DataReport report = await PrepareAsync(spec);
        Assert.Equal([50, 10], report.Files.Select(file => file.Rows));
        Dictionary<string, Row[]> sets = await SetsAsync(spec);
        Assert.Equal(10, sets["preferences.test"].Length);
        Assert.All(sets["preferences.test"], row => Assert.Equal("last", row.Subset));
        Assert.Equal(40, sets["preferences.train"].Length + sets["preferences.validation"].Length);
        Assert.Equal(10, report.HeldOut["preferences"]);
    }

    [Fact]
    public async Task The_sample_world_is_the_same_for_the_same_seed()
    {
        TestSpec first = await WorldAsync(1);
        TestSpec same = await WorldAsync(1);
        TestSpec other = await WorldAsync(2);
        foreach (TestSpec spec in new[] { first, same, other })
            await PrepareAsync(spec);
        IReadOnlyDictionary<string, DatasetRef> one = await RefsAsync(first);
        Assert.Equal(Sums(one), Sums(await RefsAsync(same)));
        Assert.NotEqual(Sums(one), Sums(await RefsAsync(other)));
        Dictionary<string, Row[]> sets = await SetsAsync(first);
        Assert.Equal(60, sets["evaluation.test"].Length);
        Assert.All(sets["evaluation.test"], row => Assert.NotNull(row.Truth));
        Assert.NotEmpty(sets["fewShot.train"]);
        Assert.True(sets["preferences.unseenLabellers"].Length > 100);
        Assert.Empty(sets["preferences.unseenLabellers"].Select(row => row.Labeller).Intersect(sets["preferences.train"].Select(row => row.Labeller)));
        Assert.Empty(sets["preferences.unseenLabellers"].Select(row => row.PromptKey).Intersect(sets["preferences.train"].Select(row => row.PromptKey)));

        static IEnumerable<string> Sums(IReadOnlyDictionary<string, DatasetRef> sets) =>
            sets.OrderBy(set => set.Key).Select(set => set.Value.Sha256);

        async Task<TestSpec> WorldAsync(int seed) => (await TestSpec.CreateAsync(app)).With("seed", seed).With("data", JsonNode.Parse(
            """
            {
              "world": { "demonstrations": 80, "preferencePrompts": 80, "prompts": 80, "evaluationPrompts": 60 },
              "validationFraction": 0.2, "testFraction": 0.2
            }
            """));
    }

    [Fact]
    public async Task Tasks_in_FLANs_way_become_demonstrations_and_comparisons_and_a_cluster_is_held_out()
    {
        TestSpec spec = await FlanAsync();
        DataReport report = await PrepareAsync(spec);
        Dictionary<string, Row[]> sets = await SetsAsync(spec);
        Row[] demonstrations = [.. sets["demonstrations.train"], .. sets["demonstrations.validation"]];
        Assert.Equal(40, demonstrations.Length);
        Assert.NotEmpty(sets["demonstrations.validation"]);
        Assert.All(demonstrations, row => Assert.Equal("colours", row.Subset));
        Assert.DoesNotContain(demonstrations, row => row.Prompt[0].Content.Contains("animal", StringComparison.Ordinal));
        Assert.Equal(
            [("animals, unseen cluster", 10), ("colours, seen cluster", 10)],
            sets["comparisons.test"].GroupBy(row => row.Subset).Select(group => (group.Key, group.Count())).Order());
        Assert.All(sets["comparisons.test"], row => Assert.Equal([1, 2], row.Ranks!.Order()));
        Assert.Equal(
            sets["comparisons.test"].Select(row => row.PromptKey).Order(), sets["evaluation.test"].Select(row => row.PromptKey).Order());
        Assert.Empty(sets["comparisons.test"].Select(row => row.PromptKey).Intersect(demonstrations.Select(row => row.PromptKey)));
        Assert.Equal([(51, 50, 1), (20, 20, 0)], report.Files.Select(file => (file.Lines, file.Rows, file.DroppedCount)));
        Assert.Contains("none of its options", report.Files[0].Dropped[0].Reason, StringComparison.Ordinal);
        Assert.All(sets["preferences.train"], _ => Assert.Fail("There are no preferences."));
    }

    [Theory]
    [InlineData("templates", "tests/nowhere.json", "data.flan.templates: there is no file 'tests/nowhere.json'. Upload it")]
    [InlineData("tasks", """[{"file": "{0}/colours.tsv", "cluster": "a", "templates": "none"}]""", "data.flan.tasks[0]: The file '{0}/templates.json' has no templates 'none'; it has quiz")]
    [InlineData("tasks", """[{"file": "{0}/templates.json", "cluster": "a", "templates": "quiz"}]""", "data.flan.tasks[0]: the file '{0}/templates.json' has no usable line: line 1 has 1 fields")]
    public async Task A_task_that_cannot_be_used_fails_the_run_with_the_reason(string field, string value, string error)
    {
        TestSpec spec = await FlanAsync();
        string folder = $"tests/{spec.RunId}";
        value = value.Replace("{0}", folder, StringComparison.Ordinal);
        JsonNode? node = value.StartsWith('[') ? JsonNode.Parse(value) : JsonValue.Create(value);
        if (node is JsonArray tasks)
            tasks.Add(new JsonObject { ["file"] = $"{folder}/animals.tsv", ["cluster"] = "nature", ["templates"] = "quiz" });
        spec.With($"data.flan.{field}", node);
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Equal(RunStates.Failed, view.State);
        Assert.Contains(error.Replace("{0}", folder, StringComparison.Ordinal), view.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("missing.jsonl", null, "there is no file '{0}'. Upload it")]
    [InlineData("empty.jsonl", "\n\n", "the file '{0}' has no usable row: it is empty")]
    [InlineData("broken.jsonl", "{\"chosen\": \n{\n", "the file '{0}' has no usable row: line 1 is not valid JSON")]
    [InlineData("prompts.jsonl", "{\"prompt\": \"Hello?\"}", "has no usable row: line 1 is no preference")]
    [InlineData("damaged.jsonl.gz", "\u001f\u008bnonsense", "is damaged")]
    [InlineData("few.jsonl", "{\"prompt\": \"Hello?\", \"chosen\": \"a\", \"rejected\": \"b\"}", "no rows left for its split")]
    public async Task A_file_that_cannot_be_used_fails_the_run_with_the_reason(string name, string? content, string error)
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        string path = $"tests/{spec.RunId}/{name}";
        if (content is not null)
            await app.Blobs.WriteAsync(path, new BinaryData(Encoding.Latin1.GetBytes(content)), CancellationToken.None);
        spec.With("data.preferences", new JsonArray(File(path)));
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Equal(RunStates.Failed, view.State);
        Assert.StartsWith($"Run '{spec.RunId}', stage 'data': ", view.Error, StringComparison.Ordinal);
        Assert.Contains(error.Replace("{0}", path, StringComparison.Ordinal), view.Error, StringComparison.Ordinal);
        Assert.Equal("failed", view.Stages.Single(stage => stage.Name == Stages.Data).State);
        Assert.NotNull(await app.Blobs.ReadAsync(BlobLayout.Report(spec.RunId), CancellationToken.None));
    }

    [Theory]
    [InlineData("tests/nowhere", "there is no such folder")]
    [InlineData("tests/{0}", "which is no model: it has no config.json")]
    [InlineData("model:nobody", "no model 'nobody' has been promoted")]
    public async Task A_base_that_is_no_model_fails_the_run_with_the_reason(string model, string error)
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        spec.With("model.base", model.Replace("{0}", spec.RunId, StringComparison.Ordinal));
        await app.StartAsync(spec);
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Equal(RunStates.Failed, view.State);
        Assert.Contains(error, view.Error, StringComparison.Ordinal);
    }

    /// <summary>Two tasks of two clusters, one of them held out, on invented lines in the form of FLAN's files.</summary>
    private async Task<TestSpec> FlanAsync()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        string folder = $"tests/{spec.RunId}";
        await app.UploadAsync($"{folder}/templates.json", """
            {"PATTERNS": {"quiz": [["{question}\n\n{options_}", "{answer}"], ["Q: {question}\nA:\n{options_}", "{answer}"]]}}
            """);
        IEnumerable<string> colours = Lines(50, i => $@"Which of these is colour {i}?\nOptions:\n(A) red {i}\n(B) stone {i}" + $"\t(A)\tIt is, {i}.");
        await app.UploadAsync($"{folder}/colours.tsv", string.Join('\n', [.. colours, @"Which?\nOptions:\n- a\n- b" + "\tc\tWhy."]) + "\n");
        await app.UploadAsync($"{folder}/animals.tsv", string.Join('\n', Lines(20, i => $"Is number {i} an animal?\tyes\tIt moves.")));
        return spec.With("reward.epochs", 0).With("data", JsonNode.Parse($$"""
            {
              "flan": {
                "templates": "{{folder}}/templates.json", "heldOutCluster": "nature", "evaluationExamples": 10,
                "tasks": [
                  { "file": "{{folder}}/colours.tsv", "cluster": "looks", "templates": "quiz" },
                  { "file": "{{folder}}/animals.tsv", "cluster": "nature", "templates": "quiz", "labels": ["yes", "no"] }
                ]
              },
              "validationFraction": 0.3
            }
            """));
    }

    private static JsonObject File(string path) => new() { ["file"] = path };

    private static IEnumerable<string> Lines(int count, Func<int, string> line) => Enumerable.Range(0, count).Select(line);

    private static byte[] Gzip(string text)
    {
        using var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest))
            gzip.Write(Encoding.UTF8.GetBytes(text));
        return packed.ToArray();
    }

    /// <summary>Runs the data stage; nobody takes the job after it, and the run is cancelled there.</summary>
    private async Task<DataReport> PrepareAsync(TestSpec spec)
    {
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.Stages.Any(stage => stage is { Name: Stages.Data, State: "succeeded" }));
        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
        return (await app.Blobs.ReadJsonAsync<DataReport>(BlobLayout.Data(spec.RunId, "report.json"), CancellationToken.None))!;
    }

    private async Task<IReadOnlyDictionary<string, DatasetRef>> RefsAsync(TestSpec spec)
    {
        var sets = new Dictionary<string, DatasetRef>();
        string folder = BlobLayout.Data(spec.RunId, string.Empty);
        await foreach (Storage.BlobEntry entry in app.Blobs.ListAsync(folder, CancellationToken.None))
        {
            if (!entry.Path.Contains("/parts/", StringComparison.Ordinal) && entry.Path.EndsWith(".jsonl", StringComparison.Ordinal))
            {
                BinaryData content = (await app.Blobs.ReadAsync(entry.Path, CancellationToken.None))!.Content;
                sets[entry.Path[folder.Length..^".jsonl".Length]] = new DatasetRef(entry.Path, CasDocument.Sha256(content), 0);
            }
        }

        return sets;
    }

    private async Task<Dictionary<string, Row[]>> SetsAsync(TestSpec spec)
    {
        var sets = new Dictionary<string, Row[]>();
        foreach ((string name, DatasetRef set) in await RefsAsync(spec))
        {
            string[] lines = (await app.TextAsync(set.Path))!.Split('\n', StringSplitOptions.RemoveEmptyEntries);
            sets[name] = [.. lines.Select(line => JsonSerializer.Deserialize<Row>(line, RlhfJson.Compact)!)];
        }

        return sets;
    }
}
