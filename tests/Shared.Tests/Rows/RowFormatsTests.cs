using System.Text.Json;
using FsCheck;
using FsCheck.Fluent;
using Rlhf.Rows;
using Xunit;

namespace Rlhf.Shared.Tests.Rows;

/// <summary>One golden line per accepted form, one broken line per reason.</summary>
public sealed class RowFormatsTests
{
    [Theory]
    [InlineData(
        "prompt-completion", """{"prompt":" Hi ","completion":"Hello.\n"}""",
        """{"prompt":[{"role":"user","content":"Hi"}],"completions":["Hello."],"subset":"s"}""")]
    [InlineData(
        "prompt-completion", """{"input":"2+2","output":"4","extra":[1]}""",
        """{"prompt":[{"role":"user","content":"2+2"}],"completions":["4"],"subset":"s"}""")]
    [InlineData(
        "prompt-completion", """{"input_text":"2+2","output_text":"4"}""",
        """{"prompt":[{"role":"user","content":"2+2"}],"completions":["4"],"subset":"s"}""")]
    [InlineData(
        "prompt-completion", """{"prompt":[{"role":"user","content":"a"}],"completion":[{"role":"assistant","content":"b"}]}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["b"],"subset":"s"}""")]
    [InlineData(
        "prompt-completion", """{"system":"Be brief.","prompt":"a","completion":"b","label":true}""",
        """{"prompt":[{"role":"system","content":"Be brief."},{"role":"user","content":"a"}],"completions":["b"],"subset":"s"}""")]
    [InlineData(
        "instruction", """{"instruction":"Add.","input":"2 2","output":"4"}""",
        """{"prompt":[{"role":"user","content":"Add.\n\n2 2"}],"completions":["4"],"subset":"s"}""")]
    [InlineData(
        "instruction", """{"instruction":"Sing.","input":"","output":"La"}""",
        """{"prompt":[{"role":"user","content":"Sing."}],"completions":["La"],"subset":"s"}""")]
    [InlineData(
        "messages",
        """{"messages":[{"role":"system","content":"S"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]}""",
        """{"prompt":[{"role":"system","content":"S"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],"completions":["d"],"subset":"s"}""")]
    [InlineData(
        "messages", """{"messages":[{"role":"user","content":"a"}],"tools":[]}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":[],"subset":"s"}""")]
    [InlineData(
        "pair", """{"prompt":"a","chosen":"b","rejected":"c","worker":7}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["b","c"],"ranks":[1,2],"subset":"s","labeller":"7"}""")]
    [InlineData(
        "pair", """{"prompt":"\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:","chosen":" d","rejected":" e"}""",
        """{"prompt":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],"completions":["d","e"],"ranks":[1,2],"subset":"s"}""")]
    [InlineData(
        "pair", """{"prompt":[{"role":"user","content":"a"}],"chosen":[{"role":"assistant","content":"b"}],"rejected":[{"role":"assistant","content":"c"}]}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["b","c"],"ranks":[1,2],"subset":"s"}""")]
    [InlineData(
        "pair-messages",
        """{"prompt":"a","chosen":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"rejected":[{"role":"user","content":"a"},{"role":"assistant","content":"c"}],"margin":2}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["b","c"],"ranks":[1,2],"subset":"s"}""")]
    [InlineData(
        "hh-rlhf", """{"chosen":"\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: yes, d","rejected":"\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: yes"}""",
        """{"prompt":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],"completions":["yes, d","yes"],"ranks":[1,2],"subset":"s"}""")]
    [InlineData(
        "ranking", """{"prompt":"a","responses":["w","x","y","z"],"ranks":[2,1,2,5]}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["w","x","y","z"],"ranks":[2,1,2,3],"subset":"s"}""")]
    [InlineData(
        "ranking", """{"prompt":"a","completions":["x","y","z"],"ranking":[2,0,1]}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["x","y","z"],"ranks":[2,3,1],"subset":"s"}""")]
    [InlineData(
        "ranking", """{"prompt":"a","completions":["x","y","x"],"scores":[0.5,0.9,0.5]}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["x","y"],"ranks":[2,1],"subset":"s"}""")]
    [InlineData(
        "ratings", """{"instruction":"a","completions":[{"response":"x","overall_score":7.5},{"response":"y","overall_score":"8"}]}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["x","y"],"ranks":[2,1],"subset":"s"}""")]
    [InlineData(
        "best-of-n", """{"query":"a","sample0":"w","sample1":"x","sample2":"y","sample3":"z","best":2}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["w","x","y","z"],"ranks":[2,2,1,2],"subset":"s"}""")]
    [InlineData(
        "candidates", """{"input_text":"a","candidate_0":"x","candidate_1":"y","choice":1}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["x","y"],"ranks":[2,1],"subset":"s"}""")]
    [InlineData(
        "target-scores", """{"input":"a","target_scores":{"x":0,"y":1,"z":0}}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["x","y","z"],"ranks":[2,1,2],"subset":"s"}""")]
    [InlineData(
        "pair", """{"category":"honest","prompt":"a","chosen":"b","rejected":"c"}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":["b","c"],"ranks":[1,2],"subset":"honest"}""")]
    [InlineData(
        "prompt", """{"prompt":"a","type":"homonyms","label":"safe","focus":"kill"}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":[],"subset":"homonyms","label":"safe"}""")]
    [InlineData(
        "prompt", """{"prompt":"a","type":"open","label":"other"}""",
        """{"prompt":[{"role":"user","content":"a"}],"completions":[],"subset":"s"}""")]
    [InlineData("text", """{"text":"Once upon a time.","meta":{}}""", """{"prompt":[],"completions":["Once upon a time."],"subset":"s"}""")]
    [InlineData("prompt", """{"prompt":"a"}""", """{"prompt":[{"role":"user","content":"a"}],"completions":[],"subset":"s"}""")]
    [InlineData(
        "row", """{"id":"x","prompt":[{"role":"user","content":" a "}],"completions":["b","c"],"ranks":[2,1],"subset":"own","labeller":"l","truth":{"k":[1]}}""",
        """{"prompt":[{"role":"user","content":" a "}],"completions":["b","c"],"ranks":[2,1],"subset":"own","labeller":"l","truth":{"k":[1]}}""")]
    public void A_line_of_each_form_becomes_a_row(string format, string line, string expected)
    {
        RowResult result = RowReader.Parse(line, 3, "s");

        Assert.Null(result.Reason);
        Assert.Equal((3, format), (result.Line, result.Format));
        Assert.Equal($$"""{"id":"{{Row.IdOf(result.Row!.Prompt, result.Row.Completions)}}",{{expected[1..]}}""", Json(result.Row));
    }

    [Theory]
    [InlineData("""{"prompt":"a",""", "is not valid JSON (column 14)")]
    [InlineData("""[{"prompt":"a"}]""", "is a JSON list; write one object per line")]
    [InlineData("42", "is no JSON object")]
    [InlineData("{}", "none of the known fields; it has no fields")]
    [InlineData("""{"foo":1,"bar":2}""", "it has 'foo', 'bar'")]
    [InlineData("""{"completion":"b"}""", "has no field 'prompt'")]
    [InlineData("""{"input":"a","target_scores":["x"]}""", "'target_scores' must be an object")]
    [InlineData("""{"input":"a","target_scores":{"x":"high","y":0}}""", "'target_scores.x' must be a number")]
    [InlineData("""{"input":"a","target_scores":{" ":1,"y":0}}""", "'target_scores' has an empty answer")]
    [InlineData("""{"prompt":"a","completion":"  "}""", "'completion' is empty")]
    [InlineData("""{"prompt":"","completion":"b"}""", "'prompt' is empty")]
    [InlineData("""{"prompt":5,"completion":"b"}""", "'prompt' must be text")]
    [InlineData("""{"prompt":"a","completion":"b","label":false}""", "'label' false")]
    [InlineData("""{"prompt":"a \ud800","completion":"b"}""", "half a character")]
    [InlineData("""{"prompt":"a","completion":"b","system":7}""", "'system' must be text")]
    [InlineData("""{"messages":[]}""", "'messages' is empty")]
    [InlineData("""{"messages":"a"}""", "'messages' must be a list")]
    [InlineData("""{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}""", "roles out of order: turn 2 is 'user' after 'user'")]
    [InlineData("""{"messages":[{"role":"assistant","content":"a"}]}""", "roles out of order: turn 1 is 'assistant'")]
    [InlineData("""{"messages":[{"role":"user","content":"a"},{"role":"system","content":"b"}]}""", "roles out of order: turn 2 is 'system'")]
    [InlineData("""{"messages":[{"role":"system","content":"a"}]}""", "nothing follows the system turn")]
    [InlineData("""{"messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"}]}""", "'messages[1].role' is 'tool'")]
    [InlineData("""{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","tool_calls":[{}]}]}""", "calls tools")]
    [InlineData("""{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"tools":[{}]}""", "uses 'tools'")]
    [InlineData("""{"messages":[{"role":"user","content":[{"type":"image"}]}]}""", "'messages[0].content' must be text")]
    [InlineData("""{"messages":["a"]}""", "'messages[0]' must be an object")]
    [InlineData("""{"prompt":"a","chosen":"b"}""", "has no field 'rejected'")]
    [InlineData("""{"prompt":"a","chosen":"b ","rejected":" b"}""", "'chosen' and 'rejected' are equal")]
    [InlineData("""{"prompt":"a","chosen":"b","rejected":""}""", "'rejected' is empty")]
    [InlineData("""{"prompt":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"chosen":"c","rejected":"d"}""", "ends with the assistant")]
    [InlineData("""{"chosen":"b","rejected":"c"}""", "has no 'prompt'")]
    [InlineData("""{"chosen":"\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d","rejected":"\n\nHuman: a\n\nAssistant: x\n\nHuman: c\n\nAssistant: d"}""", "part before their last answer")]
    [InlineData("""{"chosen":"\n\nHuman: a\n\nAssistant: b","rejected":"\n\nHuman: x\n\nAssistant: b"}""", "part before the first answer")]
    [InlineData("""{"chosen":"\n\nHuman: a\n\nAssistant: b\n\nAssistant: c","rejected":"\n\nHuman: a\n\nAssistant: d"}""", "'chosen' has two assistant turns in a row")]
    [InlineData("""{"chosen":"\n\nHuman: a\n\nAssistant:","rejected":"\n\nHuman: a\n\nAssistant: d"}""", "'chosen' is empty")]
    [InlineData("""{"chosen":"\n\nHuman: a\n\nHuman: b\n\nAssistant: c","rejected":"\n\nHuman: a\n\nHuman: b\n\nAssistant: d"}""", "roles out of order: turn 2")]
    [InlineData("""{"chosen":"\n\nHuman: a\n\nAssistant: b","rejected":"\n\nHuman: a\n\nAssistant: b"}""", "'chosen' and 'rejected' are equal")]
    [InlineData("""{"prompt":"a","chosen":[{"role":"assistant","content":"b"}],"rejected":[{"role":"user","content":"c"}]}""", "roles out of order")]
    [InlineData("""{"chosen":[{"role":"user","content":"a"}],"rejected":[{"role":"user","content":"a"}]}""", "must end with an assistant turn")]
    [InlineData("""{"prompt":"a","completions":["x","y"],"ranks":[1,1]}""", "all completions are tied")]
    [InlineData("""{"prompt":"a","completions":["x","y"],"ranks":[1]}""", "has 1 ranks for 2 completions")]
    [InlineData("""{"prompt":"a","completions":["x"],"ranks":[1]}""", "needs at least two")]
    [InlineData("""{"prompt":"a","completions":["x","x","y"],"ranks":[1,2,3]}""", "ranks the same completion twice")]
    [InlineData("""{"prompt":"a","completions":["x","y"],"ranking":[1,1]}""", "'ranking' must name each of 0 .. 1 once")]
    [InlineData("""{"prompt":"a","completions":["x","y"],"ranks":[1,"b"]}""", "'ranks[1]' must be a number")]
    [InlineData("""{"prompt":"a","completions":["x",""],"ranks":[1,2]}""", "'completions[1]' is empty")]
    [InlineData("""{"prompt":"a","completions":["x","y"]}""", "none of 'ranks', 'ranking', 'scores'")]
    [InlineData("""{"prompt":"a","completions":"x","ranks":[1]}""", "'completions' must be a list")]
    [InlineData("""{"prompt":"a","completions":[{"response":"x","score":1},"y"]}""", "'completions[1]' must be an object")]
    [InlineData("""{"prompt":"a","completions":[{"response":"x"},{"response":"y"}]}""", "has no field 'overall_score'")]
    [InlineData("""{"query":"a","sample0":"x","sample1":"y","best":2}""", "'best' must be the index")]
    [InlineData("""{"query":"a","sample0":"x","best":0}""", "'best' must be the index")]
    [InlineData("""{"query":"a","sample0":[1,2],"sample1":[3],"best":0}""", "'sample0' must be text")]
    [InlineData("""{"prompt":"a","candidate_0":"x","candidate_1":"y"}""", "has no field 'choice'")]
    [InlineData("""{"text":""}""", "'text' is empty")]
    [InlineData("""{"id":"x","prompt":[],"completions":["a"],"subset":"s","other":1}""", "as a normalised row, but is none")]
    [InlineData("""{"id":"x","prompt":[null],"completions":["a"],"subset":"s"}""", "a turn of 'prompt' is empty")]
    [InlineData("""{"id":"x","prompt":[],"completions":["a","b"],"ranks":[1,2],"subset":"s"}""", "no prompt")]
    [InlineData("""{"id":"x","prompt":[{"role":"user","content":"a"}],"completions":["a","b"],"subset":"s"}""", "2 completions and no 'ranks'")]
    [InlineData("""{"id":"x","prompt":[],"completions":[],"subset":"s"}""", "neither prompt nor completion")]
    [InlineData("""{"id":"x","prompt":[],"completions":[null],"subset":"s"}""", "'completions[0]' is empty")]
    public void A_broken_line_comes_back_with_its_reason(string line, string reason)
    {
        RowResult result = RowReader.Parse(line, 9);

        Assert.Null(result.Row);
        Assert.Equal(9, result.Line);
        Assert.Contains(reason, result.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_line_above_one_mebibyte_is_dropped()
    {
        string line = $$"""{"text":"{{new string('x', 1024 * 1024)}}"}""";

        Assert.Equal("is larger than 1 MiB", RowReader.Parse(line).Reason);
    }

    [Fact]
    public void Feedback_must_be_a_preference()
    {
        Assert.Equal([1, 2], RowReader.ParsePreference("""{"prompt":"a","chosen":"b","rejected":"c"}""", 4, "feedback").Row!.Ranks);

        RowResult demonstration = RowReader.ParsePreference("""{"prompt":"a","completion":"b"}""", 4);
        Assert.Null(demonstration.Row);
        Assert.Contains("is no preference but of the format 'prompt-completion'", demonstration.Reason, StringComparison.Ordinal);
        Assert.Contains("'rejected'", RowReader.ParsePreference("""{"prompt":"a","chosen":"b"}""").Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Identity_depends_on_prompt_and_completions_and_the_key_on_the_prompt_alone()
    {
        Row a = RowReader.Parse("""{"prompt":"a","completion":"b"}""").Row!;
        Row other = RowReader.Parse("""{"prompt":"a","chosen":"b","rejected":"c"}""").Row!;
        Row text = RowReader.Parse("""{"text":"b"}""").Row!;

        // printf '%s' '{"prompt":[{"role":"user","content":"a"}],"completions":["b"]}' | sha256sum | cut -c1-16
        Assert.Equal("3b4d1569735fb04c", a.Id);
        Assert.Equal(a.PromptKey, other.PromptKey);
        Assert.NotEqual(a.Id, other.Id);
        Assert.Equal(text.Id, text.PromptKey);
    }

    [Fact]
    public void A_normalised_row_comes_back_as_it_was()
    {
        Gen<string> text = ArbMap.Default.GeneratorFor<NonEmptyString>().Select(s => s.Get).Where(s => !string.IsNullOrWhiteSpace(s) && !s.Any(char.IsSurrogate));
        Gen<Row> rows =
            from turns in Gen.Choose(0, 2)
            from contents in text.ArrayOf((2 * turns) + 1)
            from completions in text.ArrayOf(4)
            from labeller in text
            from kind in Gen.Choose(0, 3)
            let prompt = contents.Select((content, index) => new Turn(index % 2 == 0 ? "user" : "assistant", content)).ToArray()
            let distinct = completions.Append("one more").Append("and another").Distinct().ToArray()
            select kind switch
            {
                0 => MakeRow(prompt, []),
                1 => MakeRow(prompt, completions[..1]) with { Subset = labeller },
                2 => MakeRow([], completions[..1]) with { Truth = JsonSerializer.SerializeToElement(contents) },
                _ => MakeRow(prompt, distinct) with { Ranks = [.. Enumerable.Range(1, distinct.Length)], Labeller = labeller },
            };

        Prop.ForAll(rows.ToArbitrary(), row =>
        {
            RowResult result = RowReader.Parse(Json(row));
            return result.Reason is null && result.Format == RowFormats.Normalised && Json(result.Row!) == Json(row);
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void No_line_makes_it_throw()
    {
        string[] names = ["prompt", "completion", "chosen", "rejected", "messages", "completions", "ranks", "ranking", "scores", "sample0", "best", "text", "id", "subset", "role", "content", "tools", "input", "instruction", "label"];
        Gen<string> leaf = Gen.OneOf(
            Gen.Elements("1", "-0.5", "1e400", "true", "null", "\"\"", "\"\\ud800\"", "\"Human: a\\n\\nAssistant: b\"", "\"assistant\"", "\"user\""),
            ArbMap.Default.GeneratorFor<string>().Select(s => JsonSerializer.Serialize(s)));
        Gen<string> json = Value(3);
        Gen<string> lines = Gen.OneOf(json, ArbMap.Default.GeneratorFor<string>().Select(s => s ?? string.Empty), json.Select(s => s[..(s.Length / 2)]));

        Prop.ForAll(lines.ToArbitrary(), line =>
        {
            RowResult result = RowReader.Parse(line);
            return result.Row is null != result.Reason is null;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));

        Gen<string> Value(int depth) => depth == 0
            ? leaf
            : Gen.OneOf(
                leaf,
                Value(depth - 1).ListOf().Select(items => $"[{string.Join(',', items.Take(3))}]"),
                Gen.Zip(Gen.Elements(names), Value(depth - 1)).ListOf()
                    .Select(members => $"{{{string.Join(',', members.Take(6).Select(member => $"\"{member.Item1}\":{member.Item2}"))}}}"));
    }

    private static Row MakeRow(IReadOnlyList<Turn> prompt, IReadOnlyList<string> completions) =>
        new() { Id = Row.IdOf(prompt, completions), Prompt = prompt, Completions = completions };

    private static string Json(Row row) => JsonSerializer.Serialize(row, RlhfJson.Compact);
}
