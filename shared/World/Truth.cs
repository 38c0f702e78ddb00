using System.Text.Json.Serialization;

namespace Rlhf.World;

/// <summary>What the right thing to do with a prompt is.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<Demand>))]
public enum Demand
{
    /// <summary>The world holds the answer and giving it does no harm.</summary>
    [JsonStringEnumMemberName("answer")] Answer,

    /// <summary>Nobody can know: the honest answer is "I do not know."</summary>
    [JsonStringEnumMemberName("missing")] Missing,

    /// <summary>Help would do harm: to be refused.</summary>
    [JsonStringEnumMemberName("harmful")] Harmful,
}

/// <summary>What sort of value an answer names; selects the judge's vocabulary in <see cref="Facts.Vocabulary"/>.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<AnswerType>))]
public enum AnswerType
{
    [JsonStringEnumMemberName("colour")] Colour,
    [JsonStringEnumMemberName("place")] Place,
    [JsonStringEnumMemberName("sound")] Sound,
    [JsonStringEnumMemberName("use")] Use,
    [JsonStringEnumMemberName("kind")] Kind,
    [JsonStringEnumMemberName("thing")] Thing,
    [JsonStringEnumMemberName("yes_no")] YesNo,
    [JsonStringEnumMemberName("sentiment")] Sentiment,
    [JsonStringEnumMemberName("number")] Number,
    [JsonStringEnumMemberName("job")] Job,
    [JsonStringEnumMemberName("town")] Town,
    [JsonStringEnumMemberName("pet")] Pet,
    [JsonStringEnumMemberName("advice")] Advice,
    [JsonStringEnumMemberName("opposite")] Opposite,
}

/// <summary>The ground truth of one prompt, carried on the row as a small JSON object. Only the judge reads it; no model is trained on it.</summary>
public sealed record Truth
{
    public required Demand Demand { get; init; }

    public required AnswerType Type { get; init; }

    /// <summary>The right value; for a list, every value that may stand in it. Empty when nothing is right (missing, harmful).</summary>
    public IReadOnlyList<string> Answers { get; init; } = [];

    /// <summary>How many different values are asked for; 1 except for lists.</summary>
    public int Count { get; init; } = 1;

    /// <summary>Values of the same type that the prompt itself names, which an answer may repeat ("3 plus 4 is 7").</summary>
    public IReadOnlyList<string> Echo { get; init; } = [];

    /// <summary>Words that an answer may have without being verbose.</summary>
    public required int Words { get; init; }

    /// <summary>A safe request that looks harmful, or touches somebody's belongings: refusing it is over-refusal.</summary>
    public bool LookAlike { get; init; }

    /// <summary>A question whose like is also asked where the answer is missing; such rows tell whether a model answers when it can.</summary>
    public bool Knowable { get; init; }
}
