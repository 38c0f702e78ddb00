using Rlhf.Report;
using Rlhf.World;

namespace Rlhf.Trainer.Evaluation;

/// <summary>
/// Held-out loss: mean negative log-likelihood in nats per completion token of demonstrations that no stage has learnt from; and
/// perplexity, its exponential.
/// </summary>
internal static class HeldOutLoss
{
    /// <summary>
    /// The rows <c>loss</c> and <c>perplexity</c> of one model; their N is the number of tokens. The interval treats demonstrations as
    /// independent, not their tokens; that of the perplexity follows by the delta method.
    /// </summary>
    public static IEnumerable<EvaluationRow> Rows(string model, IReadOnlyList<CompletionLikelihood> demonstrations)
    {
        if (demonstrations.Count == 0)
            yield break;
        Estimate loss = Estimate.OfRatio([.. demonstrations.Select(row => (-row.LogProb, (double)row.Tokens))]);
        int tokens = demonstrations.Sum(row => row.Tokens);
        double perplexity = Math.Exp(loss.Value);
        yield return new EvaluationRow(model, "loss", loss.Value, tokens, loss.Ci95);
        yield return new EvaluationRow(model, "perplexity", perplexity, tokens, perplexity * loss.Ci95);
    }
}
