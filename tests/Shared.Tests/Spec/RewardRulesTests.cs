using System.Diagnostics;
using System.Text.Json;
using Rlhf.Spec;
using Xunit;

namespace Rlhf.Shared.Tests.Spec;

public sealed class RewardRulesTests
{
    private const string Model = """{"source":"model"}""";

    [Fact]
    public void Every_kind_of_source_is_read()
    {
        RunSpec spec = Read(
            Model,
            """{"source":"regex","pattern":"^Answer: \\d+$","weight":-0.5}""",
            """{"source":"length","minTokens":2,"maxTokens":30}""",
            """{"source":"length","name":"short","targetTokens":12}""",
            """{"source":"http","url":"https://rewards.example:8443/score?v=2","timeoutSeconds":5,"retries":1,"rowsPerCall":8,"header":"Authorization","headerVariable":"RLHF_REWARD_TOKEN"}""");

        Assert.Equal(["model", "regex", "length", "short", "http"], spec.Rewards.Select(source => source.MetricName()));
        Assert.Equal([1, -0.5, 1, 1, 1], spec.Rewards.Select(source => source.Weight));
    }

    [Fact]
    public void An_exact_match_needs_prompts_with_answers()
    {
        const string exact = """{"source":"exactMatch","ignoreCase":true}""";
        Refused("rewards[0].source", "the sample world's prompts have none", exact);
        RefusedSpec(
            """{"name":"m","data":{"preferences":[{"file":"a"}]},"model":{"base":"b"},"rewards":[{"source":"exactMatch"}]}""",
            "data.prompts", "is empty: rewards[0] ('exactMatch') compares with the answers of these rows");
        SpecReader.Read("""
            {"name":"m","data":{"preferences":[{"file":"a"}],"prompts":[{"file":"b"}]},"model":{"base":"b"},"rewards":[{"source":"exactMatch"}]}
            """);
    }

    [Theory]
    [InlineData("rewards[0].source", "is missing", """{"weight":1}""")]
    [InlineData("rewards[0].source", "must be one of 'model', 'regex', 'length', 'exactMatch', 'http', not \"llm\"", """{"source":"llm"}""")]
    [InlineData("rewards[0].weight", "must not be 0", """{"source":"model","weight":0}""")]
    [InlineData("rewards[0].weight", "must be from -1000 to 1000", """{"source":"model","weight":1e9}""")]
    [InlineData("rewards[0].pattern", "is a field of 'regex', not of 'model'; remove it", """{"source":"model","pattern":"a"}""")]
    [InlineData("rewards[0].url", "is a field of 'http', not of 'length'", """{"source":"length","maxTokens":2,"url":"https://a.example"}""")]
    [InlineData("rewards[1].source", "'model' may be used once", Model, """{"source":"model","name":"again"}""")]
    [InlineData("rewards[1].name", "there is a source 'model' before it", Model, """{"source":"length","maxTokens":3,"name":"model"}""")]
    [InlineData("rewards[0].name", "must be 1 to 32 letters", """{"source":"model","name":"a/b"}""")]
    [InlineData("rewards[0].pattern", "is missing", """{"source":"regex"}""")]
    [InlineData("rewards[0].pattern", "is no regular expression: Invalid pattern 'a(b'", """{"source":"regex","pattern":"a(b"}""")]
    [InlineData("rewards[0].pattern", "needs backtracking", """{"source":"regex","pattern":"(a)\\1"}""")]
    [InlineData("rewards[0].pattern", "needs backtracking", """{"source":"regex","pattern":"(?=a)b"}""")]
    [InlineData("rewards[0]", "needs targetTokens, or minTokens or maxTokens", """{"source":"length"}""")]
    [InlineData("rewards[0].targetTokens", "excludes minTokens", """{"source":"length","targetTokens":3,"minTokens":1}""")]
    [InlineData("rewards[0].minTokens", "must be at most maxTokens (3)", """{"source":"length","minTokens":4,"maxTokens":3}""")]
    [InlineData("rewards[0].url", "is missing", """{"source":"http"}""")]
    [InlineData("rewards[0].url", "must be an http or https address", """{"source":"http","url":"file:///etc/passwd"}""")]
    [InlineData("rewards[0].url", "must be an http or https address", """{"source":"http","url":"/score"}""")]
    [InlineData("rewards[0].url", "must be an http or https address", """{"source":"http","url":"ftp://a.example/"}""")]
    [InlineData("rewards[0].url", "must not hold a user name or password", """{"source":"http","url":"https://me:pw@a.example/"}""")]
    [InlineData("rewards[0].url", "must not hold a secret ('sig')", """{"source":"http","url":"https://a.example/score?sv=2026&sig=abc%3D"}""")]
    [InlineData("rewards[0].url", "must not hold a secret ('CODE')", """{"source":"http","url":"https://a.example/api/score?CODE=abc"}""")]
    [InlineData("rewards[0].url", "must not hold a secret ('api_key')", """{"source":"http","url":"https://a.example/score?v=2&api%5fkey=abc"}""")]
    [InlineData("rewards[0].url", "after '#'", """{"source":"http","url":"https://a.example/#x"}""")]
    [InlineData("rewards[0].header", "and headerVariable belong together", """{"source":"http","url":"https://a.example","header":"Authorization"}""")]
    [InlineData("rewards[0].header", "must be a header's name", """{"source":"http","url":"https://a.example","header":"A: b","headerVariable":"RLHF_REWARD_A"}""")]
    [InlineData("rewards[0].header", "must not be Host", """{"source":"http","url":"https://a.example","header":"Host","headerVariable":"RLHF_REWARD_A"}""")]
    [InlineData("rewards[0].headerVariable", "must be RLHF_REWARD_", """{"source":"http","url":"https://a.example","header":"X-Key","headerVariable":"AzureWebJobsStorage"}""")]
    [InlineData("rewards[0].timeoutSeconds", "let one call take 976 s", """{"source":"http","url":"https://a.example","timeoutSeconds":160,"retries":5}""", """{"source":"length","maxTokens":3}""")]
    public void What_makes_no_sense_is_named(string field, string message, params string[] sources) => Refused(field, message, sources);

    [Theory]
    [InlineData("((a{1000}){1000}){1000}")]
    [InlineData("(a*)*(a*)*(a*)*(a*)*b$")]
    [InlineData("(x+x+)+y")]
    public void A_hostile_pattern_costs_no_time_where_it_is_read(string pattern)
    {
        var watch = Stopwatch.StartNew();
        try
        {
            Read($$"""{"source":"regex","pattern":{{JsonSerializer.Serialize(pattern)}} }""");
        }
        catch (InvalidSpecException)
        {
            // Refused is as good.
        }

        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 5);
        Refused("rewards[0].pattern", "must have at most 1000 characters", $$"""{"source":"regex","pattern":"{{new string('a', 1001)}}"}""");
    }

    private static RunSpec Read(params string[] sources) => SpecReader.Read(Spec(sources));

    private static string Spec(string[] sources) =>
        """{"name":"m","data":{"world":{}},"model":{"base":"b"},"rewards":[""" + string.Join(',', sources) + "]}";

    private static void Refused(string field, string message, params string[] sources) => RefusedSpec(Spec(sources), field, message);

    private static void RefusedSpec(string json, string field, string message)
    {
        var failure = Assert.Throws<InvalidSpecException>(() => SpecReader.Read(json));
        SpecError error = Assert.Single(failure.Errors, error => error.Field == field);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }
}
