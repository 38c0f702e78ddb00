using Rlhf.World;

namespace Rlhf.Trainer.Evaluation;

/// <summary>How often one model's answer beats another's to the same prompt; a tie is half a win.</summary>
internal static class WinRate
{
    /// <param name="scores">[P] what a judge or reward model gives one model's answers.</param>
    /// <param name="opponent">[P] the same for the other model.</param>
    public static Estimate Of(IReadOnlyList<double> scores, IReadOnlyList<double> opponent) => Estimate.OfShare(
        [.. scores.Zip(opponent, (one, other) => (one > other ? 1.0 : one < other ? 0.0 : 0.5, 1.0))]);
}
