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
/// Proximal policy optimisation against a reward (Schulman et al. 2017; Ziegler et al. 2019; InstructGPT, section 3.5 and
/// appendix C.4; details after Huang et al. 2024, "The N+ Implementation Details of RLHF with PPO"). Four models: the policy and the
/// critic learn; the reference (the SFT model) and the reward model are frozen. The critic starts as a copy of the reward model; where
/// there is none, as the SFT model with a fresh head.
/// </summary>
/// <remarks>
/// An iteration: sample a response to each prompt; score it; log-probabilities under policy and reference, values; token rewards with
/// the KL penalty; generalised advantages; epochs of minibatches with clipped losses; the KL coefficient adapts. One temperature
/// divides the logits everywhere.
/// </remarks>
public sealed class Ppo : ITrainingMethod
{
    private readonly Transformer reference;
    private readonly Transformer? reward;
    private readonly RewardFunction rewards;
    private readonly PpoSpec spec;
    private readonly IReadOnlyList<TokenizedPrompt> prompts;
    private readonly IReadOnlyList<TokenizedDemonstration> demonstrations;
    private readonly ITokenizer tokenizer;
    private readonly long seed;
    private readonly MicroBatches microBatches;
    private readonly TrainedModel policy;
    private readonly TrainedModel critic;
    private KlController kl;
    private IReadOnlyDictionary<string, double> latest = new Dictionary<string, double>();

    private sealed record State(
        int Iteration, int PolicySteps, int CriticSteps, KlController Kl, IReadOnlyDictionary<string, double> Latest);

    /// <summary>What one iteration learns from; arrays per episode, of one number a response token.</summary>
    private sealed record Experience(
        Episode[] Episodes, int[][] Minibatches, float[][] LogProbs, float[][] Values, float[][] Advantages, float[][] Returns)
    {
        public IReadOnlyList<int> Lengths { get; } = [.. Episodes.Select(episode => episode.Response.Length)];

        /// <summary>Response tokens of some episodes.</summary>
        public long Tokens(int[] chosen) => chosen.Sum(episode => (long)Lengths[episode]);
    }

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
    public Ppo(
        Transformer sft, Transformer? reward, PpoSpec spec, IReadOnlyList<TokenizedPrompt> prompts,
        IReadOnlyList<TokenizedDemonstration> demonstrations, ITokenizer tokenizer, long seed,
        int? microBatchSize = null, RewardFunction? rewards = null)
    {
        if (reward is null && rewards is null)
            throw new ArgumentException("Neither a reward model nor another reward scores the responses.", nameof(rewards));
        if (prompts.Count == 0)
            throw new JobInputException("PPO has no prompt to roll out.", "Give data.prompts, or preferences whose prompts can serve.");
        if (spec.PtxCoefficient > 0 && demonstrations.Count == 0)
            throw new JobInputException("PPO-ptx has no demonstrations.", "Give demonstrations, or set ppo.ptxCoefficient to 0.");
        if (prompts.FirstOrDefault(prompt => prompt.Prompt.Length + spec.MaxNewTokens > sft.Config.MaxPositions) is { } tooLong)
        {
            throw new JobInputException(
                $"Prompt {tooLong.Id} has {tooLong.Prompt.Length} tokens; with {spec.MaxNewTokens} new ones it exceeds "
                + $"the model's {sft.Config.MaxPositions} positions.",
                "Lower model.maxPromptTokens or ppo.maxNewTokens.");
        }

        reference = sft;
        this.reward = reward;
        this.rewards = rewards ?? RewardFunction.OfModel(() => reward!);
        this.spec = spec;
        this.prompts = prompts;
        this.demonstrations = demonstrations;
        this.tokenizer = tokenizer;
        this.seed = seed;
        kl = new KlController(spec.KlCoefficient, spec.KlTarget, spec.KlHorizon);
        AdamWOptions options = new(Beta1: 0.9, Beta2: 0.95, spec.AdamEpsilon);
        microBatches = new MicroBatches(microBatchSize);
        policy = new TrainedModel("policy", sft.Clone(), options, microBatches);
        Transformer valued = reward?.Clone() ?? Transformer.WithScoreHead(sft, Seeds.For(seed, Stages.Ppo, 0, "critic head"));
        critic = new TrainedModel("critic", valued, options, microBatches);
    }

    /// <summary>The policy as it is now.</summary>
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
        TokenizedPrompt[] chosen = [.. Prompts()];
        Dictionary<string, double> metrics = [];
        if (Step == 0)
        {
            metrics = new(Preflight.Check(
                Policy, reference, reward, [.. chosen.Select(prompt => prompt.Prompt)], spec, tokenizer, SeedOf("preflight")));
        }

        var watch = Stopwatch.StartNew();
        Episode[] episodes = Episodes.Sample(Policy, chosen, spec.MaxNewTokens, spec.Temperature, SeedOf("rollout"), tokenizer);
        Lap("generate");
        RewardScores scores = rewards.Score(new AnswerBatch(episodes, tokenizer, $"{Stages.Ppo}/{Step}/rollout"));
        foreach ((string name, double mean) in scores.Metrics)
            metrics[name] = mean;
        Lap("score");
        (Experience experience, double klPerSequence) = Assess(episodes, scores.Totals, metrics);
        Lap("logprob");
        Update(experience, metrics);
        Lap("train");

        metrics["objective/kl_coef"] = kl.Coefficient;
        metrics["objective/kl_coef_error"] = kl.Error(klPerSequence);
        kl = kl.Updated(klPerSequence, episodes.Length);
        Step++;
        metrics["episode"] = (double)Step * spec.Episodes;
        metrics["epoch"] = (double)Step * spec.Episodes / prompts.Count;
        latest = metrics.Where(pair => !pair.Key.StartsWith("timing/", StringComparison.Ordinal)).ToDictionary();
        return metrics;

        void Lap(string phase)
        {
            metrics[$"timing/{phase}"] = watch.Elapsed.TotalSeconds;
            watch.Restart();
        }
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

    /// <summary>
    /// Answers held-out prompts with the policy as it is now: the episodes, the scores of them (no penalty, no clip), and their KL from
    /// the reference in nats. The random numbers are the same at every iteration, so that points of the curve compare.
    /// </summary>
    public (IReadOnlyList<Episode> Episodes, IReadOnlyList<float> Scores, IReadOnlyList<double> Kl) Validate(
        IReadOnlyList<TokenizedPrompt> validation)
    {
        ulong validationSeed = Seeds.For(seed, Stages.Ppo, 0, "validation");
        Episode[] episodes = Episodes.Sample(
            Policy, validation, spec.MaxNewTokens, spec.Temperature, validationSeed, tokenizer);
        float[] scores = rewards.Score(new AnswerBatch(episodes, tokenizer, $"{Stages.Ppo}/{Step}/validation")).Totals;
        return (episodes, scores, Episodes.Kl(Policy, reference, episodes, spec.Temperature, tokenizer.PadId));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        policy.Dispose();
        critic.Dispose();
        policy.Model.Dispose();
        critic.Model.Dispose();
    }

    /// <summary>This iteration's prompts: the next ones of an endless row of seeded permutations.</summary>
    private IEnumerable<TokenizedPrompt> Prompts()
    {
        long first = (long)Step * spec.Episodes;
        foreach (IGrouping<long, long> epoch in Enumerable.Range(0, spec.Episodes).Select(i => first + i).GroupBy(i => i / prompts.Count))
        {
            int[] order = Seeds.Permutation(prompts.Count, Seeds.For(seed, Stages.Ppo, epoch.Key, "prompts"));
            foreach (long i in epoch)
                yield return prompts[order[i % prompts.Count]];
        }
    }

    /// <summary>From episodes and scores to advantages and returns.</summary>
    private (Experience Experience, double KlPerSequence) Assess(Episode[] episodes, float[] scores, Dictionary<string, double> metrics)
    {
        // Old log-probabilities come from the micro-batches of the first epoch, so that its first ratio is 1 to the last bit.
        int[][] minibatches = Minibatches(epoch: 0);
        var experience = new Experience(episodes, minibatches, New(), New(), New(), New());
        float[][] referenceLogProbs = New(), entropies = New();
        using (no_grad())
        {
            foreach (int[] minibatch in minibatches)
                microBatches.Run(minibatch.Length, some => Read(minibatch[some]));

            void Read(int[] chosen)
            {
                using DisposeScope scope = NewDisposeScope();
                TokenBatch batch = Episodes.Batch(episodes, chosen, tokenizer.PadId, Policy.Device);
                (Tensor logProbs, Tensor entropy) = Episodes.Policy(Policy, batch, spec.Temperature);
                (Tensor other, _) = Episodes.Policy(reference, batch, spec.Temperature);
                JaggedRows.Unflatten(logProbs, chosen, experience.Lengths, experience.LogProbs);
                JaggedRows.Unflatten(other, chosen, experience.Lengths, referenceLogProbs);
                JaggedRows.Unflatten(entropy, chosen, experience.Lengths, entropies);
                JaggedRows.Unflatten(Episodes.Values(critic.Model, batch), chosen, experience.Lengths, experience.Values);
            }

            double[] outcomes = [.. scores.Select((score, i) => Outcome(score, episodes[i].Ended))];
            Tensor mask = JaggedRows.Mask(experience.Lengths);
            Tensor logP = JaggedRows.Padded(experience.LogProbs), logQ = JaggedRows.Padded(referenceLogProbs);
            Tensor values = JaggedRows.Padded(experience.Values);
            Tensor k1 = Kl.K1(logP, logQ);
            Tensor rewards = Advantages.TokenRewards(tensor(outcomes), k1, mask, kl.Coefficient);
            Tensor shaped = spec.WhitenRewards ? Masked.Whiten(rewards, mask, shiftMean: false) : rewards;
            (Tensor advantages, Tensor returns) = Advantages.Gae(shaped, values, mask, spec.Gamma, spec.Lambda);
            Tensor used = spec.WhitenAdvantages ? Masked.Whiten(advantages, mask) : advantages;
            JaggedRows.Unpadded(used, experience.Lengths).CopyTo(experience.Advantages, 0);
            JaggedRows.Unpadded(returns, experience.Lengths).CopyTo(experience.Returns, 0);

            double klPerSequence = (k1 * mask).sum(-1).mean().ToDouble();
            metrics["objective/kl"] = klPerSequence;
            metrics["objective/kl_k3"] = (Kl.K3(logP, logQ) * mask).sum(-1).mean().ToDouble();
            metrics["objective/kl_per_token"] = Masked.Mean(k1, mask).ToDouble();
            metrics["objective/entropy"] = Masked.Mean(JaggedRows.Padded(entropies), mask).ToDouble();
            metrics["objective/non_score_reward"] = -kl.Coefficient * klPerSequence;
            metrics["objective/rlhf_reward"] = outcomes.Average() - kl.Coefficient * klPerSequence;
            metrics["objective/score_after_penalty"] = outcomes.Average();
            metrics["val/explained_variance"] = Masked.ExplainedVariance(values, returns, mask);
            metrics["val/mean"] = Masked.Mean(values, mask).ToDouble();
            metrics["val/error"] = Masked.Mean((values - returns).square(), mask).ToDouble();
            RolloutStatistics.Add(metrics, episodes, scores);
            if (!double.IsFinite(klPerSequence) || outcomes.Any(outcome => !double.IsFinite(outcome)))
                throw new DivergedException($"PPO iteration {Step}: a score or log-probability of the rollout is not finite.");
            return (experience, klPerSequence);
        }

        float[][] New() => new float[episodes.Length][];
    }

    /// <summary>What an episode is worth to PPO: the clipped score, with the penalty for a missing end (N+, detail 5).</summary>
    private double Outcome(double score, bool ended)
    {
        double clipped = spec.RewardClip > 0 ? Math.Clamp(score, -spec.RewardClip, spec.RewardClip) : score;
        return (ended, spec.MissingEos) switch
        {
            (false, MissingEosMode.Replace) => spec.MissingEosValue,
            (false, MissingEosMode.Subtract) => clipped - spec.MissingEosValue,
            _ => clipped,
        };
    }

    /// <summary>Epochs of minibatches: one optimizer step of the policy and one of the critic each.</summary>
    private void Update(Experience experience, Dictionary<string, double> metrics)
    {
        double factor = RateFactor();
        List<UpdateFigures> steps = [];
        for (int epoch = 0; epoch < spec.Epochs; epoch++)
        {
            foreach ((int index, int[] chosen) in (epoch == 0 ? experience.Minibatches : Minibatches(epoch)).Index())
            {
                steps.Add(new UpdateFigures(
                    DescendPolicy(experience, chosen, epoch * experience.Minibatches.Length + index, factor),
                    DescendCritic(experience, chosen, factor)));
            }
        }

        metrics["policy/ratio_first_minibatch"] = steps[0].Policy.FurthestRatio;
        metrics["policy/approxkl"] = steps.Average(step => step.Policy.ApproximateKl);
        metrics["policy/clipfrac"] = steps.Average(step => step.Policy.ClipFraction);
        metrics["policy/ratio_mean"] = steps.Average(step => step.Policy.RatioMean);
        metrics["policy/ratio_max"] = steps.Max(step => step.Policy.RatioMax);
        metrics["policy/ratio_var"] = steps.Average(step => step.Policy.RatioVariance);
        metrics["policy/entropy"] = steps.Average(step => step.Policy.Entropy);
        metrics["policy/grad_norm"] = steps.Average(step => step.Policy.GradientNorm);
        metrics["policy/lr"] = spec.LearningRate * factor;
        metrics["val/clipfrac"] = steps.Average(step => step.Critic.ClipFraction);
        metrics["val/grad_norm"] = steps.Average(step => step.Critic.GradientNorm);
        metrics["val/lr"] = spec.CriticLearningRate * factor;
        metrics["loss/policy"] = steps.Average(step => step.Policy.Loss);
        metrics["loss/value"] = steps.Average(step => step.Critic.Loss);
        if (spec.PtxCoefficient > 0)
            metrics["loss/ptx"] = steps.Average(step => step.Policy.PtxLoss);
        metrics["loss/total"] = steps.Average(step => step.Policy.Loss + spec.PtxCoefficient * step.Policy.PtxLoss + step.Critic.Loss);
        microBatches.Report(metrics);
    }

    private sealed record UpdateFigures(PolicyFigures Policy, CriticFigures Critic);

    private sealed record PolicyFigures(
        double Loss, double PtxLoss, double GradientNorm, double ClipFraction, double ApproximateKl, double Entropy,
        double RatioMean, double RatioMax, double RatioVariance, double FurthestRatio);

    /// <summary>What one micro-batch adds to the figures of its minibatch.</summary>
    private sealed record PolicyShare(
        double Loss, double PtxLoss, double ClipFraction, double ApproximateKl, double Entropy, float[] Ratios);

    private sealed record CriticFigures(double Loss, double GradientNorm, double ClipFraction);

    private PolicyFigures DescendPolicy(Experience experience, int[] chosen, int minibatch, double factor)
    {
        long tokens = experience.Tokens(chosen);
        (int[] Prompt, int[] Completion)[] ptx = spec.PtxCoefficient > 0 ? [.. PtxRows(minibatch, chosen.Length)] : [];
        long ptxTokens = TokenBatch.CountTokens(ptx);
        (_, double norm, IReadOnlyList<PolicyShare> shares) = policy.Descend(
            chosen.Length, Share, spec.LearningRate * factor, spec.MaxGradientNorm, $"PPO iteration {Step}");
        float[] ratios = [.. shares.SelectMany(share => share.Ratios)];
        double mean = ratios.Average();
        return new PolicyFigures(
            shares.Sum(share => share.Loss), shares.Sum(share => share.PtxLoss), norm, shares.Sum(share => share.ClipFraction),
            shares.Sum(share => share.ApproximateKl), shares.Sum(share => share.Entropy),
            mean, ratios.Max(), ratios.Average(ratio => (ratio - mean) * (ratio - mean)), ratios.MaxBy(ratio => Math.Abs(ratio - 1)));

        (Tensor Loss, PolicyShare Figures) Share(Range some)
        {
            int[] rows = chosen[some];
            TokenBatch batch = Episodes.Batch(experience.Episodes, rows, tokenizer.PadId, Policy.Device);
            (Tensor logProbs, Tensor entropy) = Episodes.Policy(Policy, batch, spec.Temperature);
            Tensor mask = ones_like(entropy); // flat tokens: padding is not there to be masked
            PolicyLoss loss = Losses.ClippedPolicy(
                logProbs,
                JaggedRows.Flat(experience.LogProbs, rows, Policy.Device),
                JaggedRows.Flat(experience.Advantages, rows, Policy.Device),
                mask, spec.ClipRange, spec.ClipRange, tokens);
            double weight = (double)batch.Tokens / tokens, ptxLoss = 0;
            Tensor total = loss.Loss;
            if (ptx.Length > 0)
            {
                TokenBatch demonstrated = TokenBatch.Of(ptx[some], tokenizer.PadId, Policy.Device);
                (Tensor ptxShare, _) = LanguageModelling.Loss(Policy, demonstrated, ptxTokens);
                ptxLoss = ptxShare.ToDouble();
                total = total + spec.PtxCoefficient * ptxShare;
            }

            return (total, new PolicyShare(
                loss.Loss.ToDouble(), ptxLoss, weight * loss.ClipFraction.ToDouble(), weight * loss.ApproximateKl.ToDouble(),
                weight * entropy.mean().ToDouble(), loss.Ratio.ToSingles()));
        }
    }

    private CriticFigures DescendCritic(Experience experience, int[] chosen, double factor)
    {
        long tokens = experience.Tokens(chosen);
        (double loss, double norm, IReadOnlyList<double> clipFractions) = critic.Descend(
            chosen.Length, Share, spec.CriticLearningRate * factor, spec.MaxGradientNorm, $"PPO iteration {Step}");
        return new CriticFigures(loss, norm, clipFractions.Sum());

        (Tensor Loss, double ClipFraction) Share(Range some)
        {
            int[] rows = chosen[some];
            TokenBatch batch = Episodes.Batch(experience.Episodes, rows, tokenizer.PadId, Policy.Device);
            Tensor values = Episodes.Values(critic.Model, batch);
            ValueLoss loss = Losses.ClippedValue(
                values,
                JaggedRows.Flat(experience.Values, rows, Policy.Device),
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

    private int[][] Minibatches(int epoch) =>
        [.. Seeds.Permutation(spec.Episodes, SeedOf($"minibatches {epoch}")).Chunk(spec.MinibatchSize)];

    /// <summary>A tenth of the rate at first, all of it after the warm-up (InstructGPT, appendix C.4), then the schedule.</summary>
    private double RateFactor()
    {
        if (Step < spec.WarmupIterations)
            return 0.1 + 0.9 * Step / spec.WarmupIterations;
        return spec.Schedule switch
        {
            ScheduleKind.Linear => Schedules.Linear(Step, spec.WarmupIterations, spec.Iterations),
            ScheduleKind.Cosine => Schedules.Cosine(Step, spec.WarmupIterations, spec.Iterations),
            _ => 1,
        };
    }

    private ulong SeedOf(string purpose) => Seeds.For(seed, Stages.Ppo, Step, purpose);
}
