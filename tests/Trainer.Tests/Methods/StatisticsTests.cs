using Rlhf.Trainer.Methods;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

public class StatisticsTests
{
    [Theory]
    [InlineData("trl.masked_whiten", 1e-12)]
    [InlineData("verl.masked_whiten", 1e-7)] // verl adds 1e-8 to the denominators of its means
    public void Whiten_equals(string function, double tolerance) =>
        Parity.Each("whiten_masked_stats.json", function, c =>
        {
            Tensor mask = c.Tensor("mask");
            Parity.Close(c.Tensor("out"), Masked.Whiten(c.Tensor("x"), mask, c["shift_mean"].GetBoolean()), tolerance, mask);
        });

    [Fact]
    public void Whiten_without_padding_equals_TRL() =>
        Parity.Each("whiten_masked_stats.json", "trl.whiten", c =>
            Parity.Close(c.Tensor("out"), Masked.Whiten(c.Tensor("x"), ones_like(c.Tensor("x")), c["shift_mean"].GetBoolean()), 1e-12));

    [Fact]
    public void Mean_and_variance_equal_TRL() =>
        Parity.Each("whiten_masked_stats.json", "trl.masked_mean/masked_var", c =>
        {
            Tensor x = c.Tensor("x"), mask = c.Tensor("mask");
            Parity.Close(c.Number("out.mean"), Masked.Mean(x, mask), 1e-12);
            Parity.Close(c.Tensor("out.mean_axis1").mean(), Masked.MeanOfRowMeans(x, mask), 1e-12);
            Parity.Close(c.Number("out.var_unbiased"), Masked.Variance(x, mask), 1e-12);
            Parity.Close(c.Number("out.var_biased"), Masked.Variance(x, mask, unbiased: false), 1e-12);
        });

    [Fact]
    public void Whiten_of_1_2_4_is_golden_and_ignores_padding()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = tensor(new[] { 1.0, 2, 4, 1e6 }).unsqueeze(0), mask = tensor(new[] { 1.0, 1, 1, 0 }).unsqueeze(0);
        Parity.Close(tensor(new[] { -0.872872, -0.218218, 1.091089, 0 }).unsqueeze(0), Masked.Whiten(x, mask), 5e-7);
        Parity.Close(tensor(new[] { 1.460462, 2.115115, 3.424423, 0 }).unsqueeze(0), Masked.Whiten(x, mask, shiftMean: false), 5e-7);
    }

    [Fact]
    public void ExplainedVariance_is_1_for_a_perfect_critic_0_for_a_constant_and_negative_for_a_wrong_one()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor returns = tensor(new[] { 1.0, 2, 4, 8 }).unsqueeze(0), mask = ones(1, 4, dtype: ScalarType.Float64);
        Parity.Close(1, Masked.ExplainedVariance(returns + 3, returns, mask), 1e-12);
        Parity.Close(0, Masked.ExplainedVariance(zeros_like(returns), returns, mask), 1e-12);
        Parity.Close(-3, Masked.ExplainedVariance(-returns, returns, mask), 1e-12);
        Assert.Equal(0, Masked.ExplainedVariance(returns, ones_like(returns), mask));
    }

    [Theory]
    [InlineData(ScalarType.Float64, 1e-12)]
    [InlineData(ScalarType.Float32, 1e-6)]
    public void Kl_estimators_equal_verl(ScalarType type, double tolerance) =>
        Parity.Each("kl.json", "verl.kl_penalty_forward", c =>
        {
            Tensor estimate = Estimate(c.Text("estimator"), c.Tensor("logprob", type), c.Tensor("ref_logprob", type));
            Parity.Close(c.Tensor("out"), estimate, tolerance);
        });

    [Theory]
    [InlineData("k1", new[] { 0.2, -0.1, -0.5 })]
    [InlineData("k2", new[] { 0.02, 0.005, 0.125 })]
    [InlineData("k3", new[] { 0.018731, 0.005171, 0.148721 })]
    public void Kl_estimators_are_golden(string estimator, double[] expected)
    {
        using DisposeScope scope = NewDisposeScope();
        Parity.Close(tensor(expected), Estimate(estimator, tensor(new[] { -1, -0.5, -2.0 }), tensor(new[] { -1.2, -0.4, -1.5 })), 5e-7);
    }

    [Fact]
    public void Kl_gradients_equal_the_formulas() =>
        Parity.Each("kl.json", "verl.kl_penalty gradient", c =>
        {
            // verl's k2 and k3 are differentiable as they stand; so are ours.
            Tensor logProbs = c.Leaf("logprob");
            Masked.Sum(Estimate(c.Text("estimator"), logProbs, c.Tensor("ref_logprob")), c.Tensor("mask")).backward();
            Parity.Close(c.Tensor("out.d_masked_sum_d_logprob"), logProbs.grad!, 1e-12);
        });

    [Fact]
    public void KlController_equals_TRL() =>
        Parity.Each("kl_controller_running_moments.json", "trl.AdaptiveKLController", c =>
        {
            KlController controller = new(c.Number("init_kl_coef"), c.Number("target"), c.Number("horizon"));
            foreach ((double kl, double expected) in c.Numbers("current_kl").Zip(c.Numbers("out")))
            {
                controller = controller.Updated(kl, (int)c.Number("n_steps"));
                Parity.Close(expected, controller.Coefficient, 1e-14);
            }
        });

    [Theory]
    [InlineData(9, 0.151536)]
    [InlineData(6.6, 0.150768)]
    [InlineData(0, 0.148464)]
    public void KlController_is_golden(double kl, double expected) =>
        Parity.Close(expected, new KlController(0.15, Target: 6).Updated(kl, 512).Coefficient, 5e-7);

    [Fact]
    public void KlController_without_target_stays() => Assert.Equal(0.05, new KlController(0.05).Updated(100, 512).Coefficient);

    [Fact]
    public void RunningMoments_equal_TRL() =>
        Parity.Each("kl_controller_running_moments.json", "trl.RunningMoments", c =>
        {
            RunningMoments moments = new();
            foreach ((var batch, var expected) in c["batches"].EnumerateArray().Zip(c["out"].EnumerateArray()))
            {
                moments = moments.Updated([.. batch.EnumerateArray().Select(value => value.GetDouble())]);
                Parity.Close(expected.GetProperty("mean").GetDouble(), moments.Mean, 1e-6);
                Parity.Close(expected.GetProperty("var").GetDouble(), moments.Variance, 1e-6);
                Parity.Close(expected.GetProperty("std").GetDouble(), moments.StandardDeviation, 1e-6);
                Assert.Equal((long)expected.GetProperty("count").GetDouble(), moments.Count);
            }
        });

    [Theory]
    [InlineData("trl.PPOTrainer.compute_advantages")]
    [InlineData("verl.compute_gae_advantage_return")]
    [InlineData("openrlhf.get_advantages_and_returns")]
    public void Gae_equals(string function) =>
        Parity.Each("gae.json", function, c =>
        {
            Tensor mask = c.Tensor("mask"), rewards = c.Tensor("rewards");
            Tensor compared = mask;
            if (c.Has("whiten_rewards") && c["whiten_rewards"].GetBoolean())
            {
                // TRL whitens padding too, and its recursion carries that into padded rows: only the full row is comparable.
                rewards = Masked.Whiten(rewards * mask, mask, shiftMean: false);
                compared = mask * (mask.sum(1, keepdim: true) == mask.shape[1]).to(ScalarType.Float64);
            }

            (Tensor advantages, Tensor returns) = Advantages.Gae(rewards, c.Tensor("values"), mask, c.Number("gamma"), c.Number("lam"));
            Parity.Close(c.Tensor("out.returns"), returns, 1e-12, compared);
            string raw = c.Has("out.advantages_raw") ? "out.advantages_raw" : "out.advantages_raw_equals_returns_minus_masked_values";
            Parity.Close(c.Tensor(raw), advantages, 1e-12, compared);
            if (compared.sum().item<double>() == mask.sum().item<double>() && c.Has("out.advantages_whitened"))
                Parity.Close(c.Tensor("out.advantages_whitened"), Masked.Whiten(advantages, mask), 1e-7, mask);
        });

    [Theory]
    [InlineData(0.95, new[] { 0.798937, 0.74625, 0.675 })]
    [InlineData(1, new[] { 0.87, 0.78, 0.675 })]
    public void Gae_is_golden(double lambda, double[] expected)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor rewards = tensor(new[] { -0.01, 0.005, 0.975 }).unsqueeze(0), values = tensor(new[] { 0.1, 0.2, 0.3 }).unsqueeze(0);
        (Tensor advantages, Tensor returns) = Advantages.Gae(rewards, values, ones_like(values), 1, lambda);
        Parity.Close(tensor(expected).unsqueeze(0), advantages, 5e-7);
        Parity.Close(advantages + values, returns, 1e-12);
    }

    [Fact]
    public void TokenRewards_put_the_score_on_the_last_token_as_TRL() =>
        Parity.Each("kl.json", "trl.PPOTrainer.compute_rewards", c =>
        {
            Tensor mask = c.Tensor("mask");
            Tensor kl = Kl.K1(c.Tensor("logprobs"), c.Tensor("ref_logprobs"));
            Parity.Close(c.Tensor("out.rewards"), Advantages.TokenRewards(c.Tensor("scores"), kl, mask, c.Number("kl_coef")), 1e-12, mask);
        });

    [Fact]
    public void TokenRewards_equal_OpenRLHF_with_clipped_scores() =>
        Parity.Each("kl.json", "openrlhf.compute_reward", c =>
        {
            Tensor mask = c.Tensor("mask"), scores = c.Tensor("r");
            if (c.Has("reward_clip_range"))
                scores = scores.clamp(c["reward_clip_range"][0].GetDouble(), c["reward_clip_range"][1].GetDouble());
            Parity.Close(c.Tensor("out"), Advantages.TokenRewards(scores, c.Tensor("kl"), mask, c.Number("kl_coef")), 1e-12, mask);
        });

    [Fact]
    public void LeaveOneOut_equals_TRL() =>
        Parity.Each("group_advantages.json", "trl.rloo (HEAD)", c =>
        {
            Tensor kl = c.Tensor("kl_per_token");
            Tensor rewards = Advantages.Penalised(c.Tensor("rewards"), kl, ones_like(kl), c.Number("beta"));
            Parity.Close(c.Tensor("out.rewards_minus_kl"), rewards, 1e-12);
            Tensor groups = rewards.reshape(-1, (long)c.Number("num_generations"));
            Parity.Close(c.Tensor("out.advantages"), Advantages.LeaveOneOut(groups).flatten(), 1e-12);
        });

    [Fact]
    public void Group_advantages_equal_TRL() =>
        Parity.Each("group_advantages.json", "trl.grpo advantages (HEAD)", c =>
        {
            Tensor rewards = c.Tensor("out.rewards").reshape(-1, (long)c.Number("num_generations"));
            Tensor advantages = Advantages.Group(rewards, scale: c.Text("scale_rewards") == "group");
            Parity.Close(c.Tensor("out.advantages"), advantages.flatten(), 1e-7); // TRL computes its Bessel factor in float32
        });

    [Fact]
    public void Group_advantages_of_a_single_sample_are_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        Assert.Throws<ArgumentException>(() => Advantages.LeaveOneOut(zeros(4, 1)));
        Assert.Throws<ArgumentException>(() => Advantages.Group(zeros(4, 1)));
    }

    [Theory]
    [InlineData(4, 6)]
    [InlineData(5, 10)]
    [InlineData(6, 15)]
    [InlineData(7, 21)]
    [InlineData(8, 28)]
    [InlineData(9, 36)]
    public void AllPairs_of_K_completions_are_K_over_2(int k, int expected) =>
        Assert.Equal(expected, RankedPairs.AllPairs([[.. Enumerable.Range(1, k)]]).Count);

    [Fact]
    public void AllPairs_drop_ties_and_weigh_each_prompt_once()
    {
        RankedPairs pairs = RankedPairs.AllPairs([[1, 1], [3, 1, 1], [2, 1]]);
        Assert.Equal([3L, 4, 6], pairs.Better);
        Assert.Equal([2L, 2, 5], pairs.Worse);
        Assert.Equal([0.25, 0.25, 0.5], pairs.Weights);
    }

    private static Tensor Estimate(string estimator, Tensor logProbs, Tensor reference) => estimator switch
    {
        "k1" => Kl.K1(logProbs, reference),
        "k2" => Kl.K2(logProbs, reference),
        _ => Kl.K3(logProbs, reference),
    };
}
