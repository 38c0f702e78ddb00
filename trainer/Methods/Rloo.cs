using System.Diagnostics;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods.Optimizers;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// REINFORCE leave-one-out (Ahmadian et al. 2024, "Back to Basics"): no critic; several answers to each prompt, and each one's baseline is
/// the mean reward of the others. The whole answer is the action: its reward is the score less β × its KL from the reference, its ratio
/// that of sequence probabilities.
/// </summary>
/// <remarks>
/// More than one optimizer step an iteration leaves the policy that sampled behind; the ratio is clipped as in PPO, which the paper's
/// single step does not need.
/// </remarks>
public sealed class Rloo : IPolicyMethod
{
    private readonly RlooSpec spec;
    private readonly ITokenizer tokenizer;
    private readonly MicroBatches microBatches;
    private readonly Rollouts rollouts;
    private readonly TrainedModel policy;
    private IReadOnlyDictionary<string, double> latest = new Dictionary<string, double>();

    private sealed record State(int Iteration, int PolicySteps, IReadOnlyDictionary<string, double> Latest);

    /// <summary>The policy starts as the SFT model.</summary>
    /// <param name="sft">The SFT model, also the frozen reference; stays the caller's.</param>
    /// <param name="reward">The reward model; stays the caller's. Null where no reward model scores.</param>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="prompts">Prompts to roll out.</param>
    /// <param name="tokenizer">For its end and padding tokens.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="microBatchSize">Episodes of a forward and backward pass at most; null takes whole minibatches at once.</param>
    /// <param name="rewards">What scores the responses; stays the caller's. Null is the reward model alone.</param>
    /// <param name="adapter">With LoRA: the policy is the SFT model's own weights with an adapter.</param>
    public Rloo(
        Transformer sft, Transformer? reward, RlooSpec spec, IReadOnlyList<TokenizedPrompt> prompts, ITokenizer tokenizer, long seed,
        int? microBatchSize = null, RewardFunction? rewards = null, LoraOptions? adapter = null)
    {
        this.spec = spec;
        this.tokenizer = tokenizer;
        microBatches = new MicroBatches(microBatchSize);
        rollouts = new Rollouts(Stages.Rloo, sft, reward, spec, spec.GroupSize, prompts, tokenizer, seed, microBatches, rewards);
        policy = new TrainedModel(
            "policy", sft.ForTraining(adapter, Seeds.For(seed, Stages.Rloo, 0, "policy adapter")),
            new AdamWOptions(Beta1: 0.9, Beta2: 0.95, spec.AdamEpsilon), microBatches);
    }

    /// <inheritdoc/>
    public Transformer Policy => policy.Model;

    /// <inheritdoc/>
    public int Step { get; private set; }

    /// <inheritdoc/>
    public int TotalSteps => spec.Iterations;

    /// <summary>One iteration. The very first one is preceded by the <see cref="Preflight"/>.</summary>
    /// <exception cref="PreflightFailedException">The preflight found wrong numbers.</exception>
    /// <inheritdoc/>
    public IReadOnlyDictionary<string, double> Advance()
    {
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, double> metrics = [];
        Rollout rollout = rollouts.Collect(Policy, Step, metrics);
        var watch = Stopwatch.StartNew();
        Update(rollout, Assess(rollout, metrics), metrics);
        metrics["timing/train"] = watch.Elapsed.TotalSeconds;
        Step++;
        rollouts.AddProgress(Step, metrics);
        latest = metrics.Where(pair => !pair.Key.StartsWith("timing/", StringComparison.Ordinal)).ToDictionary();
        return metrics;
    }

    /// <inheritdoc/>
    public void Save(ICheckpointWriter checkpoint)
    {
        policy.Save(checkpoint);
        checkpoint.WriteState("state", new State(Step, policy.OptimizerSteps, latest));
    }

    /// <inheritdoc/>
    public void Load(ICheckpointReader checkpoint)
    {
        State state = checkpoint.ReadState<State>("state");
        policy.Load(checkpoint, state.PolicySteps);
        Step = state.Iteration;
        latest = state.Latest;
    }

    /// <summary>The metrics of the newest iteration, without its timings.</summary>
    public IReadOnlyDictionary<string, double> Summary() => latest;

    /// <inheritdoc/>
    public ValidationAnswers Validate(IReadOnlyList<TokenizedPrompt> validation) => rollouts.Validate(Policy, Step, validation);

    /// <inheritdoc/>
    public void Dispose()
    {
        policy.Dispose();
        policy.Model.Dispose();
    }

    /// <summary>From outcomes and KL to one advantage an episode (eq. 8).</summary>
    private float[] Assess(Rollout rollout, Dictionary<string, double> metrics)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        Tensor penalised = Advantages.Penalised(tensor(rollout.Outcomes), rollout.TokenKl(), rollout.Mask(), spec.KlCoefficient);
        Tensor groups = penalised.reshape(-1, spec.GroupSize);
        metrics["objective/kl_coef"] = spec.KlCoefficient;
        metrics["objective/non_score_reward"] = -spec.KlCoefficient * metrics["objective/kl"];
        metrics["objective/rlhf_reward"] = metrics["objective/score_after_penalty"] + metrics["objective/non_score_reward"];
        RolloutStatistics.AddGroups(metrics, rollout.Outcomes, spec.GroupSize);
        return Advantages.LeaveOneOut(groups).flatten().ToSingles();
    }

    /// <summary>Epochs of minibatches, one optimizer step each.</summary>
    private void Update(Rollout rollout, float[] advantages, Dictionary<string, double> metrics)
    {
        double learningRate = spec.LearningRate * rollouts.RateFactor(Step);
        List<PolicyFigures> steps = [];
        for (int epoch = 0; epoch < spec.Epochs; epoch++)
        {
            foreach (int[] chosen in epoch == 0 ? rollout.Minibatches : rollouts.Minibatches(Step, epoch))
                steps.Add(Descend(rollout, advantages, chosen, learningRate));
        }

        PolicyFigures.Report(steps, learningRate, metrics);
        microBatches.Report(metrics);
    }

    private PolicyFigures Descend(Rollout rollout, float[] advantages, int[] chosen, double learningRate)
    {
        (_, double norm, IReadOnlyList<PolicyShare> shares) = policy.Descend(
            chosen.Length, Share, learningRate, spec.MaxGradientNorm, $"RLOO iteration {Step}");
        return PolicyFigures.Of(shares, norm);

        (Tensor Loss, PolicyShare Figures) Share(Range some)
        {
            int[] rows = chosen[some];
            int[] lengths = [.. rows.Select(row => rollout.Lengths[row])];
            TokenBatch batch = Episodes.Batch(rollout.Episodes, rows, tokenizer.PadId, Policy.Device);
            (Tensor logProbs, Tensor entropy) = Episodes.Policy(Policy, batch, spec.Temperature);
            Tensor sequences = JaggedRows.Rows(logProbs, lengths).sum(-1);
            PolicyLoss loss = Losses.ClippedPolicy(
                sequences,
                JaggedRows.Rows(JaggedRows.Flat(rollout.LogProbs, rows, Policy.Device), lengths).sum(-1),
                tensor(rows.Select(row => advantages[row]).ToArray(), device: Policy.Device),
                ones_like(sequences), spec.ClipRange, spec.ClipRange, chosen.Length);
            double weight = (double)rows.Length / chosen.Length;
            return (loss.Loss, new PolicyShare(
                loss.Loss.ToDouble(), weight * loss.ClipFraction.ToDouble(), weight * loss.ApproximateKl.ToDouble(),
                (double)batch.Tokens / rollout.Tokens(chosen) * entropy.mean().ToDouble(), loss.Ratio.ToSingles()));
        }
    }
}
