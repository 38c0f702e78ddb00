using System.Globalization;
using System.Text.Json;

namespace Rlhf.Rows;

/// <summary>A line that makes no row.</summary>
internal sealed class UnusableRowException(string? format, string reason) : Exception(reason)
{
    /// <summary>The format it was read as, where that could be told.</summary>
    public string? Format { get; } = format;
}

/// <summary>
/// The formats that are accepted, each told by the fields of a line, and how each becomes a <see cref="Row"/>. Texts of foreign
/// formats lose surrounding white space; fields that a format does not know are ignored.
/// </summary>
public static class RowFormats
{
    /// <summary>Our own: <see cref="Row"/> as it is serialised.</summary>
    public const string Normalised = "row";

    /// <summary><c>prompt</c> and <c>completion</c>, or their other names; dropped where <c>label</c> is false (nobody wants it).</summary>
    public const string PromptCompletion = "prompt-completion";

    /// <summary><c>instruction</c>, with or without <c>input</c>, and <c>output</c> (Alpaca).</summary>
    public const string Instruction = "instruction";

    /// <summary><c>messages</c>: the last assistant turn is the completion; a list that ends with the user is a prompt.</summary>
    public const string Messages = "messages";

    /// <summary><c>chosen</c> and <c>rejected</c> with a <c>prompt</c>.</summary>
    public const string Pair = "pair";

    /// <summary><c>chosen</c> and <c>rejected</c> as two lists of messages that share their beginning.</summary>
    public const string PairOfMessages = "pair-messages";

    /// <summary><c>chosen</c> and <c>rejected</c> as two whole transcripts (Bai 2022).</summary>
    public const string Transcripts = "hh-rlhf";

    /// <summary>
    /// <c>completions</c> or <c>responses</c> with <c>ranks</c> (one per completion, 1 = best, equal = tie), <c>ranking</c> (their
    /// indices from 0, best first) or <c>scores</c> (higher is better).
    /// </summary>
    public const string Ranking = "ranking";

    /// <summary><c>completions</c> that are objects with a text and a score (UltraFeedback).</summary>
    public const string Ratings = "ratings";

    /// <summary><c>sample0</c>, <c>sample1</c> ... and the index <c>best</c> (Ziegler 2019).</summary>
    public const string BestOfN = "best-of-n";

    /// <summary><c>candidate_0</c>, <c>candidate_1</c> ... and the index <c>choice</c> (Vertex AI).</summary>
    public const string Candidates = "candidates";

    /// <summary><c>input</c> and <c>target_scores</c>, an object of answers and their scores (BIG-bench).</summary>
    public const string TargetScores = "target-scores";

    /// <summary><c>text</c>: a document.</summary>
    public const string Text = "text";

    /// <summary>A paragraph of a .txt file.</summary>
    public const string PlainText = "plain-text";

    /// <summary><c>prompt</c>, or its other names, alone.</summary>
    public const string Prompt = "prompt";

    private static readonly string[] PromptNames = ["prompt", "query", "question", "input_text", "instruction", "input"];
    private static readonly string[] CompletionNames = ["completion", "response", "answer", "output_text", "output"];
    private static readonly string[] RatedTextNames = ["response", "completion", "text", "content"];
    private static readonly string[] ScoreNames = ["overall_score", "score", "rating"];
    private static readonly string[] LabellerNames = ["labeller", "labeler", "annotator", "worker"];

    /// <summary>Tells the format of a line and makes it a row.</summary>
    /// <exception cref="UnusableRowException">The line makes no row.</exception>
    /// <param name="line">The line.</param>
    /// <param name="subset">The subset that the rows are to have; null takes it from the line.</param>
    /// <param name="otherwise">The subset of a line that names none.</param>
    internal static (string Format, Row Row) Read(JsonElement line, string? subset, string otherwise)
    {
        if (line.ValueKind == JsonValueKind.Array)
            throw new UnusableRowException(null, "is a JSON list; write one object per line (JSON lines)");
        if (line.ValueKind != JsonValueKind.Object)
            throw new UnusableRowException(null, "is no JSON object");

        string format = Detect(line);
        try
        {
            Row row = format switch
            {
                Normalised => ReadNormalised(line),
                PromptCompletion or Instruction => ReadDemonstration(line),
                Messages => ReadMessages(line),
                Pair => ReadPair(line),
                PairOfMessages => ReadPairOfMessages(line),
                Transcripts => ReadTranscripts(line),
                Ranking => ReadRanking(line),
                Ratings => ReadRatings(line),
                BestOfN => ReadChoice(line, "sample", "best"),
                Candidates => ReadChoice(line, "candidate_", "choice"),
                TargetScores => ReadTargetScores(line),
                Text => MakeRow([], [Field(line, "text")]),
                _ => MakeRow(PromptTurns(line), []),
            };
            string? label = SafetyLabel(line);
            return (format, format == Normalised ? row : row with
            {
                Subset = subset ?? Category(line, label) ?? otherwise,
                Labeller = Labeller(line),
                Label = label,
            });
        }
        catch (UnusableRowException e) when (e.Format is null)
        {
            throw new UnusableRowException(format, e.Message);
        }
    }

    private static string Detect(JsonElement line)
    {
        if (Has(line, "chosen") || Has(line, "rejected"))
        {
            bool lists = IsList(line, "chosen") || IsList(line, "rejected");
            return lists && !IsList(line, "prompt") ? PairOfMessages : lists || Has(line, PromptNames) ? Pair : Transcripts;
        }

        if (Has(line, "completions") || Has(line, "responses"))
        {
            return Has(line, "id") && Has(line, "subset") && IsList(line, "prompt") ? Normalised
                : Field(line, "completions", "responses") is { ValueKind: JsonValueKind.Array } list
                    && list.EnumerateArray().FirstOrDefault().ValueKind == JsonValueKind.Object ? Ratings
                : Ranking;
        }

        return Has(line, "sample0") ? BestOfN
            : Has(line, "candidate_0") ? Candidates
            : Has(line, "target_scores") ? TargetScores
            : Has(line, "messages") ? Messages
            : Has(line, "instruction") && Has(line, CompletionNames) ? Instruction
            : Has(line, CompletionNames) ? PromptCompletion
            : Has(line, PromptNames) ? Prompt
            : Has(line, "text") ? Text
            : throw new UnusableRowException(null, $"has none of the known fields; it has {Names(line)}");
    }

    private static Row ReadNormalised(JsonElement line)
    {
        Row row;
        try
        {
            row = line.Deserialize<Row>(RlhfJson.Compact)!;
        }
        catch (JsonException e)
        {
            throw Unusable($"has 'id' and 'subset' as a normalised row, but is none: {e.Message.Split(" LineNumber")[0]}");
        }

        if (row.Prompt.Any(turn => string.IsNullOrWhiteSpace(turn?.Content)))
            throw Unusable("a turn of 'prompt' is empty");
        if (row.Prompt.Count > 0)
            Dialogue.CheckPrompt(row.Prompt);
        foreach ((int index, string completion) in row.Completions.Index())
        {
            if (string.IsNullOrWhiteSpace(completion))
                throw Unusable($"'completions[{index}]' is empty");
        }

        if (row.Ranks is { } ranks)
        {
            if (ranks.Count != row.Completions.Count)
                throw Unusable($"has {ranks.Count} ranks for {row.Completions.Count} completions");
            Ranked(row.Prompt, row.Completions, [.. ranks.Select(rank => (double)rank)]);
        }
        else if (row.Completions.Count > 1)
        {
            throw Unusable($"has {row.Completions.Count} completions and no 'ranks'");
        }
        else if (row.Completions.Count + row.Prompt.Count == 0)
        {
            throw Unusable("has neither prompt nor completion");
        }

        return row with { Id = Row.IdOf(row.Prompt, row.Completions) };
    }

    private static Row ReadDemonstration(JsonElement line)
    {
        if (TryField(line, out JsonElement label, "label") && label.ValueKind == JsonValueKind.False)
            throw Unusable("has 'label' false: an answer that nobody wants is no demonstration, and without a better one no preference");

        JsonElement completion = Field(line, CompletionNames);
        if (completion.ValueKind == JsonValueKind.Array)
            completion = Field(Dialogue.SingleAnswer(completion), "content");
        return MakeRow(PromptTurns(line), [completion]);
    }

    private static Row ReadMessages(JsonElement line)
    {
        RefuseTools(line);
        IReadOnlyList<Turn> turns = Dialogue.Messages(line.GetProperty("messages"), "messages");
        bool prompt = turns[^1].Role == Dialogue.User;
        return prompt ? Make(turns, []) : Make([.. turns.SkipLast(1)], [turns[^1].Content]);
    }

    private static Row ReadPair(JsonElement line)
    {
        RefuseTools(line);
        return RankedPair(PromptTurns(line), Answer("chosen"), Answer("rejected"));

        string Answer(string field)
        {
            JsonElement answer = Field(line, field);
            return answer.ValueKind == JsonValueKind.Array
                ? NonEmpty(Field(Dialogue.SingleAnswer(answer), "content"), field)
                : NonEmpty(answer, field);
        }
    }

    private static Row ReadPairOfMessages(JsonElement line)
    {
        RefuseTools(line);
        IReadOnlyList<Turn> chosen = Dialogue.Messages(Field(line, "chosen"), "chosen");
        IReadOnlyList<Turn> rejected = Dialogue.Messages(Field(line, "rejected"), "rejected");
        if (chosen[^1].Role != Dialogue.Assistant || rejected[^1].Role != Dialogue.Assistant)
            throw Unusable("'chosen' and 'rejected' must end with an assistant turn");
        if (!chosen.SkipLast(1).SequenceEqual(rejected.SkipLast(1)))
            throw Unusable("'chosen' and 'rejected' part before their last answer");
        return RankedPair([.. chosen.SkipLast(1)], chosen[^1].Content, rejected[^1].Content);
    }

    private static Row ReadTranscripts(JsonElement line)
    {
        string chosen = NonEmpty(Field(line, "chosen"), "chosen");
        string rejected = NonEmpty(Field(line, "rejected"), "rejected");
        (IReadOnlyList<Turn> prompt, string best, string worst) = Dialogue.SplitTranscripts(chosen, rejected);
        return RankedPair(prompt, best, worst);
    }

    private static Row ReadRanking(JsonElement line)
    {
        string name = Has(line, "completions") ? "completions" : "responses";
        string[] completions = [.. Items(line, name).Select((item, index) => NonEmpty(item, $"{name}[{index}]"))];
        double[] costs;
        if (Has(line, "ranks"))
        {
            costs = Numbers(line, "ranks");
        }
        else if (Has(line, "ranking"))
        {
            double[] order = Numbers(line, "ranking");
            if (!order.Order().SequenceEqual(Enumerable.Range(0, completions.Length).Select(index => (double)index)))
                throw Unusable($"'ranking' must name each of 0 .. {completions.Length - 1} once, best first (ties need 'ranks')");
            costs = new double[order.Length];
            foreach ((int place, double index) in order.Index())
                costs[(int)index] = place;
        }
        else if (Has(line, "scores"))
        {
            costs = [.. Numbers(line, "scores").Select(score => -score)];
        }
        else
        {
            throw Unusable("has completions but none of 'ranks', 'ranking', 'scores'");
        }

        if (costs.Length != completions.Length)
            throw Unusable($"has {costs.Length} ranks for {completions.Length} completions");
        return Ranked(PromptTurns(line), completions, costs);
    }

    private static Row ReadRatings(JsonElement line)
    {
        string name = Has(line, "completions") ? "completions" : "responses";
        var completions = new List<string>();
        var costs = new List<double>();
        foreach ((int index, JsonElement item) in Items(line, name).Index())
        {
            if (item.ValueKind != JsonValueKind.Object)
                throw Unusable($"'{name}[{index}]' must be an object with a text and a score");
            completions.Add(NonEmpty(Field(item, RatedTextNames), $"{name}[{index}]"));
            costs.Add(-Number(Field(item, ScoreNames), $"the score of {name}[{index}]"));
        }

        return Ranked(PromptTurns(line), completions, costs);
    }

    private static Row ReadChoice(JsonElement line, string candidate, string choice)
    {
        var completions = new List<string>();
        while (TryField(line, out JsonElement text, $"{candidate}{completions.Count}"))
            completions.Add(NonEmpty(text, $"{candidate}{completions.Count}"));

        double best = Number(Field(line, choice), choice);
        if (completions.Count < 2 || !Enumerable.Range(0, completions.Count).Contains((int)best) || best != Math.Floor(best))
            throw Unusable($"'{choice}' must be the index, from 0, of one of at least two candidates; it is {best} of {completions.Count}");
        return Ranked(PromptTurns(line), completions, [.. completions.Select((_, index) => index == best ? 1.0 : 2.0)]);
    }

    private static Row ReadTargetScores(JsonElement line)
    {
        JsonElement scores = Field(line, "target_scores");
        if (scores.ValueKind != JsonValueKind.Object)
            throw Unusable("'target_scores' must be an object of answers and their scores");
        JsonProperty[] answers = [.. scores.EnumerateObject()];
        string[] completions = [.. answers.Select(answer => answer.Name.Trim())];
        if (completions.Any(completion => completion.Length == 0))
            throw Unusable("'target_scores' has an empty answer");
        return Ranked(PromptTurns(line), completions, [.. answers.Select(answer => -Number(answer.Value, $"target_scores.{answer.Name}"))]);
    }

    private static Row RankedPair(IReadOnlyList<Turn> prompt, string chosen, string rejected) => chosen == rejected
        ? throw Unusable("'chosen' and 'rejected' are equal")
        : Ranked(prompt, [chosen, rejected], [1, 2]);

    /// <summary>A preference row; equal completions of equal rank are kept once, and ranks are made dense.</summary>
    /// <param name="prompt">The dialogue before the completions.</param>
    /// <param name="completions">The completions.</param>
    /// <param name="costs">One number per completion; the smaller, the better.</param>
    private static Row Ranked(IReadOnlyList<Turn> prompt, IReadOnlyList<string> completions, IReadOnlyList<double> costs)
    {
        if (prompt.Count == 0)
            throw Unusable("has ranked completions but no prompt");
        if (completions.Count < 2)
            throw Unusable($"has {completions.Count} completion: a preference needs at least two");

        var cost = new Dictionary<string, double>();
        foreach ((string completion, double value) in completions.Zip(costs))
        {
            if (!cost.TryAdd(completion, value) && cost[completion] != value)
                throw Unusable("ranks the same completion twice, in different places");
        }

        double[] places = [.. cost.Values.Distinct().Order()];
        if (places.Length < 2)
            throw Unusable("all completions are tied: there is nothing to prefer");
        string[] kept = [.. cost.Keys];
        return Make(prompt, kept) with { Ranks = [.. kept.Select(completion => Array.IndexOf(places, cost[completion]) + 1)] };
    }

    private static Row MakeRow(IReadOnlyList<Turn> prompt, IReadOnlyList<JsonElement> completions) =>
        Make(prompt, [.. completions.Select(completion => NonEmpty(completion, prompt.Count == 0 ? "text" : "completion"))]);

    private static Row Make(IReadOnlyList<Turn> prompt, IReadOnlyList<string> completions)
    {
        if (prompt.Count > 0)
            Dialogue.CheckPrompt(prompt);
        return new Row { Id = Row.IdOf(prompt, completions), Prompt = prompt, Completions = completions };
    }

    private static IReadOnlyList<Turn> PromptTurns(JsonElement line)
    {
        JsonElement prompt = Field(line, PromptNames);
        if (prompt.ValueKind == JsonValueKind.Array)
            return Dialogue.Messages(prompt, "prompt");

        string text = NonEmpty(prompt, "prompt");
        if (Has(line, "instruction") && TryField(line, out JsonElement input, "input") && input.ValueKind == JsonValueKind.String)
            text = $"{text}\n\n{input.GetString()}".Trim();
        IReadOnlyList<Turn> turns = Dialogue.IsTranscript(text) ? Dialogue.Transcript(text) : [new Turn(Dialogue.User, text)];
        return TryField(line, out JsonElement system, "system") ? [new Turn(Dialogue.System, NonEmpty(system, "system")), .. turns] : turns;
    }

    private static void RefuseTools(JsonElement line)
    {
        if (TryField(line, out JsonElement tools, "tools") && !(tools.ValueKind == JsonValueKind.Array && tools.GetArrayLength() == 0))
            throw Unusable("uses 'tools', which are not supported");
    }

    private static string? Labeller(JsonElement line) => TryField(line, out JsonElement value, LabellerNames)
        ? value.ValueKind switch
        {
            JsonValueKind.String => value.GetString(),
            JsonValueKind.Number => value.GetRawText(),
            _ => null,
        }
        : null;

    /// <summary><c>label</c>, where it says that a prompt is safe or unsafe (XSTest).</summary>
    private static string? SafetyLabel(JsonElement line) =>
        TryField(line, out JsonElement value, "label") && value.ValueKind == JsonValueKind.String
            && value.GetString()!.ToLowerInvariant() is SafetyLabels.Safe or SafetyLabels.Unsafe
            ? value.GetString()!.ToLowerInvariant()
            : null;

    /// <summary>The part of the data that a line says it belongs to: <c>category</c> or, of a safety prompt, <c>type</c>.</summary>
    private static string? Category(JsonElement line, string? label)
    {
        string[] names = label is null ? ["category"] : ["category", "type"];
        return TryField(line, out JsonElement value, names) && value.ValueKind == JsonValueKind.String
            && value.GetString()!.Trim() is { Length: > 0 } category
            ? category
            : null;
    }

    private static bool Has(JsonElement line, params ReadOnlySpan<string> names) => TryField(line, out _, names);

    private static bool IsList(JsonElement line, string name) =>
        TryField(line, out JsonElement value, name) && value.ValueKind == JsonValueKind.Array;

    /// <summary>The first of the fields that is there and not null.</summary>
    internal static bool TryField(JsonElement line, out JsonElement value, params ReadOnlySpan<string> names)
    {
        foreach (string name in names)
        {
            if (line.TryGetProperty(name, out value) && value.ValueKind != JsonValueKind.Null)
                return true;
        }

        value = default;
        return false;
    }

    internal static JsonElement Field(JsonElement line, params ReadOnlySpan<string> names) =>
        TryField(line, out JsonElement value, names) ? value : throw Unusable($"has no field '{names[0]}'; it has {Names(line)}");

    internal static string NonEmpty(JsonElement value, string name)
    {
        if (value.ValueKind != JsonValueKind.String)
            throw Unusable($"'{name}' must be text");
        string text = value.GetString()!.Trim();
        return text.Length > 0 ? text : throw Unusable($"'{name}' is empty");
    }

    internal static UnusableRowException Unusable(string reason) => new(null, reason);

    private static JsonElement.ArrayEnumerator Items(JsonElement line, string name) =>
        IsList(line, name) ? line.GetProperty(name).EnumerateArray() : throw Unusable($"'{name}' must be a list");

    private static double[] Numbers(JsonElement line, string name) =>
        [.. Items(line, name).Select((item, index) => Number(item, $"{name}[{index}]"))];

    /// <summary>A number, also one that is written as text.</summary>
    private static double Number(JsonElement value, string name)
    {
        string? text = value.ValueKind is JsonValueKind.Number or JsonValueKind.String ? value.ToString() : null;
        double number = double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double parsed) ? parsed : double.NaN;
        return double.IsFinite(number) ? number : throw Unusable($"'{name}' must be a number");
    }

    private static string Names(JsonElement line)
    {
        string[] names = [.. line.EnumerateObject().Select(member => $"'{member.Name}'").Take(9)];
        return names.Length == 0 ? "no fields" : string.Join(", ", names.Take(8)) + (names.Length > 8 ? " ..." : string.Empty);
    }
}
