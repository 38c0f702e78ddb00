using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Xunit;

namespace Rlhf.Trainer.Tests.Methods;

public class PretrainTests
{
    private static readonly PretrainSpec Spec = new() { LearningRate = 5e-3, Steps = 120, BatchSize = 4, SequenceLength = 48 };

    [Fact]
    public void Learns_the_text()
    {
        using Transformer model = Toy.Model();
        using var pretrain = new Pretrain(model, Spec, Toy.Documents, Toy.Documents, Toy.Tokenizer, seed: 1);
        double before = pretrain.Summary()["val/loss"];
        while (pretrain.Step < pretrain.TotalSteps)
            pretrain.Advance();
        double after = pretrain.Summary()["val/loss"];
        Assert.True(after < before / 3, $"{before} to {after}");
    }

    [Fact]
    public void Resumed_equals_uninterrupted_byte_for_byte()
    {
        List<Transformer> models = [];
        MemoryCheckpoint.AssertResumes(() =>
        {
            models.Add(Toy.Model());
            return new Pretrain(models[^1], Spec, Toy.Documents, Toy.Documents, Toy.Tokenizer, seed: 5);
        });
        models.ForEach(model => model.Dispose());
    }

    [Fact]
    public void Packing_keeps_documents_whole_and_closes_each()
    {
        const int eos = 0;
        IReadOnlyList<int[]> rows = Pretrain.Pack([[1, 2, 3], [], [4, 5], [6, 7, 8, 9, 10], [11]], length: 7, eos);
        Assert.Equal([[1, 2, 3, eos, 4, 5, eos], [6, 7, 8, 9, 10, eos, 11, eos]], rows);
    }

    [Fact]
    public void Packing_cuts_only_documents_longer_than_a_row()
    {
        IReadOnlyList<int[]> rows = Pretrain.Pack([[1, 2], [3, 4, 5, 6, 7, 8]], length: 4, eosId: 0);
        Assert.Equal([[1, 2, 0], [3, 4, 5, 6, 7], [8, 0]], rows);
    }
}
