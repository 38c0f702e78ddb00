namespace Rlhf.Trainer.Methods.RewardSources;

/// <summary>Something that scores answers: a reward model, a rule, an endpoint. Equal answers get equal scores.</summary>
public interface IRewardSource : IDisposable
{
    /// <summary>Scores every answer of a batch.</summary>
    /// <param name="answers">The answers.</param>
    /// <param name="cancellation">Ends a wait for something outside of this process.</param>
    /// <returns>One finite number per answer, in their order.</returns>
    /// <exception cref="Data.JobInputException">The source cannot score these answers, and another attempt would not change that.</exception>
    /// <exception cref="OperationCanceledException">Cancelled while waiting; nothing has changed.</exception>
    float[] Score(AnswerBatch answers, CancellationToken cancellation);
}
