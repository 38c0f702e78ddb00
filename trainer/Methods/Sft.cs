using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Supervised fine-tuning on demonstrations (InstructGPT, section 3.5 and appendix C.1): cross-entropy on the completions alone, the end
/// token among them, so that the model learns where to stop.
/// </summary>
public sealed class Sft : ITrainingMethod
{
    /// <summary>Validation prompts answered to measure the share of answers that end by themselves.</summary>
    private const int SampledPrompts = 128;

    private readonly SftSpec spec;
    private readonly IReadOnlyList<TokenizedDemonstration> train;
    private readonly IReadOnlyList<TokenizedDemonstration> validation;
    private readonly ITokenizer tokenizer;
    private readonly int maxNewTokens;
    private readonly long seed;
    private readonly EpochBatches batches;
    private readonly MicroBatches microBatches;
    private readonly TrainedModel trained;

    /// <summary>Fine-tunes a language model in place.</summary>
    /// <param name="model">The base model; stays the caller's.</param>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="train">Demonstrations to learn from.</param>
    /// <param name="validation">Held-out demonstrations; may be empty, then the summary has no figures on them.</param>
    /// <param name="tokenizer">For its end and padding tokens.</param>
    /// <param name="maxNewTokens">Longest answer when the end-of-sequence rate is measured.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="microBatchSize">Demonstrations of a forward and backward pass at most; null takes the whole batch at once.</param>
    public Sft(
        Transformer model, SftSpec spec, IReadOnlyList<TokenizedDemonstration> train, IReadOnlyList<TokenizedDemonstration> validation,
        ITokenizer tokenizer, int maxNewTokens, long seed, int? microBatchSize = null)
    {
        if (train.Count == 0)
            throw new JobInputException("SFT has no demonstration to learn from.", "Give demonstrations, or set sft.epochs to 0.");
        this.spec = spec;
        this.train = train;
        this.validation = validation;
        this.tokenizer = tokenizer;
        this.maxNewTokens = maxNewTokens;
        this.seed = seed;
        batches = new EpochBatches([.. train.Select(row => row.Prompt.Length + row.Completion.Length)], spec.BatchSize, seed, Stages.Sft);
        microBatches = new MicroBatches(microBatchSize);
        trained = new TrainedModel(Stages.Sft, model, spec, microBatches);
    }

    /// <inheritdoc/>
    public int Step { get; private set; }

    /// <inheritdoc/>
    public int TotalSteps => spec.Epochs * batches.PerEpoch;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, double> Advance()
    {
        (int[] Prompt, int[] Completion)[] rows = [.. batches[Step].Select(i => (train[i].Prompt, train[i].Completion))];
        long tokens = TokenBatch.CountTokens(rows);
        double learningRate = Schedules.LearningRate(spec, Step, TotalSteps);
        (double loss, double norm, IReadOnlyList<double> accuracies) = trained.Descend(
            rows.Length,
            some => LanguageModelling.Loss(trained.Model, TokenBatch.Of(rows[some], tokenizer.PadId, trained.Model.Device), tokens),
            learningRate, spec.MaxGradientNorm, $"SFT step {Step}");
        Step++;
        return microBatches.Report(new Dictionary<string, double>
        {
            ["loss"] = loss,
            ["token_accuracy"] = accuracies.Sum(),
            ["tokens"] = tokens,
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
    /// val/loss (nats a token), val/token_accuracy, val/tokens over the validation completions, and eos_rate: the share of sampled
    /// answers to validation prompts that end by themselves within the limit (temperature 1, as PPO will sample).
    /// </summary>
    public IReadOnlyDictionary<string, double> Summary()
    {
        if (validation.Count == 0)
            return new Dictionary<string, double>();
        (double loss, double accuracy, long tokens) = LanguageModelling.Measure(
            trained.Model, [.. validation.Select(row => (row.Prompt, row.Completion))], tokenizer.PadId);
        int[][] answers = Sampler.Generate(
            trained.Model, [.. validation.Take(SampledPrompts).Select(row => row.Prompt)], new SamplingOptions
            {
                MaxNewTokens = maxNewTokens,
                Seed = Seeds.For(seed, Stages.Sft, 0, "eos_rate"),
                EosId = tokenizer.EosId,
                PadId = tokenizer.PadId,
            });
        return new Dictionary<string, double>
        {
            ["val/loss"] = loss,
            ["val/token_accuracy"] = accuracy,
            ["val/tokens"] = tokens,
            ["eos_rate"] = answers.Average(answer => answer.Length > 0 && answer[^1] == tokenizer.EosId ? 1.0 : 0.0),
        };
    }

    /// <inheritdoc/>
    public void Dispose() => trained.Dispose();
}
