using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using TorchSharp;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Direct preference optimisation (Rafailov et al. 2023) on ranked completions: the policy's log-probabilities against those of the frozen
/// SFT model are rewards, trained with the Bradley-Terry loss on all pairs of a prompt; nothing is sampled and nothing scored. With
/// <see cref="PreferenceLossKind.Ipo"/> the loss of Azar et al. 2023 on log-probabilities averaged over tokens. Ties are dropped.
/// </summary>
/// <remarks>
/// The reference reads each batch beside the policy instead of all rows once beforehand. That costs a forward pass a step, a third of
/// it, but nothing has to be kept or resumed, and both see the same padding, so that before the first step they agree to the last bit.
/// </remarks>
public sealed class Dpo : IPolicyMethod
{
    private readonly DpoSpec spec;
    private readonly AnswerSampling sampling;
    private readonly Transformer reference;
    private readonly Transformer? reward;
    private readonly RewardFunction rewards;
    private readonly IReadOnlyList<TokenizedPreference> train;
    private readonly IReadOnlyList<TokenizedPreference> validation;
    private readonly ITokenizer tokenizer;
    private readonly long seed;
    private readonly EpochBatches batches;
    private readonly MicroBatches microBatches;
    private readonly TrainedModel policy;

    /// <summary>Log-probabilities of completions, numbered through: of the policy (with gradient) and of the reference.</summary>
    private readonly record struct LogProbs(Tensor Policy, Tensor Reference);

    /// <summary>One pair in numbers: its loss, both implied rewards, both log-probabilities under the policy.</summary>
    private readonly record struct Pair(
        double Loss, double Weight, double Chosen, double Rejected, double ChosenLogProb, double RejectedLogProb);

    /// <summary>The policy starts as the SFT model.</summary>
    /// <param name="sft">The SFT model, also the frozen reference; stays the caller's.</param>
    /// <param name="reward">The reward model; stays the caller's. Null where no reward model scores validation answers.</param>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="sampling">How validation prompts are answered.</param>
    /// <param name="train">Ranked completions to learn from; rows whose completions all tie teach nothing and are left out.</param>
    /// <param name="validation">Held-out rankings, split by prompt; may be empty, then the summary has no figures on them.</param>
    /// <param name="tokenizer">For its end and padding tokens.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="microBatchSize">Prompts of a forward and backward pass at most; null takes whole batches at once.</param>
    /// <param name="rewards">What scores validation answers, and nothing else; stays the caller's. Null is the reward model alone.</param>
    /// <param name="adapter">With LoRA: the policy is the SFT model's own weights with an adapter.</param>
    public Dpo(
        Transformer sft, Transformer? reward, DpoSpec spec, AnswerSampling sampling, IReadOnlyList<TokenizedPreference> train,
        IReadOnlyList<TokenizedPreference> validation, ITokenizer tokenizer, long seed, int? microBatchSize = null,
        RewardFunction? rewards = null, LoraOptions? adapter = null)
    {
        this.spec = spec;
        this.sampling = sampling;
        this.train = [.. Ranked(train).Take(spec.MaxRows ?? int.MaxValue)];
        if (this.train.Count == 0)
        {
            throw new JobInputException(
                "DPO has no prompt with two completions of different rank.", "Give preferences that are not all ties.");
        }

        this.validation = [.. Ranked(validation)];
        this.tokenizer = tokenizer;
        this.seed = seed;
        this.reward = reward;
        this.rewards = RewardFunction.OrModel(rewards, reward);
        reference = sft;
        batches = new EpochBatches(
            [.. this.train.Select(row => row.Prompt.Length + row.Completions.Max(completion => completion.Length))],
            spec.BatchSize, seed, Stages.Dpo);
        microBatches = new MicroBatches(microBatchSize);
        policy = new TrainedModel(
            "policy", sft.ForTraining(adapter, Seeds.For(seed, Stages.Dpo, 0, "policy adapter")), spec, microBatches);
    }

    /// <inheritdoc/>
    public Transformer Policy => policy.Model;

    /// <inheritdoc/>
    public int Step { get; private set; }

    /// <inheritdoc/>
    public int TotalSteps => spec.Epochs * batches.PerEpoch;

    /// <summary>One optimizer step. The very first one is preceded by the <see cref="Preflight"/>.</summary>
    /// <exception cref="PreflightFailedException">The preflight found wrong numbers.</exception>
    /// <inheritdoc/>
    public IReadOnlyDictionary<string, double> Advance()
    {
        Dictionary<string, double> metrics = [];
        if (Step == 0)
        {
            metrics = new(Preflight.Check(
                Stages.Dpo, Policy, reference, reward, [.. batches[0].Select(i => train[i].Prompt)], sampling.MaxNewTokens,
                sampling.Temperature, tokenizer, Seeds.For(seed, Stages.Dpo, 0, "preflight")));
        }

        TokenizedPreference[] rows = [.. batches[Step].Select(i => train[i])];
        double learningRate = Schedules.LearningRate(spec, Step, TotalSteps);
        (double loss, double norm, IReadOnlyList<Pair[]> shares) = policy.Descend(
            rows.Length, some => Share(rows[some], rows.Length), learningRate, spec.MaxGradientNorm, $"DPO step {Step}");
        Step++;
        Pair[] pairs = [.. shares.SelectMany(share => share)];
        metrics["loss"] = loss;
        Report(pairs, metrics);
        metrics["pairs"] = pairs.Length;
        metrics["grad_norm"] = norm;
        metrics["lr"] = learningRate;
        metrics["epoch"] = (double)Step / batches.PerEpoch;
        return microBatches.Report(metrics);
    }

    /// <inheritdoc/>
    public void Save(ICheckpointWriter checkpoint)
    {
        policy.Save(checkpoint);
        checkpoint.WriteState("state", new MethodState(Step, policy.OptimizerSteps));
    }

    /// <inheritdoc/>
    public void Load(ICheckpointReader checkpoint)
    {
        MethodState state = checkpoint.ReadState<MethodState>("state");
        policy.Load(checkpoint, state.OptimizerSteps);
        Step = state.Step;
    }

    /// <summary>On the held-out rankings val/loss and the figures of a step, each as "val/...".</summary>
    public IReadOnlyDictionary<string, double> Summary()
    {
        if (validation.Count == 0)
            return new Dictionary<string, double>();
        List<Pair> pairs = [];
        using (no_grad())
        {
            foreach (TokenizedPreference[] some in validation.Chunk(spec.BatchSize))
            {
                List<Pair> read = [];
                microBatches.Run(some.Length, range => read.AddRange(Read(some[range])), read.Clear);
                pairs.AddRange(read);
            }
        }

        Dictionary<string, double> figures = [];
        figures["loss"] = pairs.Sum(pair => pair.Weight * pair.Loss);
        Report(pairs, figures);
        figures["pairs"] = pairs.Count;
        return figures.ToDictionary(pair => $"val/{pair.Key}", pair => pair.Value);

        Pair[] Read(TokenizedPreference[] rows)
        {
            using DisposeScope scope = NewDisposeScope();
            return Share(rows, validation.Count).Pairs;
        }
    }

    /// <inheritdoc/>
    public ValidationAnswers Validate(IReadOnlyList<TokenizedPrompt> validation) => ValidationAnswers.Of(
        Policy, reference, rewards, validation, sampling, tokenizer, seed, Stages.Dpo, Step);

    /// <inheritdoc/>
    public void Dispose()
    {
        policy.Dispose();
        policy.Model.Dispose();
    }

    /// <summary>The share of some rows in the loss of a step over so many prompts, and their pairs in numbers.</summary>
    private (Tensor Loss, Pair[] Pairs) Share(TokenizedPreference[] rows, int prompts)
    {
        RankedPairs pairs = RankedPairs.AllPairs([.. rows.Select(row => row.Ranks)], prompts: prompts);
        LogProbs logProbs = Read(rows);
        Tensor better = tensor(pairs.Better, device: Policy.Device), worse = tensor(pairs.Worse, device: Policy.Device);
        Tensor chosen = logProbs.Policy.index_select(0, better), rejected = logProbs.Policy.index_select(0, worse);
        PreferenceLoss loss = Losses.Preference(
            chosen, rejected, logProbs.Reference.index_select(0, better), logProbs.Reference.index_select(0, worse),
            spec.Beta, spec.Loss, spec.LabelSmoothing);
        Tensor weights = tensor(pairs.Weights, chosen.dtype, Policy.Device);
        float[] losses = loss.Losses.ToSingles();
        float[] chosenRewards = loss.ChosenRewards.ToSingles(), rejectedRewards = loss.RejectedRewards.ToSingles();
        float[] chosenLogProbs = chosen.ToSingles(), rejectedLogProbs = rejected.ToSingles();
        return (
            (loss.Losses * weights).sum(),
            [
                .. Enumerable.Range(0, pairs.Count).Select(i => new Pair(
                    losses[i], pairs.Weights[i], chosenRewards[i], rejectedRewards[i], chosenLogProbs[i], rejectedLogProbs[i])),
            ]);
    }

    /// <summary>Log-probabilities of all completions of some rows, [completions] each: summed over tokens, for IPO averaged.</summary>
    private LogProbs Read(TokenizedPreference[] rows)
    {
        (int[] Prompt, int[] Completion)[] sequences =
            [.. rows.SelectMany(row => row.Completions.Select(completion => (row.Prompt, completion)))];
        int[] lengths = [.. sequences.Select(sequence => (int)TokenBatch.CountTokens([sequence]))];
        TokenBatch batch = TokenBatch.Of(sequences, tokenizer.PadId, Policy.Device);
        Tensor own = Of(Policy);
        using IDisposable noGradient = no_grad();
        return new LogProbs(own, Of(reference));

        Tensor Of(Transformer model)
        {
            Tensor tokens = Losses.LogProbs(model.Logits(batch.Predictors(model.Hidden(batch.Ids))), batch.Targets);
            Tensor sums = JaggedRows.Rows(tokens, lengths).sum(-1);
            return spec.Loss == PreferenceLossKind.Ipo ? sums / tensor(lengths, sums.dtype, sums.device) : sums;
        }
    }

    /// <summary>Means over pairs, named as the field names them.</summary>
    private static void Report(IReadOnlyCollection<Pair> pairs, Dictionary<string, double> metrics)
    {
        metrics["rewards/chosen"] = pairs.Average(pair => pair.Chosen);
        metrics["rewards/rejected"] = pairs.Average(pair => pair.Rejected);
        metrics["rewards/accuracies"] = pairs.Average(pair => pair.Chosen > pair.Rejected ? 1.0 : 0.0);
        metrics["rewards/margins"] = pairs.Average(pair => pair.Chosen - pair.Rejected);
        metrics["logps/chosen"] = pairs.Average(pair => pair.ChosenLogProb);
        metrics["logps/rejected"] = pairs.Average(pair => pair.RejectedLogProb);
    }

    private static IEnumerable<TokenizedPreference> Ranked(IReadOnlyList<TokenizedPreference> rows) =>
        rows.Where(row => row.Ranks.Distinct().Count() > 1);
}
