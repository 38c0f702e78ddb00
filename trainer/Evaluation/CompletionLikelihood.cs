using System.Text.Json.Serialization;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Evaluation;

/// <summary>How likely a language model finds a completion that it did not write.</summary>
/// <param name="LogProb">The log-probability of all its tokens given the prompt, in nats.</param>
/// <param name="Tokens">Those tokens; the end token counts where the completion has one.</param>
public readonly record struct CompletionLikelihood(double LogProb, int Tokens)
{
    /// <summary>Log-probability per token: compares completions of different lengths without favouring the short one.</summary>
    [JsonIgnore]
    public double PerToken => LogProb / Tokens;

    /// <summary>Reads the likelihood of completions at temperature 1, without gradient.</summary>
    /// <param name="model">A language model.</param>
    /// <param name="rows">[R] prompts with one completion each, in tokens; neither is empty.</param>
    /// <param name="padId">The padding token.</param>
    /// <returns>[R] in the order of the rows.</returns>
    public static CompletionLikelihood[] Measure(
        Transformer model, IReadOnlyList<(int[] Prompt, int[] Completion)> rows, int padId)
    {
        float[][] logProbs = Episodes.LogProbs(
            model, [.. rows.Select(row => new Episode(row.Prompt, row.Completion, Ended: true))], temperature: 1, padId);
        return [.. logProbs.Select(tokens => new CompletionLikelihood(tokens.Sum(logProb => (double)logProb), tokens.Length))];
    }
}
