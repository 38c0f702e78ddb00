using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// The reward model (InstructGPT, section 3.5 and appendix C.2): the SFT model with a scalar head, trained with the Bradley-Terry loss
/// on all pairs of a prompt. All completions of a prompt are in one batch and are scored once; ties are dropped. At the end a bias
/// makes the mean reward of the demonstrations 0.
/// </summary>
public sealed class RewardModel : ITrainingMethod
{
    /// <summary>Demonstrations that the bias is taken over.</summary>
    private const int CalibrationRows = 1024;

    /// <summary>Completions scored alone and in a padded batch, to see that padding changes nothing.</summary>
    private const int PadChecks = 16;

    private readonly RewardSpec spec;
    private readonly IReadOnlyList<TokenizedPreference> train;
    private readonly IReadOnlyList<TokenizedPreference> validation;
    private readonly IReadOnlyList<TokenizedDemonstration> demonstrations;
    private readonly ITokenizer tokenizer;
    private readonly EpochBatches batches;
    private readonly MicroBatches microBatches;
    private readonly TrainedModel trained;
    private (int Step, RunningMoments Raw)? calibration;

    /// <summary>Starts from the SFT model.</summary>
    /// <param name="sft">Copied, or shared by an adapter; stays the caller's and as it is.</param>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="train">Ranked completions to learn from; rows whose completions all tie teach nothing and are left out.</param>
    /// <param name="validation">Held-out rankings, split by prompt; may be empty, then the summary has no figures on them.</param>
    /// <param name="demonstrations">SFT demonstrations for the bias; may be empty, then the bias stays 0.</param>
    /// <param name="tokenizer">For its padding token.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="microBatchSize">Prompts, with all their completions, of a forward and backward pass at most; null takes the whole batch at once.</param>
    /// <param name="adapter">With LoRA: the reward model is the SFT model's own weights with an adapter and a head.</param>
    public RewardModel(
        Transformer sft, RewardSpec spec, IReadOnlyList<TokenizedPreference> train, IReadOnlyList<TokenizedPreference> validation,
        IReadOnlyList<TokenizedDemonstration> demonstrations, ITokenizer tokenizer, long seed,
        int? microBatchSize = null, LoraOptions? adapter = null)
    {
        this.spec = spec;
        this.train = [.. train.Where(row => row.Ranks.Distinct().Count() > 1).Take(spec.MaxRows ?? int.MaxValue)];
        if (this.train.Count == 0)
        {
            throw new JobInputException(
                "The reward model has no prompt with two completions of different rank.", "Give preferences that are not all ties.");
        }

        this.validation = validation;
        this.demonstrations = demonstrations;
        this.tokenizer = tokenizer;
        batches = new EpochBatches(
            [.. this.train.Select(row => row.Prompt.Length + row.Completions.Max(completion => completion.Length))],
            spec.BatchSize, seed, Stages.Reward);
        Transformer model = sft.ForScoring(
            adapter, Seeds.For(seed, Stages.Reward, 0, "adapter"), Seeds.For(seed, Stages.Reward, 0, "head"));
        microBatches = new MicroBatches(microBatchSize);
        trained = new TrainedModel(Stages.Reward, model, spec, microBatches);
    }

    /// <summary>The reward model as it is now, without a bias.</summary>
    public Transformer Model => trained.Model;

    /// <inheritdoc/>
    public int Step { get; private set; }

    /// <inheritdoc/>
    public int TotalSteps => spec.Epochs * batches.PerEpoch;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, double> Advance()
    {
        TokenizedPreference[] rows = [.. batches[Step].Select(i => train[i])];
        double learningRate = Schedules.LearningRate(spec, Step, TotalSteps);
        (double loss, double norm, IReadOnlyList<float[]> shares) = trained.Descend(
            rows.Length, some => Share(rows[some], rows.Length), learningRate, spec.MaxGradientNorm, $"reward model step {Step}");
        Step++;

        float[] scores = [.. shares.SelectMany(share => share)];
        RankedPairs pairs = RankedPairs.AllPairs([.. rows.Select(row => row.Ranks)]);
        double[] gaps = [.. pairs.Better.Zip(pairs.Worse, (better, worse) => (double)scores[better] - scores[worse])];
        return microBatches.Report(new Dictionary<string, double>
        {
            ["loss"] = loss,
            ["accuracy"] = gaps.Average(gap => gap > 0 ? 1.0 : 0.0),
            ["margin_mean"] = gaps.Average(),
            ["reward_mean"] = scores.Average(),
            ["pairs"] = pairs.Count,
            ["grad_norm"] = norm,
            ["lr"] = learningRate,
            ["epoch"] = (double)Step / batches.PerEpoch,
        });
    }

    /// <inheritdoc/>
    public void Save(ICheckpointWriter checkpoint)
    {
        trained.Save(checkpoint);
        checkpoint.WriteState("state", new MethodState(Step, trained.OptimizerSteps));
    }

    /// <inheritdoc/>
    public void Load(ICheckpointReader checkpoint)
    {
        MethodState state = checkpoint.ReadState<MethodState>("state");
        trained.Load(checkpoint, state.OptimizerSteps);
        Step = state.Step;
    }

    /// <summary>
    /// On the held-out rankings what <see cref="RankingAccuracy"/> names, each as "val/..."; bias and demonstration_std, mean and standard
    /// deviation of the raw scores of demonstrations; pad_invariance_max, the largest change of a score by padding.
    /// </summary>
    public IReadOnlyDictionary<string, double> Summary()
    {
        Dictionary<string, double> summary = new()
        {
            ["bias"] = Calibration().Mean,
            ["demonstration_std"] = Calibration().StandardDeviation,
            ["pad_invariance_max"] = Preflight.PadInvariance(
                trained.Model, [.. (validation.Count > 0 ? validation : train).SelectMany(Sequences).Take(PadChecks)], tokenizer.PadId),
        };
        foreach ((string name, double value) in RankingAccuracy.Measure(validation, Score(trained.Model, validation, tokenizer.PadId)))
            summary[$"val/{name}"] = value;
        return summary;
    }

    /// <summary>
    /// A copy of the reward model as it is now, the caller's, whose configuration holds the bias that makes the mean reward of the
    /// demonstrations 0.
    /// </summary>
    public Transformer Export() => trained.Model.WithConfig(trained.Model.Config with { RewardBias = Calibration().Mean });

    /// <summary>The rewards of every completion of every row: [row][completion].</summary>
    public static float[][] Score(Transformer model, IReadOnlyList<TokenizedPreference> rows, int padId)
    {
        float[] flat = Rewards.Score(model, [.. rows.SelectMany(Sequences)], padId);
        int next = 0;
        return [.. rows.Select(row => row.Completions.Select(_ => flat[next++]).ToArray())];
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        trained.Dispose();
        trained.Model.Dispose();
    }

    /// <summary>The share of some prompts in the loss of a batch of so many, and the scores of their completions.</summary>
    private (Tensor Loss, float[] Scores) Share(TokenizedPreference[] rows, int prompts)
    {
        Tensor rewards = Rewards.OfLastTokens(trained.Model, [.. rows.SelectMany(Sequences)], tokenizer.PadId);
        RankedPairs pairs = RankedPairs.AllPairs([.. rows.Select(row => row.Ranks)], prompts: prompts);
        return (Losses.KWiseReward(rewards, pairs, spec.CentreCoefficient), rewards.ToSingles());
    }

    private RunningMoments Calibration()
    {
        if (calibration?.Step != Step)
        {
            int[][] sequences = [.. demonstrations.Take(CalibrationRows).Select(row => (int[])[.. row.Prompt, .. row.Completion])];
            float[] raw = Rewards.Score(trained.Model, sequences, tokenizer.PadId);
            calibration = (Step, new RunningMoments().Updated([.. raw.Select(score => (double)score)]));
        }

        return calibration.Value.Raw;
    }

    private static IEnumerable<int[]> Sequences(TokenizedPreference row) =>
        row.Completions.Select(completion => (int[])[.. row.Prompt, .. completion]);
}
