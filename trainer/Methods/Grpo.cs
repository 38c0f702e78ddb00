using System.Diagnostics;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods.Optimizers;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Group-relative policy optimisation (Shao et al. 2024, "DeepSeekMath"): no critic; several answers to each prompt, and each one's
/// advantage is its reward against those of its group. The KL from the reference is in the loss (k3), not in the reward.
/// </summary>
/// <remarks>
/// With <see cref="GrpoSpec.ScaleAdvantages"/> off and <see cref="TokenAggregation.FixedLength"/> it is Dr. GRPO (Liu et al. 2025), with
/// <see cref="TokenAggregation.TokenMean"/> it weighs tokens as DAPO does (Yu et al. 2025).
/// </remarks>
public sealed class Grpo : IPolicyMethod
{
    private readonly GrpoSpec spec;
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
    public Grpo(
        Transformer sft, Transformer? reward, GrpoSpec spec, IReadOnlyList<TokenizedPrompt> prompts, ITokenizer tokenizer, long seed,
        int? microBatchSize = null, RewardFunction? rewards = null, LoraOptions? adapter = null)
    {
        this.spec = spec;
        this.tokenizer = tokenizer;
        microBatches = new MicroBatches(microBatchSize);
        rollouts = new Rollouts(Stages.Grpo, sft, reward, spec, spec.GroupSize, prompts, tokenizer, seed, microBatches, rewards);
        policy = new TrainedModel(
            "policy", sft.ForTraining(adapter, Seeds.For(seed, Stages.Grpo, 0, "policy adapter")),
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

    /// <summary>One advantage an episode.</summary>
    private float[] Assess(Rollout rollout, Dictionary<string, double> metrics)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        Tensor groups = tensor(rollout.Outcomes).reshape(-1, spec.GroupSize);
        metrics["objective/kl_coef"] = spec.KlCoefficient;
        RolloutStatistics.AddGroups(metrics, rollout.Outcomes, spec.GroupSize);
        return Advantages.Group(groups, spec.ScaleAdvantages).flatten().ToSingles();
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
        long tokens = rollout.Tokens(chosen);
        (_, double norm, IReadOnlyList<PolicyShare> shares) = policy.Descend(
            chosen.Length, Share, learningRate, spec.MaxGradientNorm, $"GRPO iteration {Step}");
        return PolicyFigures.Of(shares, norm);

        (Tensor Loss, PolicyShare Figures) Share(Range some)
        {
            int[] rows = chosen[some];
            int[] lengths = [.. rows.Select(row => rollout.Lengths[row])];
            TokenBatch batch = Episodes.Batch(rollout.Episodes, rows, tokenizer.PadId, Policy.Device);
            (Tensor logProbs, Tensor entropy) = Episodes.Policy(Policy, batch, spec.Temperature);
            Tensor mask = JaggedRows.Rows(ones_like(entropy), lengths);
            PolicyLoss loss = Losses.GroupPolicy(
                JaggedRows.Rows(logProbs, lengths),
                JaggedRows.Rows(JaggedRows.Flat(rollout.LogProbs, rows, Policy.Device), lengths),
                JaggedRows.Rows(JaggedRows.Flat(rollout.ReferenceLogProbs, rows, Policy.Device), lengths),
                tensor(rows.Select(row => advantages[row]).ToArray(), device: Policy.Device),
                mask, spec.ClipRange, spec.ClipRange, spec.KlCoefficient, spec.Aggregation, spec.MaxNewTokens, (chosen.Length, tokens));
            double weight = (double)batch.Tokens / tokens;
            return (loss.Loss, new PolicyShare(
                loss.Loss.ToDouble(), weight * loss.ClipFraction.ToDouble(), weight * loss.ApproximateKl.ToDouble(),
                weight * entropy.mean().ToDouble(), loss.Ratio.masked_select(mask.IsPositive()).ToSingles()));
        }
    }
}
