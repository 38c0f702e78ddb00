using System.Text.RegularExpressions;
using Rlhf.Spec;
using Rlhf.Trainer.Data;

namespace Rlhf.Trainer.Methods.RewardSources;

/// <summary>1 for an answer in which the pattern is found, else 0. Time is linear in the answer's length (<see cref="RewardPattern"/>).</summary>
internal sealed class RegexReward(string pattern) : IRewardSource
{
    private readonly Regex regex = RewardPattern.Compile(pattern);

    public float[] Score(AnswerBatch answers, CancellationToken cancellation)
    {
        try
        {
            return [.. answers.Completions.Select(text => regex.IsMatch(text) ? 1f : 0f)];
        }
        catch (RegexMatchTimeoutException e)
        {
            throw new JobInputException(
                $"The reward pattern '{pattern}' needs more than {RewardPattern.TimeLimit.TotalSeconds:0} s for one answer.",
                "Write a simpler pattern: smaller repetition counts, fewer alternatives.", e);
        }
    }

    public void Dispose()
    {
    }
}
