using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Next-token prediction on packed documents, for a base made from scratch. Whole documents share a row until it is full; none is cut
/// unless it is longer than a row. Each is closed by the end token, over which attention may look back, as in GPT-3 (Brown et al. 2020,
/// appendix B).
/// </summary>
public sealed class Pretrain : ITrainingMethod
{
    private readonly PretrainSpec spec;
    private readonly IReadOnlyList<int[]> rows;
    private readonly IReadOnlyList<int[]> validationRows;
    private readonly ITokenizer tokenizer;
    private readonly EpochBatches batches;
    private readonly MicroBatches microBatches;
    private readonly TrainedModel trained;

    /// <summary>Trains a language model in place.</summary>
    /// <param name="model">The model with fresh weights; stays the caller's.</param>
    /// <param name="spec">The stage's settings.</param>
    /// <param name="documents">Tokens of each document, without end token.</param>
    /// <param name="validation">Held-out documents; may be empty.</param>
    /// <param name="tokenizer">For its end and padding tokens.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="microBatchSize">Packed rows of a forward and backward pass at most; null takes the whole batch at once.</param>
    public Pretrain(
        Transformer model, PretrainSpec spec, IReadOnlyList<int[]> documents, IReadOnlyList<int[]> validation,
        ITokenizer tokenizer, long seed, int? microBatchSize = null)
    {
        this.spec = spec;
        this.tokenizer = tokenizer;
        int[] order = Seeds.Permutation(documents.Count, Seeds.For(seed, Stages.Pretrain, 0, "pack"));
        rows = Pack([.. order.Select(i => documents[i])], spec.SequenceLength, tokenizer.EosId);
        if (rows.Count == 0)
            throw new JobInputException("Pretraining has no text to learn from.", "Give data.text with documents that are not empty.");
        validationRows = Pack(validation, spec.SequenceLength, tokenizer.EosId);
        batches = new EpochBatches([.. rows.Select(row => row.Length)], spec.BatchSize, seed, Stages.Pretrain);
        microBatches = new MicroBatches(microBatchSize);
        trained = new TrainedModel(Stages.Pretrain, model, spec, microBatches);
    }

    /// <inheritdoc/>
    public int Step { get; private set; }

    /// <inheritdoc/>
    public int TotalSteps => spec.Steps;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, double> Advance()
    {
        (int[] Prompt, int[] Completion)[] chosen = [.. batches[Step].Select(i => Row(rows[i]))];
        long tokens = TokenBatch.CountTokens(chosen);
        double learningRate = Schedules.LearningRate(spec, Step, TotalSteps);
        (double loss, double norm, IReadOnlyList<double> accuracies) = trained.Descend(
            chosen.Length,
            some => LanguageModelling.Loss(trained.Model, TokenBatch.Of(chosen[some], tokenizer.PadId, trained.Model.Device), tokens),
            learningRate, spec.MaxGradientNorm, $"pretraining step {Step}");
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

    /// <summary>val/loss (nats a token), val/perplexity and val/token_accuracy on the validation documents.</summary>
    public IReadOnlyDictionary<string, double> Summary()
    {
        if (validationRows.Count == 0)
            return new Dictionary<string, double>();
        (double loss, double accuracy, _) = LanguageModelling.Measure(trained.Model, [.. validationRows.Select(Row)], tokenizer.PadId);
        return new Dictionary<string, double>
        {
            ["val/loss"] = loss,
            ["val/perplexity"] = Math.Exp(loss),
            ["val/token_accuracy"] = accuracy,
        };
    }

    /// <inheritdoc/>
    public void Dispose() => trained.Dispose();

    /// <summary>
    /// Documents, each closed by the end token, in rows of at most <paramref name="length"/> + 1 tokens (the last one is only a
    /// target). A row begins with a document, not with an end token: prompts will stand at position 0 as well.
    /// </summary>
    internal static IReadOnlyList<int[]> Pack(IReadOnlyList<int[]> documents, int length, int eosId)
    {
        List<int[]> rows = [];
        List<int> row = [];
        foreach (int[] document in documents)
        {
            if (document.Length == 0)
                continue;
            if (row.Count + document.Length > length)
                Close();
            foreach (int token in document.Append(eosId))
            {
                if (row.Count == length + 1)
                    Close();
                row.Add(token);
            }
        }

        Close();
        return rows;

        void Close()
        {
            if (row.Count > 1)
                rows.Add([.. row]);
            row.Clear();
        }
    }

    private static (int[] Prompt, int[] Completion) Row(int[] tokens) => ([], tokens);
}
