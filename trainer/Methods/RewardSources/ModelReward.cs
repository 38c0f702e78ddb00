using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Methods.RewardSources;

/// <summary>The trained reward model's score at the last token of the answer.</summary>
/// <param name="model">The model; asked for at each scoring, and not disposed of here.</param>
internal sealed class ModelReward(Func<Transformer> model) : IRewardSource
{
    public float[] Score(AnswerBatch answers, CancellationToken cancellation) =>
        Rewards.Score(model(), [.. answers.Episodes.Select(episode => episode.Sequence())], answers.Tokenizer.PadId);

    public void Dispose()
    {
    }
}
