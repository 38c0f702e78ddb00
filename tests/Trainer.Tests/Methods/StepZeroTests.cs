using Rlhf.Spec;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tests.Models;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>What must hold before the first PPO step, on every family: section 6.1 to 6.3 of the reference.</summary>
public sealed class StepZeroTests
{
    private const double Padding = 1e-5;

    private static readonly ITokenizer Tokenizer = Toy.Tokenizer;
    private static readonly PpoSpec Spec = new() { MaxNewTokens = 12, Temperature = 0.7 };

    public static TheoryData<string> Names => [.. Families.Names];

    [Theory]
    [MemberData(nameof(Names))]
    public void The_preflight_of_PPO_finds_a_ratio_of_1_no_KL_no_trace_of_padding_and_the_same_tokens_without_the_cache(string name)
    {
        using Transformer policy = Families.Load(name, Tokenizer.VocabularySize), reference = policy.Clone();
        using Transformer reward = Transformer.WithScoreHead(policy, seed: 3);
        IReadOnlyDictionary<string, double> measured = Preflight.Check(
            Stages.Ppo, policy, reference, reward, Prompts(), Spec.MaxNewTokens, Spec.Temperature, Tokenizer, seed: 5);
        Assert.InRange(measured["preflight/ratio_error"], 0, 1e-6);
        Assert.Equal(0, measured["preflight/kl_error"]);
        Assert.InRange(measured["preflight/policy_pad_error"], 0, Padding);
        Assert.InRange(measured["preflight/reward_pad_error"], 0, Padding);
        Assert.InRange(measured["preflight/decode_error"], 0, Padding);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void The_ratio_in_training_is_1_and_the_KL_in_evaluation_0(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using Transformer policy = Families.Load(name, Tokenizer.VocabularySize), reference = policy.Clone();
        Episode[] episodes = Episodes.Sample(policy, Prompts(), Spec.MaxNewTokens, Spec.Temperature, seed: 1, Tokenizer);
        float[][] old = Episodes.LogProbs(policy, episodes, Spec.Temperature, Tokenizer.PadId);
        // The batch of the pass that gave the old ones, with an autograd graph; then minibatches of other rows and other padding, where
        // the sums are taken in another order: one unit in the last place of a log-probability below -8 is 1e-6 already.
        int[] pass = LengthSorted.Passes([.. episodes.Select(episode => episode.Sequence().Length)], int.MaxValue).Single();
        Assert.InRange(RatioError(pass), 0, 1e-6);
        Assert.All(Seeds.Permutation(episodes.Length, 3).Chunk(3), minibatch => Assert.InRange(RatioError(minibatch), 0, Padding));
        Assert.All(Episodes.Kl(policy, reference, episodes, Spec.Temperature, Tokenizer.PadId), kl => Assert.Equal(0, kl));

        double RatioError(int[] rows)
        {
            (Tensor logProbs, _) = Episodes.Policy(
                policy, Episodes.Batch(episodes, rows, Tokenizer.PadId, policy.Device), Spec.Temperature);
            Assert.True(logProbs.requires_grad);
            return ((logProbs - JaggedRows.Flat(old, rows, policy.Device)).exp() - 1).abs().max().item<float>();
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Padding_on_the_left_changes_nothing_either(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        using Transformer model = Families.Load(name, Tokenizer.VocabularySize);
        int[][] rows = Prompts();
        int longest = rows.Max(row => row.Length);
        Tensor ids = stack(rows.Select(row => Padded(row, Tokenizer.PadId)));
        Tensor mask = stack(rows.Select(row => Padded([.. row.Select(_ => 1)], 0)));
        Tensor together = model.Logits(model.Hidden(ids, mask)).log_softmax(-1);
        foreach ((int index, int[] row) in rows.Index())
        {
            Tensor alone = model.Logits(model.Hidden(tensor(row).to(ScalarType.Int64).unsqueeze(0))).log_softmax(-1)[0];
            Assert.InRange((together[index, (longest - row.Length)..] - alone).abs().max().item<float>(), 0, Padding);
        }

        Tensor Padded(int[] row, int filler) =>
            tensor([.. Enumerable.Repeat((long)filler, longest - row.Length), .. row.Select(id => (long)id)]);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Both_decoders_choose_the_tokens_of_the_uncached_network(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        using Transformer model = Families.Load(name, Tokenizer.VocabularySize);
        var options = new SamplingOptions { MaxNewTokens = 12, Temperature = 0, EosId = -1 };
        SamplingRow[] byLibtorch = [.. Prompts().Select((prompt, i) => new SamplingRow(prompt, i, options.MaxNewTokens))];
        Sampler.DecodeWithLibtorch(model, byLibtorch, options);
        int[][] expected = [.. byLibtorch.Select(row => row.New.ToArray())];
        foreach ((int[] prompt, int[] tokens) in Prompts().Zip(expected))
        {
            int[] text = [.. prompt, .. tokens];
            Tensor logits = model.Logits(model.Hidden(tensor(text[..^1]).to(ScalarType.Int64).unsqueeze(0)))[0, (prompt.Length - 1)..];
            Assert.Equal(tokens.Select(t => (long)t), logits.argmax(-1).data<long>());
        }

        if (!CpuDecoder.Suits(model)) return;
        SamplingRow[] byDecoder = [.. Prompts().Select((prompt, i) => new SamplingRow(prompt, i, options.MaxNewTokens))];
        CpuDecoder.Decode(model, byDecoder, options);
        Assert.Equal(expected, byDecoder.Select(row => row.New.ToArray()));
    }

    [Fact]
    public void The_decoder_in_CSharp_takes_part_above()
    {
        string[] suited = [.. Families.Names.Where(name =>
        {
            using Transformer model = Families.Load(name);
            return CpuDecoder.Suits(model);
        })];
        Assert.Contains("qwen2", suited);
        Assert.Contains("llama 3, stretched rotation", suited);
        Assert.DoesNotContain("mistral", suited); // its window
        Assert.DoesNotContain("gpt2", suited);
    }

    /// <summary>Of 3 to 10 tokens.</summary>
    private static int[][] Prompts() =>
        [.. Enumerable.Range(0, 8).Select(i => Enumerable.Range(0, 3 + i).Select(t => 2 + (i * 37 + t * 53) % 300).ToArray())];
}
