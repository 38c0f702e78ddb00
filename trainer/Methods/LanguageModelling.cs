using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>Next-token prediction of completions: what pretraining, SFT and PPO-ptx have in common.</summary>
internal static class LanguageModelling
{
    /// <summary>Input tokens a forward pass of a measurement takes at most, to bound its memory.</summary>
    private const int TokensPerPass = 16_384;

    /// <summary>A batch's share, with a gradient, of the mean loss over so many tokens, and of the token accuracy.</summary>
    /// <param name="model">A language model.</param>
    /// <param name="batch">The micro-batch.</param>
    /// <param name="tokens">Target tokens of the whole optimizer step.</param>
    public static (Tensor Loss, double Accuracy) Loss(Transformer model, TokenBatch batch, long tokens)
    {
        Tensor logits = model.Logits(batch.Predictors(model.Hidden(batch.Ids)));
        Tensor loss = (-Losses.LogProbs(logits, batch.Targets).sum()).DividedBy(tokens);
        using IDisposable noGradient = no_grad();
        return (loss, logits.argmax(-1).eq(batch.Targets).sum().ToDouble() / tokens);
    }

    /// <summary>Mean loss in nats a token and token accuracy over rows, without gradient.</summary>
    public static (double Loss, double Accuracy, long Tokens) Measure(
        Transformer model, IReadOnlyList<(int[] Prompt, int[] Completion)> rows, int padId)
    {
        double loss = 0, correct = 0;
        long tokens = 0;
        using IDisposable noGradient = no_grad();
        foreach (int[] pass in LengthSorted.Passes([.. rows.Select(row => row.Prompt.Length + row.Completion.Length)], TokensPerPass))
        {
            using DisposeScope scope = NewDisposeScope();
            TokenBatch batch = TokenBatch.Of([.. pass.Select(i => rows[i])], padId, model.Device);
            (Tensor passLoss, double accuracy) = Loss(model, batch, batch.Tokens);
            loss += passLoss.ToDouble() * batch.Tokens;
            correct += accuracy * batch.Tokens;
            tokens += batch.Tokens;
        }

        return (loss / Math.Max(1, tokens), correct / Math.Max(1, tokens), tokens);
    }
}
