using System.Text.Json;
using Rlhf.World;
using Xunit;

namespace Rlhf.Shared.Tests.World;

public class SampleWorldTests
{
    private static readonly WorldOptions Small = new()
    {
        PretrainDocuments = 3_000,
        Demonstrations = 1_500,
        PreferencePrompts = 600,
        UnseenLabellerPrompts = 100,
        Prompts = 1_000,
        EvaluationPrompts = 600,
    };

    private static readonly SampleWorld World = SampleWorld.Create(Small);

    [Fact]
    public void Equal_options_give_equal_worlds()
    {
        SampleWorld again = SampleWorld.Create(Small with { });
        Assert.Equal(Everything(World), Everything(again));
    }

    [Fact]
    public void Another_seed_gives_other_rows() =>
        Assert.NotEqual(World.Demonstrations().First(), SampleWorld.Create(Small with { Seed = 2 }).Demonstrations().First());

    [Fact]
    public void The_training_seed_does_not_touch_the_evaluation() =>
        Assert.Equal(Json(World.Evaluation()), Json(SampleWorld.Create(Small with { Seed = 2 }).Evaluation()));

    [Fact]
    public void A_longer_data_set_starts_with_the_rows_of_a_shorter_one()
    {
        SampleWorld longer = SampleWorld.Create(Small with { Demonstrations = 2_000, Prompts = 1_200 });
        Assert.Equal(Json(World.Demonstrations()), Json(longer.Demonstrations().Take(1_500)));
        Assert.Equal(Json(World.Prompts()), Json(longer.Prompts().Take(1_000)));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(12345)]
    public void No_evaluation_prompt_is_in_any_training_data_of_any_seed(int seed)
    {
        SampleWorld other = SampleWorld.Create(Small with { Seed = (ulong)seed });
        HashSet<string> evaluation = [.. World.Evaluation().Select(r => r.Prompt)];
        Assert.Equal(Small.EvaluationPrompts + Small.HeldOutPrompts, evaluation.Count);
        Assert.DoesNotContain(other.Demonstrations(), r => evaluation.Contains(r.Prompt));
        Assert.DoesNotContain(other.Preferences(), r => evaluation.Contains(r.Prompt));
        Assert.DoesNotContain(other.UnseenLabellerPreferences(), r => evaluation.Contains(r.Prompt));
        Assert.DoesNotContain(other.Prompts(), r => evaluation.Contains(r.Prompt));
        Assert.DoesNotContain(other.FewShotExemplars(), r => evaluation.Contains(r.Prompt));
        Assert.DoesNotContain(other.PretrainText().Take(300), document => evaluation.Any(prompt => Asks(document, prompt)));
    }

    [Fact]
    public void The_held_out_cluster_is_only_evaluated()
    {
        Assert.Equal(Small.HeldOutPrompts, World.Evaluation().Count(r => r.Cluster == "opposites"));
        Assert.DoesNotContain(World.Demonstrations(), r => r.Cluster == "opposites");
        Assert.DoesNotContain(World.Preferences(), r => r.Cluster == "opposites");
        Assert.DoesNotContain(World.Prompts(), r => r.Cluster == "opposites");
        Assert.Contains(World.PretrainText(), document => document.Contains("The opposite of hot is cold.", StringComparison.Ordinal));
    }

    [Fact]
    public void Made_up_names_of_the_evaluation_are_nowhere_in_the_training_data()
    {
        HashSet<string> known = [.. World.PretrainText().SelectMany(Words)];
        HashSet<string> trained = [.. World.Demonstrations().Select(r => r.Prompt).Concat(World.Preferences().Select(r => r.Prompt))
            .Concat(World.Prompts().Select(r => r.Prompt)).SelectMany(Words)];
        string[] madeUp = [.. World.Evaluation().Where(r => r.Truth.Demand == Demand.Missing && r.Cluster is "things" or "kinds")
            .Where(r => r.Truth.Demand == Demand.Missing).Select(r => Words(r.Prompt).Single(w => !known.Contains(w)))];
        Assert.True(madeUp.Length > 50);
        Assert.DoesNotContain(madeUp, trained.Contains);
    }

    [Fact]
    public void There_are_at_least_six_clusters_with_at_least_five_templates_each()
    {
        var templates = World.Prompts().Concat(World.Evaluation()).GroupBy(r => r.Cluster)
            .ToDictionary(g => g.Key, g => g.Select(r => r.Template).Distinct().Count());
        Assert.Equal(10, templates.Count);
        Assert.All(templates, t => Assert.True(t.Value >= 5, $"{t.Key} has {t.Value} templates"));
    }

    [Fact]
    public void Every_answer_of_the_perfect_writer_scores_one()
    {
        SampleWorld perfect = SampleWorld.Create(Small with { Demonstrations = 4_000, Writer = WriterErrors.None });
        Assert.All(perfect.Demonstrations(), r => Assert.Equal(1, Judge.Score(r.Truth, r.Completion, ended: true).Total));
        Assert.All(perfect.FewShotExemplars(), r => Assert.Equal(1, Judge.Score(r.Truth, r.Completion, ended: true).Total));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Labellers_agree_as_often_as_people_and_the_ceiling_is_stated(int seed)
    {
        WorldStatistics statistics = SampleWorld.Create(Small with { Seed = (ulong)seed, PreferencePrompts = 1_500 }).Statistics();
        Assert.InRange(statistics.Agreement, .73, .77);
        Assert.InRange(statistics.Ceiling, statistics.Agreement, .9);
        Assert.InRange(statistics.WriterGold, 0, .6);
    }

    [Fact]
    public void Ranks_are_a_permutation_and_answers_differ()
    {
        Assert.All(World.Preferences(), r =>
        {
            Assert.Equal([1, 2, 3, 4], r.Ranks.Order());
            Assert.Equal(4, r.Completions.Distinct().Count());
        });
    }

    [Fact]
    public void The_unseen_labeller_ranks_nothing_that_is_trained_on()
    {
        string unseen = Assert.Single(World.UnseenLabellerPreferences().Select(r => r.Labeller).Distinct());
        string[] seen = [.. World.Preferences().Select(r => r.Labeller).Distinct()];
        Assert.Equal(Small.Labellers - 1, seen.Length);
        Assert.DoesNotContain(unseen, seen);
    }

    [Fact]
    public void Truth_survives_JSON()
    {
        foreach (Truth truth in World.Evaluation().Select(r => r.Truth))
        {
            string json = JsonSerializer.Serialize(truth, JsonSerializerOptions.Web);
            Assert.Equal(json, JsonSerializer.Serialize(JsonSerializer.Deserialize<Truth>(json, JsonSerializerOptions.Web), JsonSerializerOptions.Web));
        }
    }

    [Fact]
    public void A_value_out_of_range_is_named()
    {
        var error = Assert.Throws<ArgumentException>(() => SampleWorld.Create(new WorldOptions { Writer = new WriterErrors { Comply = 1.5 } }));
        Assert.Contains("world.writer.Comply is 1.5; it must be from 0 to 1", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_agreement_that_ties_forbid_is_refused()
    {
        SampleWorld world = SampleWorld.Create(Small with { LabellerAgreement = .85, CompletionsPerPrompt = 2, Writer = WriterErrors.None });
        Assert.ThrowsAny<Exception>(() => world.Preferences().First());
    }

    /// <summary>Whether the document holds the prompt as a whole: one with options begins like the one without.</summary>
    private static bool Asks(string document, string prompt)
    {
        int at = document.IndexOf(prompt, StringComparison.Ordinal);
        return at >= 0 && !document.AsSpan(at + prompt.Length).StartsWith(" OPTIONS");
    }

    private static string Everything(SampleWorld world) => string.Join(
        '\n', Json(world.PretrainText()), Json(world.Demonstrations()), Json(world.Preferences()), Json(world.UnseenLabellerPreferences()),
        Json(world.Prompts()), Json(world.Evaluation()), Json(world.FewShotExemplars()));

    private static string Json<T>(IEnumerable<T> rows) => JsonSerializer.Serialize(rows);

    private static string[] Words(string text) => text.Split([' ', '\n', '.', ',', ':', '?', ';'], StringSplitOptions.RemoveEmptyEntries);
}
