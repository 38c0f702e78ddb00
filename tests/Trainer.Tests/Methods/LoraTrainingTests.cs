using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>The methods with adapters: what they share, what they keep, and that resuming changes nothing.</summary>
public sealed class LoraTrainingTests(PpoTests.Trained trained) : IClassFixture<PpoTests.Trained>
{
    private static readonly LoraOptions Adapter = new(Rank: 4, Alpha: 8, []);

    private static readonly PpoSpec Ppo = new()
    {
        Iterations = 20,
        Episodes = 32,
        MinibatchSize = 16,
        MaxNewTokens = 6,
        LearningRate = 5e-3,
        CriticLearningRate = 5e-3,
        KlCoefficient = 0.02,
    };

    [Fact]
    public void Sft_learns_anew_by_its_adapter_and_leaves_the_base()
    {
        // A base that knows the colours, but of other things: embedding and head, which stay frozen, tell them apart.
        using Transformer trunk = Toy.Model();
        TokenizedDemonstration[] mistaken =
            [.. Toy.Demonstrations.Select((row, i) => row with { Completion = Toy.Demonstrations[i / 8 * 8 + (i + 3) % 8].Completion })];
        Train(trunk, mistaken, new SftSpec { LearningRate = 5e-3, Epochs = 40, BatchSize = 8 });
        byte[] before = Bytes(trunk);
        using Transformer model = trunk.WithAdapter(new LoraOptions(8, 16, [LoraOptions.AllLinear]), 1);
        (double untrained, double learned) =
            Train(model, Toy.Demonstrations, new SftSpec { LearningRate = 1e-2, Epochs = 30, BatchSize = 8 });
        Assert.True(untrained > 2 && learned < 0.3, $"loss {untrained} to {learned}");
        Assert.Equal(before, Bytes(trunk));

        static (double Before, double After) Train(Transformer model, IReadOnlyList<TokenizedDemonstration> rows, SftSpec spec)
        {
            using var sft = new Sft(model, spec, rows, rows, Toy.Tokenizer, 8, seed: 1);
            double before = sft.Summary()["val/loss"];
            while (sft.Step < sft.TotalSteps)
                sft.Advance();
            return (before, sft.Summary()["val/loss"]);
        }
    }

    [Fact]
    public void Ppo_starts_at_its_reference_and_raises_the_reward()
    {
        byte[] before = [.. Bytes(trained.Sft), .. Bytes(trained.Reward)];
        using Ppo ppo = FreshPpo(Ppo);
        List<IReadOnlyDictionary<string, double>> metrics = [];
        while (ppo.Step < ppo.TotalSteps)
            metrics.Add(ppo.Advance());

        // The very same bits: the policy is the reference until its adapter has learned.
        Assert.Equal(0, metrics[0]["preflight/kl_error"]);
        Assert.Equal(0, metrics[0]["objective/kl"]);
        Assert.Equal(0, metrics[0]["objective/kl_k3"]);
        Assert.All(metrics, m => Assert.Equal(1, m["policy/ratio_first_minibatch"]));
        double first = metrics.Take(3).Average(m => m["objective/score_after_penalty"]);
        double last = metrics.TakeLast(3).Average(m => m["objective/score_after_penalty"]);
        Assert.True(last > first + 0.3, $"reward {first:0.00} to {last:0.00}");
        Assert.True(metrics[^1]["objective/kl_k3"] > 0.01);
        Assert.Equal(before, (byte[])[.. Bytes(trained.Sft), .. Bytes(trained.Reward)]);
    }

    [Fact]
    public void Ppo_holds_two_trunks_instead_of_four()
    {
        long before = Distinct(trained.Sft, trained.Reward);
        using Ppo full = FreshPpo(Ppo, adapter: null);
        using Ppo adapted = FreshPpo(Ppo);
        Assert.Equal(2 * before, Distinct(trained.Sft, trained.Reward, full.Policy, full.Critic));
        // Only the value head is new; adapters are counted apart.
        Assert.Equal(before + 32, Distinct(trained.Sft, trained.Reward, adapted.Policy, adapted.Critic));
        Assert.All(adapted.Policy.NamedWeights().Zip(trained.Sft.NamedWeights()), pair => Assert.Same(pair.Second.Value, pair.First.Value));
        Assert.Equal(2 * before, full.Policy.Trainable().Concat(full.Critic.Trainable()).Sum(w => w.Value.numel()) + before);

        // Attention of two layers: q and o are 32 x 32, k and v 32 x 16; rank 4.
        const int perModel = 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16));
        Assert.Equal(perModel, adapted.Policy.Trainable().Sum(w => w.Value.numel()));
        Assert.Equal(perModel + 32, adapted.Critic.Trainable().Sum(w => w.Value.numel()));

        static long Distinct(params IEnumerable<Transformer> models) =>
            models.SelectMany(m => m.NamedWeights()).Select(w => w.Value).Distinct(ReferenceEqualityComparer.Instance).Sum(w => ((Tensor)w!).numel());
    }

    [Fact]
    public void Resumed_sft_equals_uninterrupted_byte_for_byte()
    {
        List<Transformer> models = [];
        MemoryCheckpoint.AssertResumes(() =>
        {
            models.Add(Toy.Model());
            models.Add(models[^1].WithAdapter(Adapter, 4));
            SftSpec spec = new() { LearningRate = 5e-3, BatchSize = 5, Epochs = 2 };
            return new Sft(models[^1], spec, Toy.Demonstrations, Toy.Demonstrations, Toy.Tokenizer, 8, seed: 3);
        });
        models.ForEach(model => model.Dispose());
    }

    [Fact]
    public void Resumed_reward_model_equals_uninterrupted_byte_for_byte() =>
        MemoryCheckpoint.AssertResumes(() => FreshReward(new RewardSpec { LearningRate = 5e-3, BatchSize = 5, Epochs = 2 }));

    [Fact]
    public void Resumed_ppo_equals_uninterrupted_byte_for_byte() =>
        MemoryCheckpoint.AssertResumes(() => FreshPpo(Ppo with { Episodes = 12, MinibatchSize = 5, PtxCoefficient = 0.5, KlTarget = 0.5 }));

    [Theory]
    [InlineData(PreferenceMethod.Dpo)]
    [InlineData(PreferenceMethod.Rloo)]
    [InlineData(PreferenceMethod.Grpo)]
    public void The_other_methods_share_the_reference_and_resume_byte_for_byte(PreferenceMethod method)
    {
        byte[] before = Bytes(trained.Sft);
        using (IPolicyMethod one = Fresh())
        {
            Assert.All(one.Policy.NamedWeights().Zip(trained.Sft.NamedWeights()), pair => Assert.Same(pair.Second.Value, pair.First.Value));
            Assert.Equal(0, one.Advance()["preflight/kl_error"]);
        }

        MemoryCheckpoint.AssertResumes(Fresh);
        Assert.Equal(before, Bytes(trained.Sft));

        IPolicyMethod Fresh() => method switch
        {
            PreferenceMethod.Dpo => new Dpo(
                trained.Sft, trained.Reward, new DpoSpec { LearningRate = 5e-3, BatchSize = 5, Epochs = 2 }, new AnswerSampling(6, 1, 0),
                Toy.Preferences, Toy.Preferences, Toy.Tokenizer, seed: 6, adapter: Adapter),
            PreferenceMethod.Rloo => new Rloo(
                trained.Sft, trained.Reward, new RlooSpec { LearningRate = 5e-3, Episodes = 12, MinibatchSize = 5, GroupSize = 3, MaxNewTokens = 6 },
                Toy.TokenizedPrompts, Toy.Tokenizer, seed: 6, adapter: Adapter),
            _ => new Grpo(
                trained.Sft, trained.Reward, new GrpoSpec { LearningRate = 5e-3, Episodes = 12, MinibatchSize = 5, GroupSize = 3, MaxNewTokens = 6 },
                Toy.TokenizedPrompts, Toy.Tokenizer, seed: 6, adapter: Adapter),
        };
    }

    [Fact]
    public void A_checkpoint_holds_the_adapter_alone()
    {
        using RewardModel reward = FreshReward(new RewardSpec());
        reward.Advance();
        var checkpoint = MemoryCheckpoint.Of(reward);
        IReadOnlyDictionary<string, Tensor> weights = checkpoint.ReadTensors(Stages.Reward);
        Assert.Equal(reward.Model.Trainable().Select(w => w.Name), weights.Keys);
        Assert.All(weights.Keys, name => Assert.True(name.Contains(".lora_", StringComparison.Ordinal) || name == "score.weight"));
        Assert.Equal(2 * weights.Count, checkpoint.ReadTensors($"{Stages.Reward}.optimizer").Count);
        foreach (Tensor tensor in weights.Values)
            tensor.Dispose();
    }

    [Fact]
    public void The_exported_reward_model_is_merged_and_scores_the_same()
    {
        byte[] before = Bytes(trained.Sft);
        RewardSpec spec = new() { LearningRate = 4e-3, BatchSize = 8, Epochs = 60 };
        using RewardModel reward = FreshReward(spec, new LoraOptions(8, 16, [LoraOptions.AllLinear]));
        double untrained = reward.Summary()["val/accuracy"];
        while (reward.Step < reward.TotalSteps)
            reward.Advance();
        IReadOnlyDictionary<string, double> summary = reward.Summary();
        Assert.True(summary["val/accuracy"] > Math.Max(0.9, untrained), $"accuracy {untrained} to {summary["val/accuracy"]}");
        Assert.Equal(before, Bytes(trained.Sft));

        using Transformer exported = reward.Export();
        Assert.Null(exported.Adapter);
        Assert.NotEqual(0, exported.Config.RewardBias);
        int[][] sequences = [.. Toy.Demonstrations.Select(row => (int[])[.. row.Prompt, .. row.Completion])];
        float[] raw = Rewards.Score(reward.Model, sequences, Toy.Tokenizer.PadId);
        float[] exportedScores = Rewards.Score(exported, sequences, Toy.Tokenizer.PadId);
        Assert.All(raw.Zip(exportedScores), pair => Assert.Equal(pair.First - exported.Config.RewardBias, pair.Second, 1e-5));
    }

    private RewardModel FreshReward(RewardSpec spec) => FreshReward(spec, Adapter);

    private RewardModel FreshReward(RewardSpec spec, LoraOptions adapter) =>
        new(trained.Sft, spec, Toy.Preferences, Toy.Preferences, Toy.Demonstrations, Toy.Tokenizer, seed: 2, adapter: adapter);

    private Ppo FreshPpo(PpoSpec spec) => FreshPpo(spec, Adapter);

    private Ppo FreshPpo(PpoSpec spec, LoraOptions? adapter) => new(
        trained.Sft, trained.Reward, spec, Toy.TokenizedPrompts, Toy.Demonstrations, Toy.Tokenizer, seed: 6, adapter: adapter);

    private static byte[] Bytes(Transformer model) => [.. model.NamedWeights().SelectMany(w => w.Value.bytes.ToArray())];
}
