using Rlhf.Trainer.Data;

namespace Rlhf.Trainer.Methods.RewardSources;

/// <summary>1 for an answer that is its prompt's reference answer, outer white space aside; else 0.</summary>
internal sealed class ExactMatchReward(bool ignoreCase) : IRewardSource
{
    private readonly StringComparison comparison = ignoreCase ? StringComparison.OrdinalIgnoreCase : StringComparison.Ordinal;

    public float[] Score(AnswerBatch answers, CancellationToken cancellation) =>
        [.. answers.Completions.Select((text, i) => string.Equals(text, Reference(answers, i), comparison) ? 1f : 0f)];

    public void Dispose()
    {
    }

    private static string Reference(AnswerBatch answers, int index) => answers.Episodes[index].Reference?.Trim()
        ?? throw new JobInputException(
            $"The prompt '{Shortened(answers.Prompts[index])}' has no reference answer, which the reward 'exactMatch' compares with.",
            "Give the rows of data.prompts and data.evaluation an answer, as in {\"question\": ..., \"answer\": ...}.");

    private static string Shortened(string text) => text.Length <= 60 ? text : text[..60] + " ...";
}
