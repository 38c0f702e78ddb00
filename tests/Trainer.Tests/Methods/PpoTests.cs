using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

public sealed class PpoTests(PpoTests.Trained trained) : IClassFixture<PpoTests.Trained>
{
    private static readonly PpoSpec Spec = new()
    {
        Iterations = 20,
        Episodes = 32,
        MinibatchSize = 16,
        Epochs = 2,
        MaxNewTokens = 6,
        LearningRate = 2e-3,
        CriticLearningRate = 2e-3,
        KlCoefficient = 0.02,
    };

    [Fact]
    public void Raises_the_reward_and_keeps_its_invariants()
    {
        using Ppo ppo = Fresh(Spec);
        List<IReadOnlyDictionary<string, double>> metrics = [];
        while (ppo.Step < ppo.TotalSteps)
            metrics.Add(ppo.Advance());

        double first = metrics.Take(3).Average(m => m["objective/score_after_penalty"]);
        double last = metrics.TakeLast(3).Average(m => m["objective/score_after_penalty"]);
        Assert.True(last > first + 0.3, $"reward {first:0.00} to {last:0.00}");
        Assert.All(metrics, m => Assert.Equal(1, m["policy/ratio_first_minibatch"]));
        Assert.Equal(0, metrics[0]["objective/kl"], 1e-6);
        Assert.Equal(0, metrics[0]["objective/kl_k3"], 1e-6);
        Assert.True(metrics[^1]["objective/kl_k3"] > 0.01);
        // Of what the returns vary by, little is left once most answers are right, so the critic is judged by its error alone.
        double[] errors = [.. metrics.Select(m => m["val/error"])];
        Assert.True(errors.TakeLast(5).Average() < errors[0], string.Join(' ', errors.Select(value => $"{value:0.000}")));
        Assert.Equal(Spec.KlCoefficient, metrics[^1]["objective/kl_coef"]);

        ValidationAnswers validation = ppo.Validate(Toy.TokenizedPrompts);
        Assert.Equal(32, validation.Episodes.Count);
        Assert.True(validation.Kl.Average() > 0.05);
        Assert.True(validation.Scores.Average() > first);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Resumed_equals_uninterrupted_byte_for_byte(bool everything)
    {
        PpoSpec spec = Spec with { Episodes = 12, MinibatchSize = 5 };
        if (everything)
        {
            spec = spec with
            {
                KlTarget = 0.5,
                KlHorizon = 100,
                PtxCoefficient = 0.5,
                WhitenRewards = true,
                Schedule = ScheduleKind.Linear,
            };
        }

        MemoryCheckpoint.AssertResumes(() => Fresh(spec));
    }

    [Fact]
    public void The_adaptive_coefficient_moves_with_the_measured_kl()
    {
        using Ppo ppo = Fresh(Spec with { KlTarget = 5, KlHorizon = 64, KlCoefficient = 0.1 });
        IReadOnlyDictionary<string, double> first = ppo.Advance(), second = ppo.Advance();
        Assert.Equal(-0.2, first["objective/kl_coef_error"]); // KL 0 is far below the target: the error is clipped
        Assert.Equal(0.1, first["objective/kl_coef"]);
        Assert.Equal(0.1 * (1 - 0.2 * 32 / 64), second["objective/kl_coef"], 1e-12);
    }

    [Theory]
    [InlineData(MissingEosMode.Replace)]
    [InlineData(MissingEosMode.Subtract)]
    [InlineData(MissingEosMode.None)]
    public void A_response_without_end_is_penalised(MissingEosMode mode)
    {
        using Transformer stammering = Toy.Model(seed: 99); // untrained: one token is practically never the end
        using Ppo ppo = Fresh(Spec with { MissingEos = mode, MissingEosValue = 2.5, MaxNewTokens = 1, RewardClip = 0.5 }, stammering);
        IReadOnlyDictionary<string, double> metrics = ppo.Advance();
        double ended = metrics["rollout/eos_rate"];
        Assert.InRange(ended, 0, 0.1);
        Assert.Equal(1, metrics["rollout/truncated_rate"] + ended, 1e-12);
        (double low, double high) = mode switch
        {
            MissingEosMode.Replace => (2.5, 2.5),
            MissingEosMode.Subtract => (-3.0, -2.0),
            _ => (-0.5, 0.5),
        };
        Assert.InRange(metrics["objective/score_after_penalty"], low - 3 * ended - 1e-6, high + 3 * ended + 1e-6);
    }

    [Fact]
    public void The_preflight_passes_on_sound_models_and_reports_its_numbers()
    {
        IReadOnlyDictionary<string, double> metrics = Check(trained.Sft, trained.Sft);
        Assert.Equal(0, metrics["preflight/ratio_error"]);
        Assert.Equal(0, metrics["preflight/kl_error"]);
        Assert.InRange(metrics["preflight/policy_pad_error"], 0, 1e-5);
        Assert.InRange(metrics["preflight/reward_pad_error"], 0, 1e-5);
        Assert.InRange(metrics["preflight/decode_error"], 0, 1e-5);
    }

    [Fact]
    public void The_preflight_names_a_policy_that_is_not_the_reference()
    {
        using Transformer other = trained.Sft.Clone();
        using (no_grad())
            other.NamedWeights()[0].Value.mul_(1.01);
        var error = Assert.Throws<PreflightFailedException>(() => Check(other, trained.Sft));
        Assert.Equal("kl_error", error.Check);
        Assert.Contains("kl_error is 0.", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_preflight_names_padding_that_ends_texts()
    {
        var error = Assert.Throws<PreflightFailedException>(() => Check(trained.Sft, trained.Sft, new PadIsEnd(Toy.Tokenizer)));
        Assert.Equal("pad_is_eos", error.Check);
    }

    [Fact]
    public void The_preflight_names_numbers_that_are_not_finite()
    {
        using Transformer broken = trained.Reward.Clone();
        using (no_grad())
            broken.NamedWeights()[^1].Value.fill_(float.NaN);
        using Ppo ppo = Fresh(Spec, reward: broken);
        Assert.Equal("reward_pad_error", Assert.Throws<PreflightFailedException>(() => ppo.Advance()).Check);
    }

    [Fact]
    public void A_diverged_policy_is_named()
    {
        using Ppo ppo = Fresh(Spec with { LearningRate = 1e38, WarmupIterations = 0, MaxGradientNorm = 0 });
        var error = Assert.Throws<DivergedException>(() =>
        {
            for (int i = 0; i < 5; i++)
                ppo.Advance();
        });
        Assert.Contains("PPO iteration", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_prompt_too_long_for_the_model_is_named()
    {
        TokenizedPrompt[] prompts = [new("fits", [5, 6]), new("endless", [.. Enumerable.Repeat(5, 60)])];
        var error = Assert.Throws<JobInputException>(() => new Ppo(trained.Sft, trained.Reward, Spec, prompts, [], Toy.Tokenizer, 1));
        Assert.Contains("endless", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Kl_of_a_policy_is_what_its_log_probabilities_say()
    {
        using DisposeScope scope = NewDisposeScope();
        using Transformer other = Toy.Model(seed: 4);
        Episode[] episodes = Episodes.Sample(
            other, [.. Toy.TokenizedPrompts.Take(5).Select(p => p.Prompt)], maxNewTokens: 4, temperature: 0.7, seed: 1, Toy.Tokenizer);
        double[] kl = Episodes.Kl(other, trained.Sft, episodes, 0.7, Toy.Tokenizer.PadId);
        for (int i = 0; i < episodes.Length; i++)
        {
            Assert.Equal(episodes[i].Ended, episodes[i].Response[^1] == Toy.Tokenizer.EosId);
            Parity.Close(LogProb(other, episodes[i]) - LogProb(trained.Sft, episodes[i]), kl[i], 1e-5);
        }

        static double LogProb(Transformer model, Episode episode)
        {
            using IDisposable noGradient = no_grad();
            Tensor ids = tensor(episode.Sequence().Select(id => (long)id).ToArray()).unsqueeze(0);
            Tensor all = nn.functional.log_softmax(model.Logits(model.Hidden(ids)) / 0.7, -1)[0];
            int start = episode.Prompt.Length;
            return episode.Response.Index().Sum(token => all[start + token.Index - 1, token.Item].item<float>());
        }
    }

    private Ppo Fresh(PpoSpec spec, Transformer? sft = null, Transformer? reward = null) =>
        new(sft ?? trained.Sft, reward ?? trained.Reward, spec, Toy.TokenizedPrompts, Toy.Demonstrations, Toy.Tokenizer, seed: 6);

    private IReadOnlyDictionary<string, double> Check(Transformer policy, Transformer reference, ITokenizer? tokenizer = null) =>
        Preflight.Check(
            Stages.Ppo, policy, reference, trained.Reward, [.. Toy.TokenizedPrompts.Select(p => p.Prompt)], Spec.MaxNewTokens, Spec.Temperature,
            tokenizer ?? Toy.Tokenizer, seed: 1);

    /// <summary>An SFT model that half knows the task, and a reward model for it; made once.</summary>
    public sealed class Trained : IDisposable
    {
        public Trained()
        {
            Sft = Toy.Model();
            SftSpec sftSpec = new() { LearningRate = 5e-3, Epochs = 12, BatchSize = 8 };
            using var sft = new Sft(Sft, sftSpec, Toy.Demonstrations, [], Toy.Tokenizer, maxNewTokens: 8, seed: 1);
            while (sft.Step < sft.TotalSteps)
                sft.Advance();
            RewardSpec rewardSpec = new() { LearningRate = 3e-3, Epochs = 8, BatchSize = 8 };
            using var reward = new RewardModel(Sft, rewardSpec, Toy.Preferences, [], Toy.Demonstrations, Toy.Tokenizer, seed: 1);
            while (reward.Step < reward.TotalSteps)
                reward.Advance();
            Reward = reward.Export();
        }

        public Transformer Sft { get; }

        public Transformer Reward { get; }

        public void Dispose()
        {
            Sft.Dispose();
            Reward.Dispose();
        }
    }

    /// <summary>A tokenizer as many checkpoints ship it: the end token doubles as padding.</summary>
    private sealed class PadIsEnd(ITokenizer inner) : ITokenizer
    {
        public int VocabularySize => inner.VocabularySize;

        public int EosId => inner.EosId;

        public int PadId => inner.EosId;

        public int[] Encode(string text, bool allowSpecial = false) => inner.Encode(text, allowSpecial);

        public string Decode(ReadOnlySpan<int> ids) => inner.Decode(ids);

        public int? IdOf(string token) => inner.IdOf(token);

        public void Save(string directory) => inner.Save(directory);
    }
}
