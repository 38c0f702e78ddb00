using System.Text.Json;

namespace Rlhf.Rows;

/// <summary>Dialogues as they come in files: lists of messages, and hh-rlhf's transcripts.</summary>
internal static class Dialogue
{
    public const string System = "system";
    public const string User = "user";
    public const string Assistant = "assistant";

    private const string HumanMark = "\n\nHuman:";
    private const string AssistantMark = "\n\nAssistant:";

    /// <summary>The turns of a list of messages, in the order that a dialogue must have; ends with user or assistant.</summary>
    /// <param name="list">Objects with <c>role</c> and <c>content</c>.</param>
    /// <param name="name">The field, for messages.</param>
    /// <exception cref="UnusableRowException">It is no such list, or the roles are out of order.</exception>
    public static IReadOnlyList<Turn> Messages(JsonElement list, string name)
    {
        if (list.ValueKind != JsonValueKind.Array)
            throw RowFormats.Unusable($"'{name}' must be a list of messages");

        var turns = new List<Turn>();
        foreach ((int index, JsonElement message) in list.EnumerateArray().Index())
        {
            string place = $"{name}[{index}]";
            if (message.ValueKind != JsonValueKind.Object)
                throw RowFormats.Unusable($"'{place}' must be an object with 'role' and 'content'");
            if (RowFormats.TryField(message, out _, "tool_calls"))
                throw RowFormats.Unusable($"'{place}' calls tools, which are not supported");
            string role = RowFormats.NonEmpty(RowFormats.Field(message, "role"), $"{place}.role");
            if (role is not (System or User or Assistant))
                throw RowFormats.Unusable($"'{place}.role' is '{role}'; known are system, user and assistant");
            turns.Add(new Turn(role, RowFormats.NonEmpty(RowFormats.Field(message, "content"), $"{place}.content")));
        }

        if (turns.Count == 0)
            throw RowFormats.Unusable($"'{name}' is empty");
        CheckOrder(turns);
        return turns;
    }

    /// <summary>The one message of a list that holds an answer alone.</summary>
    public static JsonElement SingleAnswer(JsonElement list) =>
        list.GetArrayLength() == 1 && list[0].ValueKind == JsonValueKind.Object
            && RowFormats.TryField(list[0], out JsonElement role, "role")
            && role.ValueKind == JsonValueKind.String && role.GetString() == Assistant
            ? list[0]
            : throw RowFormats.Unusable("an answer given as a list must be one assistant message");

    /// <summary>Requires what every prompt must be: a dialogue in order that ends with the user.</summary>
    public static void CheckPrompt(IReadOnlyList<Turn> prompt)
    {
        CheckOrder(prompt);
        if (prompt[^1].Role != User)
            throw RowFormats.Unusable($"the prompt ends with the {prompt[^1].Role}, not with the user");
    }

    /// <summary>True for text in hh-rlhf's form.</summary>
    public static bool IsTranscript(string text) => Marked(text).StartsWith(HumanMark, StringComparison.Ordinal);

    /// <summary>The turns of a transcript; an empty last assistant turn, which only asks for an answer, is left out.</summary>
    public static IReadOnlyList<Turn> Transcript(string text)
    {
        string rest = Marked(text);
        var turns = new List<Turn>();
        while (rest.Length > 0)
        {
            bool human = rest.StartsWith(HumanMark, StringComparison.Ordinal);
            if (!human && !rest.StartsWith(AssistantMark, StringComparison.Ordinal))
                throw RowFormats.Unusable("the transcript does not begin with 'Human:'");

            int start = human ? HumanMark.Length : AssistantMark.Length;
            int end = NextMark(rest, start);
            string content = rest[start..end].Trim();
            rest = rest[end..];
            if (content.Length == 0 && !(rest.Length == 0 && !human))
                throw RowFormats.Unusable($"turn {turns.Count + 1} of the transcript is empty");
            if (content.Length > 0)
                turns.Add(new Turn(human ? User : Assistant, content));
        }

        return turns;
    }

    /// <summary>
    /// Cuts two transcripts at the last assistant mark that lies in the beginning they share: what comes before is the prompt, what
    /// comes after are the two answers.
    /// </summary>
    /// <exception cref="UnusableRowException">They are no transcripts, or part before their last answer.</exception>
    public static (IReadOnlyList<Turn> Prompt, string Chosen, string Rejected) SplitTranscripts(string chosen, string rejected)
    {
        if (!IsTranscript(chosen) || !IsTranscript(rejected))
        {
            throw RowFormats.Unusable(
                "has no 'prompt', and 'chosen' and 'rejected' are no transcripts ('Human: ... Assistant: ...') that could hold one");
        }

        (chosen, rejected) = (Marked(chosen), Marked(rejected));
        int shared = chosen.AsSpan().CommonPrefixLength(rejected);
        int mark = chosen.AsSpan(0, shared).LastIndexOf(AssistantMark);
        if (mark < 0)
            throw RowFormats.Unusable("'chosen' and 'rejected' part before the first answer");
        return (Transcript(chosen[..mark]), Answer(chosen, "chosen"), Answer(rejected, "rejected"));

        string Answer(string transcript, string name)
        {
            string answer = transcript[(mark + AssistantMark.Length)..];
            if (answer.Contains(HumanMark, StringComparison.Ordinal))
                throw RowFormats.Unusable("'chosen' and 'rejected' part before their last answer");
            if (answer.Contains(AssistantMark, StringComparison.Ordinal))
                throw RowFormats.Unusable($"'{name}' has two assistant turns in a row");
            answer = answer.Trim();
            return answer.Length > 0 ? answer : throw RowFormats.Unusable($"'{name}' is empty");
        }
    }

    private static string Marked(string text) => "\n\n" + text.Trim();

    private static int NextMark(string text, int start)
    {
        int human = text.IndexOf(HumanMark, start, StringComparison.Ordinal);
        int assistant = text.IndexOf(AssistantMark, start, StringComparison.Ordinal);
        int next = human < 0 ? assistant : assistant < 0 ? human : Math.Min(human, assistant);
        return next < 0 ? text.Length : next;
    }

    private static void CheckOrder(IReadOnlyList<Turn> turns)
    {
        foreach ((int index, Turn turn) in turns.Index())
        {
            bool afterUser = index > 0 && turns[index - 1].Role == User;
            bool inOrder = turn.Role switch
            {
                System => index == 0,
                User => !afterUser,
                Assistant => afterUser,
                _ => false,
            };
            string after = index == 0 ? string.Empty : $" after '{turns[index - 1].Role}'";
            if (!inOrder)
                throw RowFormats.Unusable($"roles out of order: turn {index + 1} is '{turn.Role}'{after}");
        }

        if (turns[^1].Role == System)
            throw RowFormats.Unusable("roles out of order: nothing follows the system turn");
    }
}
