using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

public class LossesTests
{
    private const double Fp64 = 1e-9;
    private const double Fp32 = 1e-6;

    [Theory]
    [InlineData(ScalarType.Float64, Fp64)]
    [InlineData(ScalarType.Float32, Fp32)]
    public void LogProbs_and_entropy_equal_TRL_with_gradients(ScalarType type, double tolerance) =>
        Parity.Each("entropy_logprobs.json", "trl.entropy_from_logits / logprobs_from_logits", c =>
        {
            Tensor mask = c.Tensor("mask", type);
            Tensor logits = c.Leaf("logits", type);
            Tensor logProbs = Losses.LogProbs(logits, c.Tensor("labels", ScalarType.Int64));
            Parity.Close(c.Tensor("out.logprobs"), logProbs, tolerance);
            Tensor entropy = Losses.Entropy(logits);
            Parity.Close(c.Tensor("out.entropy"), entropy, tolerance);
            if (!c.Has("out.d_masked_logprob_sum_d_logits"))
                return;
            Masked.Sum(logProbs, mask).backward();
            Parity.Close(c.Tensor("out.d_masked_logprob_sum_d_logits"), logits.grad!, tolerance);
            logits.grad = null;
            Masked.Sum(entropy, mask).backward();
            Parity.Close(c.Tensor("out.d_masked_entropy_sum_d_logits"), logits.grad!, tolerance);
        });

    [Fact]
    public void Entropy_aggregates_equal_verl() =>
        Parity.Each("entropy_logprobs.json", "verl.compute_entropy_loss", c =>
        {
            Tensor entropy = Losses.Entropy(c.Tensor("logits"));
            Parity.Close(c.Number("out.token-mean"), Masked.Mean(entropy, c.Tensor("mask")), 1e-8);
            Parity.Close(c.Number("out.seq-mean-token-mean"), Masked.MeanOfRowMeans(entropy, c.Tensor("mask")), 1e-8);
        });

    [Theory]
    [InlineData(0.7)]
    [InlineData(2.0)]
    public void LogProbs_at_a_temperature_are_those_of_divided_logits(double temperature)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor logits = randn(3, 5, 11, dtype: ScalarType.Float64, generator: new Generator(3));
        Tensor tokens = arange(15).reshape(3, 5) % 11;
        Parity.Close(Losses.LogProbs(logits / temperature, tokens), Losses.LogProbs(logits, tokens, temperature), 1e-12);
        Parity.Close(Losses.Entropy(logits / temperature), Losses.Entropy(logits, temperature), 1e-12);
    }

    [Fact]
    public void LogProbs_of_half_precision_logits_are_computed_in_32_bits()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor logits = randn(4, 50, generator: new Generator(1)).to(ScalarType.BFloat16);
        Tensor logProbs = Losses.LogProbs(logits, arange(4));
        Assert.Equal(ScalarType.Float32, logProbs.dtype);
        Parity.Close(Losses.LogProbs(logits.to(ScalarType.Float64), arange(4)), logProbs, Fp32);
    }

    [Theory]
    [InlineData(ScalarType.Float64, Fp64)]
    [InlineData(ScalarType.Float32, Fp32)]
    public void CrossEntropy_equals_PyTorch_on_shifted_logits(ScalarType type, double tolerance) =>
        Parity.Each("entropy_logprobs.json", "sft cross entropy", c =>
        {
            Tensor logits = c.Leaf("logits", type);
            (Tensor targets, Tensor mask) = Shifted(c, type);
            Losses.CrossEntropy(logits[.., ..^1], targets, mask, mask.sum().to(ScalarType.Float64).item<double>()).backward();
            Parity.Close(c.Tensor("out.d_loss_d_logits"), logits.grad!, tolerance);
            Tensor loss = Losses.CrossEntropy(logits[.., ..^1], targets, mask, mask.sum().to(ScalarType.Float64).item<double>());
            Parity.Close(c.Number("out.loss"), loss, tolerance);
        });

    [Fact]
    public void CrossEntropy_with_the_global_normaliser_accumulates_to_the_large_batch()
    {
        // Section 6.10 of the reference: micro-batches 8 x 1 give the gradient of 1 x 8, although their token counts differ.
        using DisposeScope scope = NewDisposeScope();
        Tensor logits = randn(8, 6, 13, dtype: ScalarType.Float64, generator: new Generator(5)).requires_grad_();
        Tensor targets = arange(48).reshape(8, 6) % 13;
        Tensor mask = (arange(6).unsqueeze(0) <= arange(8).unsqueeze(1)).to(ScalarType.Float64);
        double tokens = mask.sum().item<double>();
        Losses.CrossEntropy(logits, targets, mask, tokens).backward();
        Tensor large = logits.grad!.clone();
        logits.grad = null;
        for (int row = 0; row < 8; row++)
            Losses.CrossEntropy(logits[row..(row + 1)], targets[row..(row + 1)], mask[row..(row + 1)], tokens).backward();
        Parity.Close(large, logits.grad!, 1e-14);
    }

    [Fact]
    public void Sequence_log_probabilities_equal_DPO() =>
        Parity.Each("entropy_logprobs.json", "dpo._get_batch_logps", c =>
        {
            (Tensor targets, Tensor mask) = Shifted(c, ScalarType.Float64);
            Tensor sums = (Losses.LogProbs(c.Tensor("logits")[.., ..^1], targets) * mask).sum(-1);
            Parity.Close(c.Tensor("out"), c["average_log_prob"].GetBoolean() ? sums / mask.sum(-1) : sums, Fp64);
        });

    [Theory]
    [InlineData(ScalarType.Float64, Fp64)]
    [InlineData(ScalarType.Float32, Fp32)]
    public void ClippedPolicy_and_value_equal_TRL(ScalarType type, double tolerance) =>
        Parity.Each("ppo_policy_loss.json", "trl.PPOTrainer.loss", c =>
        {
            Tensor mask = c.Tensor("mask", type);
            Tensor logProbs = c.Leaf("logprobs", type);
            double clip = c.Number("cliprange");
            PolicyLoss policy = Losses.ClippedPolicy(
                logProbs, c.Tensor("old_logprobs", type), c.Tensor("advantages", type), mask, clip, clip);
            policy.Loss.backward();
            Parity.Close(c.Number("out.pg_loss"), policy.Loss, tolerance);
            Parity.Close(c.Tensor("out.d_pg_loss_d_logprobs"), logProbs.grad!, tolerance);
            Parity.Close(c.Number("out.stats.policy/clipfrac"), policy.ClipFraction, tolerance);
            Parity.Close(c.Number("out.stats.policy/approxkl"), policy.ApproximateKl, tolerance);
            Parity.Close(c.Tensor("out.stats.policy/ratio"), policy.Ratio, tolerance);

            Tensor values = c.Leaf("vpreds", type);
            ValueLoss value = Losses.ClippedValue(
                values, c.Tensor("values", type), c.Tensor("returns", type), mask, c.Number("cliprange_value"));
            (value.Loss * c.Number("vf_coef")).backward();
            Parity.Close(c.Number("out.stats.loss/value"), value.Loss, tolerance);
            Parity.Close(c.Number("out.stats.val/clipfrac"), value.ClipFraction, tolerance);
            Parity.Close(c.Tensor("out.d_vf_d_vpreds"), values.grad!, tolerance);
        });

    [Fact]
    public void ClippedPolicy_with_a_wider_upper_clip_equals_OpenRLHF() =>
        Parity.Each("ppo_policy_loss.json", "openrlhf.PolicyLoss", c =>
        {
            Tensor logProbs = c.Leaf("logprobs");
            PolicyLoss policy = Losses.ClippedPolicy(
                logProbs, c.Tensor("old_logprobs"), c.Tensor("advantages"), c.Tensor("mask"), c.Number("clip_low"), c.Number("clip_high"));
            policy.Loss.backward();
            Parity.Close(c.Number("out.loss"), policy.Loss, Fp64);
            Parity.Close(c.Number("out.clip_ratio"), policy.ClipFraction, Fp64);
            Parity.Close(c.Tensor("out.d_loss_d_logprobs"), logProbs.grad!, Fp64);
        });

    [Theory]
    [InlineData(1.3, 1, -1.2)]
    [InlineData(0.7, -1, 0.8)]
    [InlineData(1.3, -1, 1.3)]
    [InlineData(0.7, 1, -0.7)]
    public void ClippedPolicy_clips_only_what_would_gain(double ratio, double advantage, double loss)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor one = ones(1, 1, dtype: ScalarType.Float64);
        PolicyLoss policy = Losses.ClippedPolicy((one * ratio).log(), one * 0, one * advantage, one, 0.2, 0.2);
        Parity.Close(loss, policy.Loss, 1e-12);
    }

    [Fact]
    public void Losses_with_a_global_token_count_add_up_to_the_mean_over_the_large_batch()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] x = [.. Enumerable.Range(0, 4).Select(i => randn(4, 6, dtype: ScalarType.Float64, generator: new Generator((ulong)i)))];
        Tensor mask = (arange(6).unsqueeze(0) < tensor(new long[] { 6, 3, 1, 4 }).unsqueeze(1)).to(ScalarType.Float64);
        double policy = 0, value = 0;
        foreach (Range rows in new[] { 0..1, 1..4 })
        {
            policy += Losses.ClippedPolicy(x[0][rows], x[1][rows], x[2][rows], mask[rows], 0.2, 0.2, tokens: 14).Loss.item<double>();
            value += Losses.ClippedValue(x[0][rows], x[1][rows], x[2][rows], mask[rows], 0.2, tokens: 14).Loss.item<double>();
        }

        Parity.Close(Losses.ClippedPolicy(x[0], x[1], x[2], mask, 0.2, 0.2).Loss.item<double>(), policy, 1e-12);
        Parity.Close(Losses.ClippedValue(x[0], x[1], x[2], mask, 0.2).Loss.item<double>(), value, 1e-12);
    }

    [Theory]
    [InlineData(ScalarType.Float64, 1e-8)]
    [InlineData(ScalarType.Float32, Fp32)]
    public void ClippedValue_equals_verl(ScalarType type, double tolerance) =>
        Parity.Each("value_loss.json", "verl.compute_value_loss", c =>
        {
            Tensor values = c.Leaf("vpreds", type);
            ValueLoss loss = Losses.ClippedValue(
                values, c.Tensor("values", type), c.Tensor("returns", type), c.Tensor("mask", type), c.Number("cliprange_value"));
            loss.Loss.backward();
            Parity.Close(c.Number("out.vf_loss"), loss.Loss, tolerance);
            Parity.Close(c.Number("out.vf_clipfrac"), loss.ClipFraction, tolerance);
            Parity.Close(c.Tensor("out.d_vf_loss_d_vpreds"), values.grad!, tolerance);
        });

    [Fact]
    public void ClippedValue_equals_OpenRLHF() =>
        Parity.Each("value_loss.json", "openrlhf.ValueLoss", c =>
        {
            Tensor values = c.Leaf("vpreds");
            ValueLoss loss = Losses.ClippedValue(
                values, c.Tensor("values"), c.Tensor("returns"), c.Tensor("mask"), c.Number("cliprange_value"));
            loss.Loss.backward();
            Parity.Close(c.Number("out.loss"), loss.Loss, Fp64);
            Parity.Close(c.Tensor("out.d_loss_d_vpreds"), values.grad!, Fp64);
        });

    [Theory]
    [InlineData("trl.RewardTrainer.compute_loss", ScalarType.Float64, Fp64)]
    [InlineData("trl.RewardTrainer.compute_loss", ScalarType.Float32, Fp32)]
    [InlineData("openrlhf.PairWiseLoss", ScalarType.Float64, Fp64)]
    public void PairwiseReward_equals(string function, ScalarType type, double tolerance) =>
        Parity.Each("reward_model_loss.json", function, c =>
        {
            Tensor chosen = c.Leaf("rewards_chosen", type);
            Tensor rejected = c.Leaf("rewards_rejected", type);
            double centre = c.Has("center_rewards_coefficient") ? c.Number("center_rewards_coefficient") : 0;
            Tensor loss = Losses.PairwiseReward(chosen, rejected, c.Has("margin") ? c.Tensor("margin", type) : null, centre);
            loss.backward();
            Parity.Close(c.Number("out.loss"), loss, tolerance);
            Parity.Close(c.Tensor("out.d_chosen"), chosen.grad!, tolerance);
            Parity.Close(c.Tensor("out.d_rejected"), rejected.grad!, tolerance);
        });

    [Theory]
    [InlineData(0, 0.693147)]
    [InlineData(1, 0.313262)]
    [InlineData(2, 0.126928)]
    [InlineData(-1, 1.313262)]
    public void PairwiseReward_of_a_gap_is_golden(double gap, double loss)
    {
        using DisposeScope scope = NewDisposeScope();
        Parity.Close(loss, Losses.PairwiseReward(tensor(new[] { gap }), tensor(new[] { 0.0 })), 5e-7);
    }

    [Fact]
    public void KWiseReward_equals_equation_1_of_InstructGPT() =>
        Parity.Each("reward_model_loss.json", "instructgpt.kwise", c =>
        {
            Tensor rewards = c.Tensor("rewards_best_to_worst");
            int[] ranks = [.. Enumerable.Range(1, (int)rewards.shape[0])];
            Parity.Close(c.Number("out.loss"), Losses.KWiseReward(rewards, RankedPairs.AllPairs([ranks])), 1e-8);
        });

    [Fact]
    public void KWiseReward_averages_pairs_within_a_prompt_before_prompts()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor rewards = tensor(new[] { 0.3, -1.2, 0.7, 2.0, -0.5 });
        RankedPairs pairs = RankedPairs.AllPairs([[2, 3, 1], [1, 2]], margins: [0, 0.4]);
        Tensor first = Losses.KWiseReward(rewards[..3], RankedPairs.AllPairs([[2, 3, 1]]));
        Tensor second = Losses.PairwiseReward(rewards[3..4], rewards[4..], tensor(new[] { 0.4 }));
        Parity.Close((first + second) / 2, Losses.KWiseReward(rewards, pairs), 1e-7);
    }

    [Theory]
    [InlineData("trl.DPOTrainer.dpo_loss")]
    [InlineData("dpo.preference_loss")]
    public void Preference_equals(string function) =>
        Parity.Each("dpo_loss.json", function, c =>
        {
            bool referenceFree = c["reference_free"].GetBoolean();
            bool ipo = c.Has("ipo") ? c["ipo"].GetBoolean() : c.Text("loss_type") == "ipo";
            Tensor chosen = c.Leaf("policy_chosen_logps"), rejected = c.Leaf("policy_rejected_logps");
            Tensor referenceChosen = c.Tensor("reference_chosen_logps"), referenceRejected = c.Tensor("reference_rejected_logps");
            PreferenceLoss loss = Losses.Preference(
                chosen, rejected,
                referenceFree ? zeros_like(referenceChosen) : referenceChosen,
                referenceFree ? zeros_like(referenceRejected) : referenceRejected,
                c.Number("beta"), ipo ? PreferenceLossKind.Ipo : PreferenceLossKind.Sigmoid, c.Number("label_smoothing"));
            Parity.Close(c.Tensor("out.losses"), loss.Losses, Fp64);
            if (!referenceFree)
            {
                // The reference-free variants of the two code bases still report rewards against the reference.
                Parity.Close(c.Tensor("out.chosen_rewards"), loss.ChosenRewards, Fp64);
                Parity.Close(c.Tensor("out.rejected_rewards"), loss.RejectedRewards, Fp64);
            }

            if (!c.Has("out.d_mean_d_policy_chosen"))
                return;
            loss.Losses.mean().backward();
            Parity.Close(c.Tensor("out.d_mean_d_policy_chosen"), chosen.grad!, Fp64);
            Parity.Close(c.Tensor("out.d_mean_d_policy_rejected"), rejected.grad!, Fp64);
        });

    [Theory]
    [InlineData(ScalarType.Float64, Fp64)]
    [InlineData(ScalarType.Float32, Fp32)]
    public void GroupPolicy_equals_TRL(ScalarType type, double tolerance) =>
        Parity.Each("grpo_loss.json", "trl.GRPOTrainer._compute_loss (HEAD)", c =>
        {
            Tensor logProbs = c.Leaf("per_token_logps", type);
            TokenAggregation aggregation = c.Text("loss_type") switch
            {
                "grpo" => TokenAggregation.SequenceMean,
                "dr_grpo" => TokenAggregation.FixedLength,
                _ => TokenAggregation.TokenMean,
            };
            (Tensor loss, _, _, _) = Losses.GroupPolicy(
                logProbs, c.Tensor("old_per_token_logps", type), c.Tensor("ref_per_token_logps", type), c.Tensor("advantages", type),
                c.Tensor("mask", type), c.Number("epsilon_low"), c.Number("epsilon_high"), c.Number("beta"), aggregation,
                (long)c.Number("max_completion_length"));
            loss.backward();
            Parity.Close(c.Number("out.loss"), loss, tolerance);
            Parity.Close(c.Tensor("out.d_loss_d_logps"), logProbs.grad!, tolerance);
        });

    private static (Tensor Targets, Tensor Mask) Shifted(ParityCase c, ScalarType type)
    {
        Tensor labels = c.Tensor("labels", ScalarType.Int64)[.., 1..];
        return (labels.clamp(min: 0), (labels >= 0).to(type));
    }
}
