using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>Every family's variants, fixture or not, against the same networks written out in plain loops.</summary>
public sealed class FamilyTests
{
    public static TheoryData<string> Names => [.. Families.Names];

    [Theory]
    [MemberData(nameof(Names))]
    public void Logits_are_those_of_the_plain_network(string name)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        using Transformer model = Families.Load(name);
        int[] ids = [3, 17, 49, 0, 8, 8, 31, 22, 5, 40, 11];
        double[][] expected = new PlainForward(model).Logits(ids);

        Tensor row = tensor(ids.Select(i => (long)i).ToArray(), [1, ids.Length]);
        AssertClose(expected, model.Logits(model.Hidden(row)));

        // The same behind three tokens of padding.
        Tensor padded = cat([zeros([1, 3], ScalarType.Int64), row], 1);
        Tensor mask = cat([zeros([1, 3], ScalarType.Int64), ones([1, ids.Length], ScalarType.Int64)], 1);
        AssertClose(expected, model.Logits(model.Hidden(padded, mask)).narrow(1, 3, ids.Length));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Greedy_tokens_are_those_of_the_plain_network(string name)
    {
        using Transformer model = Families.Load(name);
        int[][] prompts = [[3, 17, 49, 0, 8, 8, 31], [22, 5]];
        int[][] tokens = Sampler.Generate(model, prompts, new SamplingOptions { MaxNewTokens = 6, Temperature = 0, EosId = -1 });
        var plain = new PlainForward(model);
        foreach ((int[] prompt, int[] continuation) in prompts.Zip(tokens))
        {
            List<int> text = [.. prompt];
            foreach (int token in continuation)
            {
                double[] logits = plain.Logits([.. text])[^1];
                Assert.Equal(Array.IndexOf(logits, logits.Max()), token);
                text.Add(token);
            }
        }
    }

    private static void AssertClose(double[][] expected, Tensor logits)
    {
        for (int t = 0; t < expected.Length; t++)
        {
            for (int v = 0; v < expected[t].Length; v++)
            {
                double actual = logits[0, t, v].item<float>();
                Assert.True(Math.Abs(expected[t][v] - actual) < 2e-5, $"time {t}, token {v}: {actual} instead of {expected[t][v]}");
            }
        }
    }
}
