using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Rlhf.Rows;

/// <summary>One turn of a dialogue. <paramref name="Role"/> is <c>system</c>, <c>user</c> or <c>assistant</c>.</summary>
public sealed record Turn(string Role, string Content);

/// <summary>
/// The one row type that every accepted format is normalised to. What a row is follows from what it holds:
/// a demonstration has one completion; a preference row has K &gt;= 2 completions and their ranks; a prompt has a prompt and no
/// completion; a text document (pretraining) has no prompt and one completion.
/// </summary>
public sealed record Row
{
    /// <summary>Stable identity: the first 16 hexadecimal digits of the SHA-256 of prompt and completions.</summary>
    public required string Id { get; init; }

    /// <summary>The dialogue before the completion, oldest turn first; ends with a user turn. Empty for text documents.</summary>
    public IReadOnlyList<Turn> Prompt { get; init; } = [];

    /// <summary>The assistant's answers.</summary>
    public IReadOnlyList<string> Completions { get; init; } = [];

    /// <summary>One rank per completion, 1 = best, equal numbers = tie. Null unless this is a preference row.</summary>
    public IReadOnlyList<int>? Ranks { get; init; }

    /// <summary>The part of the data the row belongs to (a file's subset, a task cluster): metrics are reported by it.</summary>
    public string Subset { get; init; } = "all";

    /// <summary>Who ranked it, where that is known.</summary>
    public string? Labeller { get; init; }

    /// <summary>The right answer to the prompt, where a row of prompts came with one. Never shown to a model.</summary>
    public string? Reference { get; init; }

    /// <summary>Of a safety prompt, whether to answer it is safe: <see cref="SafetyLabels"/>. Null for other rows.</summary>
    public string? Label { get; init; }

    /// <summary>What a programmatic judge needs to score an answer. Never shown to a model in training.</summary>
    public JsonElement? Truth { get; init; }

    /// <summary>
    /// What rows are split by, so that no prompt is on both sides: the first 16 hexadecimal digits of the SHA-256 of the prompt;
    /// of the text, for a text document.
    /// </summary>
    [JsonIgnore]
    public string PromptKey => Prompt.Count > 0 ? IdOf(Prompt, []) : IdOf([], Completions);

    /// <summary>The <see cref="Id"/> of a row that holds these turns and completions.</summary>
    public static string IdOf(IReadOnlyList<Turn> prompt, IReadOnlyList<string> completions)
    {
        // As JSON, so that no text can pass for a border between two others.
        byte[] content = JsonSerializer.SerializeToUtf8Bytes(new { prompt, completions }, RlhfJson.Compact);
        return Convert.ToHexStringLower(SHA256.HashData(content))[..16];
    }
}

/// <summary>What the prompts of a safety set are labelled with.</summary>
public static class SafetyLabels
{
    /// <summary>A model should answer, however alarming the words: a refusal is over-refusal.</summary>
    public const string Safe = "safe";

    /// <summary>A model should refuse.</summary>
    public const string Unsafe = "unsafe";
}

/// <summary>A normalised data set in blob storage: JSON lines of <see cref="Row"/>.</summary>
/// <param name="Path">The blob's path.</param>
/// <param name="Sha256">Lower-case hexadecimal SHA-256 of the blob's bytes.</param>
/// <param name="Rows">The number of rows.</param>
public sealed record DatasetRef(string Path, string Sha256, int Rows);

/// <summary>The data sets that the data stage makes, by the names that jobs ask for.</summary>
public static class DatasetNames
{
    /// <summary>Pretraining text: documents, or dialogues to be rendered by the chat template. Splits: train, validation.</summary>
    public const string Text = "text";

    /// <summary>Demonstrations for SFT. Splits: train, validation.</summary>
    public const string Demonstrations = "demonstrations";

    /// <summary>
    /// Ranked completions for the reward model. Splits: train, validation (used for gates), test, <see cref="UnseenLabellers"/> and
    /// <see cref="HeldOutReward"/>.
    /// </summary>
    public const string Preferences = "preferences";

    /// <summary>The split of rankings by labellers of whom the reward model sees none.</summary>
    public const string UnseenLabellers = "unseenLabellers";

    /// <summary>The split of training rankings that only the held-out reward model learns from.</summary>
    public const string HeldOutReward = "heldOutReward";

    /// <summary>Prompts that an online method answers. Splits: train; validation drives the curve over KL.</summary>
    public const string Prompts = "prompts";

    /// <summary>Prompts of the final evaluation, seen by no stage before. Split: test.</summary>
    public const string Evaluation = "evaluation";

    /// <summary>Ranked completions that language models and reward model are asked to tell apart; nothing learns from them. Split: test.</summary>
    public const string Comparisons = "comparisons";

    /// <summary>Prompts labelled safe or unsafe, for counts of refusals. Split: test.</summary>
    public const string Safety = "safety";

    /// <summary>Worked examples that precede a prompt in the few-shot baseline. Split: train.</summary>
    public const string FewShot = "fewShot";

    /// <summary>The key of one split, such as <c>demonstrations.train</c>.</summary>
    public static string Split(string dataset, string split) => $"{dataset}.{split}";
}
