using Rlhf.Spec;

namespace Rlhf.Trainer.Methods.RewardSources;

/// <summary>
/// A reward for length in tokens, the end token not counted. With a target t an answer of n tokens gets -|n - t| / t; with limits it
/// gets 1 within them (both included), else 0.
/// </summary>
internal sealed class LengthReward(RewardSourceSpec spec) : IRewardSource
{
    public float[] Score(AnswerBatch answers, CancellationToken cancellation) =>
        [.. answers.Episodes.Select(episode => Score(episode.Response.Length - (episode.Ended ? 1 : 0)))];

    public void Dispose()
    {
    }

    private float Score(int tokens)
    {
        if (spec.TargetTokens is { } target)
            return -Math.Abs(tokens - target) / (float)target;
        return tokens >= (spec.MinTokens ?? 0) && tokens <= (spec.MaxTokens ?? int.MaxValue) ? 1 : 0;
    }
}
