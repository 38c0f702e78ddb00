using Rlhf.Trainer.Data;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Trainer.Methods.RewardSources;

/// <summary>Answers that are scored together, in tokens and, where a source asks for it, as text.</summary>
/// <param name="episodes">The answers with their prompts.</param>
/// <param name="tokenizer">The policy's tokenizer.</param>
/// <param name="occasion">Names this scoring within the run, such as <c>ppo/17/rollout</c>: the same one asks for the same scores.</param>
public sealed class AnswerBatch(IReadOnlyList<Episode> episodes, ITokenizer tokenizer, string occasion)
{
    private readonly Lazy<string[]> prompts = new(() => [.. episodes.Select(episode => tokenizer.Decode(episode.Prompt))]);
    private readonly Lazy<string[]> completions =
        new(() => [.. episodes.Select(episode => RowTokenizer.AnswerText(tokenizer, episode.Response))]);

    /// <summary>The answers with their prompts.</summary>
    public IReadOnlyList<Episode> Episodes => episodes;

    /// <summary>The policy's tokenizer.</summary>
    public ITokenizer Tokenizer => tokenizer;

    /// <summary>Names this scoring within the run.</summary>
    public string Occasion => occasion;

    /// <summary>The prompts as text, as the policy saw them.</summary>
    public IReadOnlyList<string> Prompts => prompts.Value;

    /// <summary>The answers as text, without end token and outer white space.</summary>
    public IReadOnlyList<string> Completions => completions.Value;
}
