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
/// Proximal policy optimisation against a reward (Schulman et al. 2017; Ziegler et al. 2019; InstructGPT, section 3.5 and
/// appendix C.4; details after Huang et al. 2024, "The N+ Implementation Details of RLHF with PPO"). Four models: the policy and the
/// critic learn; the reference (the SFT model) and the reward model are frozen. The critic starts as a copy of the reward model; where
/// there is none, as the SFT model with a fresh head. With LoRA there are two sets of weights instead of four: the reference is the policy
/// with its adapter off, the reward model is the critic with its adapter off and its own head.
/// </summary>
/// <remarks>
/// An iteration: sample a response to each prompt; score it; log-probabilities under policy and reference, values; token rewards with
/// the KL penalty; generalised advantages; epochs of minibatches with clipped losses; the KL coefficient adapts. One temperature
/// divides the logits everywhere.
/// </remarks>
public sealed class Ppo : IPolicyMethod
{
    private readonly PpoSpec spec;
    private readonly IReadOnlyList<TokenizedDemonstration> demonstrations;
    private readonly ITokenizer tokenizer;
    private readonly long seed;
    private readonly MicroBatches microBatches;
    private readonly Rollouts rollouts;
    private readonly TrainedModel policy;
    private readonly TrainedModel critic;
    private KlController kl;
    private IReadOnlyDictionary<string, double> latest = new Dictionary<string, double>();

    private sealed record State(
        int Iteration, int PolicySteps, int CriticSteps, KlController Kl, IReadOnlyDictionary<string, double> Latest);

    /// <summary>A rollout and what it teaches; arrays per episode, of one number a response token.</summary>
    private sealed record Experience(Rollout Rollout, float[][] Advantages, float[][] Returns);

    /// <summary>Policy and critic start as copies of the SFT model and the reward model.</summary>
    /// <param name="sft">The SFT model, also the frozen reference; stays the caller's.</param>
    /// <param name="reward">The reward model; stays the caller's. Null where no reward model scores.</param>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="prompts">Prompts to roll out.</param>
    /// <param name="demonstrations">For the language-modelling term (PPO-ptx); may be empty where its coefficient is 0.</param>
    /// <param name="tokenizer">For its end and padding tokens.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="microBatchSize">Episodes of a forward and backward pass at most; null takes whole minibatches at once.</param>
    /// <param name="rewards">What scores the responses; stays the caller's. Null is the reward model alone.</param>
    /// <param name="adapter">With LoRA: policy and critic are the two models' own weights with an adapter each.</param>
    public Ppo(
        Transformer sft, Transformer? reward, PpoSpec spec, IReadOnlyList<TokenizedPrompt> prompts,
        IReadOnlyList<TokenizedDemonstration> demonstrations, ITokenizer tokenizer, long seed,
        int? microBatchSize = null, RewardFunction? rewards = null, LoraOptions? adapter = null)
    {
        if (spec.PtxCoefficient > 0 && demonstrations.Count == 0)
            throw new JobInputException("PPO-ptx has no demonstrations.", "Give demonstrations, or set ppo.ptxCoefficient to 0.");
        this.spec = spec;
        this.demonstrations = demonstrations;
        this.tokenizer = tokenizer;
        this.seed = seed;
        kl = new KlController(spec.KlCoefficient, spec.KlTarget, spec.KlHorizon);
        AdamWOptions options = new(Beta1: 0.9, Beta2: 0.95, spec.AdamEpsilon);
        microBatches = new MicroBatches(microBatchSize);
        rollouts = new Rollouts(Stages.Ppo, sft, reward, spec, groupSize: 1, prompts, tokenizer, seed, microBatches, rewards);
        policy = new TrainedModel("policy", sft.ForTraining(adapter, Seeds.For(seed, Stages.Ppo, 0, "policy adapter")), options, microBatches);
        ulong criticSeed = Seeds.For(seed, Stages.Ppo, 0, "critic adapter");
        Transformer valued = reward?.ForTraining(adapter, criticSeed)
            ?? sft.ForScoring(adapter, criticSeed, Seeds.For(seed, Stages.Ppo, 0, "critic head"));
        critic = new TrainedModel("critic", valued, options, microBatches);
    }

    /// <summary>The policy as it is now.</summary>
    public Transformer Policy => policy.Model;

    /// <summary>The critic as it is now.</summary>
    public Transformer Critic => critic.Model;

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
        Rollout rollout = rollouts.Collect(Policy, Step, metrics, batch => Episodes.Values(Critic, batch));
        var watch = Stopwatch.StartNew();
        Update(Assess(rollout, metrics), metrics);
        metrics["timing/train"] = watch.Elapsed.TotalSeconds;

        double klPerSequence = metrics["objective/kl"];
        metrics["objective/kl_coef"] = kl.Coefficient;
        metrics["objective/kl_coef_error"] = kl.Error(klPerSequence);
        kl = kl.Updated(klPerSequence, spec.Episodes);
        Step++;
        rollouts.AddProgress(Step, metrics);
        latest = metrics.Where(pair => !pair.Key.StartsWith("timing/", StringComparison.Ordinal)).ToDictionary();
        return metrics;
    }

    /// <inheritdoc/>
    public void Save(ICheckpointWriter checkpoint)
    {
        policy.Save(checkpoint);
        critic.Save(checkpoint);
        checkpoint.WriteState("state", new State(Step, policy.OptimizerSteps, critic.OptimizerSteps, kl, latest));
    }

    /// <inheritdoc/>
    public void Load(ICheckpointReader checkpoint)
    {
        State state = checkpoint.ReadState<State>("state");
        policy.Load(checkpoint, state.PolicySteps);
        critic.Load(checkpoint, state.CriticSteps);
        Step = state.Iteration;
        kl = state.Kl;
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
        critic.Dispose();
        policy.Model.Dispose();
        critic.Model.Dispose();
    }

    /// <summary>From outcomes and KL to token rewards, advantages and returns.</summary>
    private Experience Assess(Rollout rollout, Dictionary<string, double> metrics)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        Tensor mask = rollout.Mask(), values = JaggedRows.Padded(rollout.Values);
        Tensor rewards = Advantages.TokenRewards(tensor(rollout.Outcomes), rollout.TokenKl(), mask, kl.Coefficient);
        Tensor shaped = spec.WhitenRewards ? Masked.Whiten(rewards, mask, shiftMean: false) : rewards;
        (Tensor advantages, Tensor returns) = Advantages.Gae(shaped, values, mask, spec.Gamma, spec.Lambda);
        Tensor used = spec.WhitenAdvantages ? Masked.Whiten(advantages, mask) : advantages;

        metrics["objective/non_score_reward"] = -kl.Coefficient * metrics["objective/kl"];
        metrics["objective/rlhf_reward"] = metrics["objective/score_after_penalty"] + metrics["objective/non_score_reward"];
        metrics["val/explained_variance"] = Masked.ExplainedVariance(values, returns, mask);
        metrics["val/mean"] = Masked.Mean(values, mask).ToDouble();
        metrics["val/error"] = Masked.Mean((values - returns).Squared(), mask).ToDouble();
        return new Experience(
            rollout, JaggedRows.Unpadded(used, rollout.Lengths), JaggedRows.Unpadded(returns, rollout.Lengths));
    }

    /// <summary>Epochs of minibatches: one optimizer step of the policy and one of the critic each.</summary>
    private void Update(Experience experience, Dictionary<string, double> metrics)
    {
        double factor = rollouts.RateFactor(Step);
        int[][] first = experience.Rollout.Minibatches;
        List<(PolicyFigures Policy, double Ptx, CriticFigures Critic)> steps = [];
        for (int epoch = 0; epoch < spec.Epochs; epoch++)
        {
            foreach ((int index, int[] chosen) in (epoch == 0 ? first : rollouts.Minibatches(Step, epoch)).Index())
            {
                (PolicyFigures figures, double ptx) = DescendPolicy(experience, chosen, epoch * first.Length + index, factor);
                steps.Add((figures, ptx, DescendCritic(experience, chosen, factor)));
            }
        }

        PolicyFigures.Report([.. steps.Select(step => step.Policy)], spec.LearningRate * factor, metrics);
        metrics["val/clipfrac"] = steps.Average(step => step.Critic.ClipFraction);
        metrics["val/grad_norm"] = steps.Average(step => step.Critic.GradientNorm);
        metrics["val/lr"] = spec.CriticLearningRate * factor;
        metrics["loss/value"] = steps.Average(step => step.Critic.Loss);
        if (spec.PtxCoefficient > 0)
            metrics["loss/ptx"] = steps.Average(step => step.Ptx);
        metrics["loss/total"] = steps.Average(step => step.Policy.Loss + spec.PtxCoefficient * step.Ptx + step.Critic.Loss);
        microBatches.Report(metrics);
    }

    private sealed record CriticFigures(double Loss, double GradientNorm, double ClipFraction);

    private (PolicyFigures Policy, double Ptx) DescendPolicy(Experience experience, int[] chosen, int minibatch, double factor)
    {
        Rollout rollout = experience.Rollout;
        long tokens = rollout.Tokens(chosen);
        (int[] Prompt, int[] Completion)[] ptx = spec.PtxCoefficient > 0 ? [.. PtxRows(minibatch, chosen.Length)] : [];
        long ptxTokens = TokenBatch.CountTokens(ptx);
        (_, double norm, IReadOnlyList<(PolicyShare Policy, double Ptx)> shares) = policy.Descend(
            chosen.Length, Share, spec.LearningRate * factor, spec.MaxGradientNorm, $"PPO iteration {Step}");
        return (PolicyFigures.Of([.. shares.Select(share => share.Policy)], norm), shares.Sum(share => share.Ptx));

        (Tensor Loss, (PolicyShare Policy, double Ptx) Figures) Share(Range some)
        {
            int[] rows = chosen[some];
            TokenBatch batch = Episodes.Batch(rollout.Episodes, rows, tokenizer.PadId, Policy.Device);
            (Tensor logProbs, Tensor entropy) = Episodes.Policy(Policy, batch, spec.Temperature);
            Tensor mask = ones_like(entropy); // flat tokens: padding is not there to be masked
            PolicyLoss loss = Losses.ClippedPolicy(
                logProbs,
                JaggedRows.Flat(rollout.LogProbs, rows, Policy.Device),
                JaggedRows.Flat(experience.Advantages, rows, Policy.Device),
                mask, spec.ClipRange, spec.ClipRange, tokens);
            double weight = (double)batch.Tokens / tokens, ptxLoss = 0;
            Tensor total = loss.Loss;
            if (ptx.Length > 0)
            {
                TokenBatch demonstrated = TokenBatch.Of(ptx[some], tokenizer.PadId, Policy.Device);
                (Tensor ptxShare, _) = LanguageModelling.Loss(Policy, demonstrated, ptxTokens);
                ptxLoss = ptxShare.ToDouble();
                total = total.Plus(ptxShare.Times(spec.PtxCoefficient));
            }

            var share = new PolicyShare(
                loss.Loss.ToDouble(), weight * loss.ClipFraction.ToDouble(), weight * loss.ApproximateKl.ToDouble(),
                weight * entropy.mean().ToDouble(), loss.Ratio.ToSingles());
            return (total, (share, ptxLoss));
        }
    }

    private CriticFigures DescendCritic(Experience experience, int[] chosen, double factor)
    {
        long tokens = experience.Rollout.Tokens(chosen);
        (double loss, double norm, IReadOnlyList<double> clipFractions) = critic.Descend(
            chosen.Length, Share, spec.CriticLearningRate * factor, spec.MaxGradientNorm, $"PPO iteration {Step}");
        return new CriticFigures(loss, norm, clipFractions.Sum());

        (Tensor Loss, double ClipFraction) Share(Range some)
        {
            int[] rows = chosen[some];
            TokenBatch batch = Episodes.Batch(experience.Rollout.Episodes, rows, tokenizer.PadId, Policy.Device);
            Tensor values = Episodes.Values(Critic, batch);
            ValueLoss loss = Losses.ClippedValue(
                values,
                JaggedRows.Flat(experience.Rollout.Values, rows, Policy.Device),
                JaggedRows.Flat(experience.Returns, rows, Policy.Device),
                ones_like(values), spec.ValueClipRange, tokens);
            return (loss.Loss, (double)batch.Tokens / tokens * loss.ClipFraction.ToDouble());
        }
    }

    /// <summary>Demonstrations for the language-modelling term, drawn anew for each minibatch.</summary>
    private IEnumerable<(int[] Prompt, int[] Completion)> PtxRows(int minibatch, int count)
    {
        ulong draw = Seeds.For(seed, Stages.Ppo, Step, $"ptx {minibatch}");
        return Enumerable.Range(0, count)
            .Select(i => demonstrations[(int)(Seeds.Uniform(draw, i, 0) * demonstrations.Count)])
            .Select(row => (row.Prompt, row.Completion));
    }
}
