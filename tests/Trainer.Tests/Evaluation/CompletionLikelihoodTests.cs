using Rlhf.Report;
using Rlhf.Trainer.Evaluation;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tests.Methods;
using Rlhf.World;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Evaluation;

public sealed class CompletionLikelihoodTests
{
    [Fact]
    public void LikelihoodIsTheSumOfWhatTheSoftmaxGivesEachToken()
    {
        using Transformer model = Toy.Model();
        int[] prompt = Toy.Tokenizer.Encode("Colour of the sky:"), completion = [.. Toy.Tokenizer.Encode(" blue"), Toy.Tokenizer.EosId];

        CompletionLikelihood found = CompletionLikelihood.Measure(model, [(prompt, completion)], Toy.Tokenizer.PadId).Single();

        // By hand: one row, no padding, the whole vocabulary's softmax at each position before a completion token.
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        int[] all = [.. prompt, .. completion];
        Tensor logits = model.Logits(model.Hidden(tensor([.. all.Select(id => (long)id)], [1, all.Length])))[0];
        double expected = 0;
        for (int t = 0; t < completion.Length; t++)
            expected += nn.functional.log_softmax(logits[prompt.Length + t - 1], -1)[completion[t]].ToDouble();
        Assert.Equal(completion.Length, found.Tokens);
        Assert.Equal(expected, found.LogProb, 1e-4);
        Assert.Equal(expected / completion.Length, found.PerToken, 1e-4);
    }

    [Fact]
    public void LikelihoodDoesNotDependOnTheRowsBeside()
    {
        using Transformer model = Toy.Model();
        (int[], int[])[] rows = [.. Toy.Demonstrations.Select(row => (row.Prompt, row.Completion))];

        CompletionLikelihood[] together = CompletionLikelihood.Measure(model, rows, Toy.Tokenizer.PadId);

        foreach ((int i, (int[], int[]) row) in rows.Index())
            Assert.Equal(CompletionLikelihood.Measure(model, [row], Toy.Tokenizer.PadId)[0].LogProb, together[i].LogProb, 1e-4);
    }

    [Fact]
    public void HeldOutLossWeighsTokensNotTexts()
    {
        // Two texts: 2 nats over 1 token, 4 nats over 3 tokens.
        EvaluationRow[] rows = [.. HeldOutLoss.Rows("sft", [new(-2, 1), new(-4, 3)])];

        Assert.Equal(("sft", "loss", 1.5, 4), (rows[0].Model, rows[0].Metric, rows[0].Value, rows[0].N));
        Assert.Equal(("sft", "perplexity", 4), (rows[1].Model, rows[1].Metric, rows[1].N));
        Assert.Equal(Math.Exp(1.5), rows[1].Value, 1e-12);
        // Residuals .5 and -.5: 1.96 √(2/1 × .5) / 4.
        Assert.Equal(1.96 / 4, rows[0].Ci95, 1e-12);
        Assert.Equal(Math.Exp(1.5) * 1.96 / 4, rows[1].Ci95, 1e-12);
        Assert.Empty(HeldOutLoss.Rows("sft", []));
    }

    [Fact]
    public void RatioOfEqualGroupsIsTheirMean()
    {
        Estimate mean = Estimate.OfMean([.1, .7, .4, .4]), ratio = Estimate.OfRatio([(.1, 1), (.7, 1), (.4, 1), (.4, 1)]);

        Assert.Equal(mean.Value, ratio.Value, 1e-12);
        Assert.Equal(mean.Ci95, ratio.Ci95, 1e-12);
        Assert.Equal(4, ratio.N);
    }
}
