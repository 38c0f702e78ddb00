using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

public class SftTests
{
    private static readonly SftSpec Spec = new() { LearningRate = 5e-3, Epochs = 60, BatchSize = 8 };

    [Fact]
    public void Learns_the_task_and_where_to_stop()
    {
        using Transformer model = Toy.Model();
        using var sft = new Sft(model, Spec, Toy.Demonstrations, Toy.Demonstrations, Toy.Tokenizer, 8, seed: 1);
        double before = sft.Summary()["val/loss"];
        while (sft.Step < sft.TotalSteps)
            sft.Advance();
        IReadOnlyDictionary<string, double> summary = sft.Summary();
        Assert.True(before > 4, $"loss before {before}");
        Assert.True(summary["val/loss"] < 0.1, $"loss {summary["val/loss"]}");
        Assert.True(summary["val/token_accuracy"] > 0.97, $"accuracy {summary["val/token_accuracy"]}");
        Assert.True(summary["eos_rate"] > 0.95, $"end-of-sequence rate {summary["eos_rate"]}");
    }

    [Fact]
    public void Resumed_equals_uninterrupted_byte_for_byte()
    {
        List<Transformer> models = [];
        MemoryCheckpoint.AssertResumes(() =>
        {
            models.Add(Toy.Model());
            SftSpec spec = Spec with { BatchSize = 5, Epochs = 2 };
            return new Sft(models[^1], spec, Toy.Demonstrations, Toy.Demonstrations, Toy.Tokenizer, 8, seed: 3);
        });
        models.ForEach(model => model.Dispose());
    }

    [Fact]
    public void Loss_is_that_of_the_completion_alone_whatever_the_batch()
    {
        using DisposeScope scope = NewDisposeScope();
        using Transformer model = Toy.Model();
        var rows = Toy.Demonstrations.Take(9).Select(row => (row.Prompt, row.Completion)).ToList();
        double sum = 0, tokens = 0;
        foreach ((int[] prompt, int[] completion) in rows)
        {
            // By hand: one row, no padding, the logits of every position.
            long[] ids = [.. prompt.Concat(completion).Select(id => (long)id)];
            Tensor logProbs = nn.functional.log_softmax(model.Logits(model.Hidden(tensor(ids).unsqueeze(0))), -1)[0];
            for (int t = prompt.Length; t < ids.Length; t++, tokens++)
                sum -= logProbs[t - 1, ids[t]].item<float>();
        }

        (double loss, _, long counted) = LanguageModelling.Measure(model, rows, Toy.Tokenizer.PadId);
        Assert.Equal(tokens, counted);
        Parity.Close(sum / tokens, loss, 1e-6);
    }

    [Fact]
    public void Diverged_training_names_the_step()
    {
        using Transformer model = Toy.Model();
        using (no_grad())
            model.NamedWeights()[0].Value.fill_(float.NaN);
        using var sft = new Sft(model, Spec, Toy.Demonstrations, [], Toy.Tokenizer, 8, seed: 1);
        var error = Assert.Throws<DivergedException>(() => sft.Advance());
        Assert.Contains("SFT step 0", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_checkpoint_of_another_model_is_refused()
    {
        using Transformer model = Toy.Model(), deeper = Toy.Model(layers: 3);
        using var sft = new Sft(model, Spec, Toy.Demonstrations, [], Toy.Tokenizer, 8, seed: 1);
        using var other = new Sft(deeper, Spec, Toy.Demonstrations, [], Toy.Tokenizer, 8, seed: 1);
        var error = Assert.Throws<CheckpointMismatchException>(() => other.Load(MemoryCheckpoint.Of(sft)));
        Assert.Contains("'sft'", error.Message, StringComparison.Ordinal);

        MemoryCheckpoint damaged = MemoryCheckpoint.Of(sft);
        damaged.Remove("sft.optimizer", "model.embed_tokens.weight.v");
        error = Assert.Throws<CheckpointMismatchException>(() => sft.Load(damaged));
        Assert.Contains("model.embed_tokens.weight.v", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Epochs_see_every_example_once_in_another_order()
    {
        int[] lengths = [.. Enumerable.Range(0, 103).Select(i => 5 + i * 7 % 40)];
        var batches = new EpochBatches(lengths, 4, 11, Stages.Sft);
        Assert.Equal(26, batches.PerEpoch);
        int[][] first = [.. Enumerable.Range(0, 26).Select(step => batches[step])];
        int[][] second = [.. Enumerable.Range(26, 26).Select(step => batches[step])];
        Assert.Equal(Enumerable.Range(0, 103), first.SelectMany(batch => batch).Order());
        Assert.Equal(Enumerable.Range(0, 103), second.SelectMany(batch => batch).Order());
        Assert.NotEqual(first.SelectMany(batch => batch), second.SelectMany(batch => batch));
        Assert.Equal(first[3], new EpochBatches(lengths, 4, 11, Stages.Sft)[3]);

        // Padding of length-bucketed batches stays small.
        double padded = first.Sum(batch => batch.Length * batch.Max(i => lengths[i]));
        Assert.InRange(padded / lengths.Sum(), 1, 1.15);
    }
}
