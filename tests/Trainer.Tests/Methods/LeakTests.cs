using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Models;
using Xunit;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>Counts live tensors of the process, so nothing else may run beside it.</summary>
[CollectionDefinition(nameof(LeakTests), DisableParallelization = true)]
[Collection(nameof(LeakTests))]
public class LeakTests
{
    [Fact]
    public void Steps_keep_no_tensors()
    {
        using Transformer model = Toy.Model();
        using var sft = new Sft(model, new SftSpec { BatchSize = 4 }, Toy.Demonstrations, Toy.Demonstrations, Toy.Tokenizer, 4, seed: 1);
        using var reward = new RewardModel(
            model, new RewardSpec { BatchSize = 4 }, Toy.Preferences, Toy.Preferences, Toy.Demonstrations, Toy.Tokenizer, seed: 1);
        using Transformer scoring = reward.Export();
        using var ppo = new Ppo(
            model, scoring, new PpoSpec { Episodes = 8, MinibatchSize = 4, MaxNewTokens = 3, PtxCoefficient = 0.1 },
            Toy.TokenizedPrompts, Toy.Demonstrations, Toy.Tokenizer, seed: 1);
        using var dpo = new Dpo(
            model, scoring, new DpoSpec { BatchSize = 4 }, new AnswerSampling(3, 1, 4), Toy.Preferences, Toy.Preferences,
            Toy.Tokenizer, seed: 1);
        using var rloo = new Rloo(
            model, scoring, new RlooSpec { Episodes = 8, MinibatchSize = 4, MaxNewTokens = 3, GroupSize = 2 },
            Toy.TokenizedPrompts, Toy.Tokenizer, seed: 1);
        using var grpo = new Grpo(
            model, scoring, new GrpoSpec { Episodes = 8, MinibatchSize = 4, MaxNewTokens = 3, GroupSize = 2 },
            Toy.TokenizedPrompts, Toy.Tokenizer, seed: 1);
        using Transformer frozen = model.Clone();
        using var adapted = new Ppo(
            frozen, scoring, new PpoSpec { Episodes = 8, MinibatchSize = 4, MaxNewTokens = 3 },
            Toy.TokenizedPrompts, [], Toy.Tokenizer, seed: 1, adapter: new LoraOptions(2, 2, [LoraOptions.AllLinear]));
        ITrainingMethod[] methods = [reward, ppo, dpo, rloo, grpo, adapted, sft]; // SFT last: it moves the weights of the references
        foreach (ITrainingMethod method in methods)
        {
            StepAndMeasure(method);
            GC.Collect();
            GC.WaitForPendingFinalizers(); // what earlier tests left behind must not hide a leak
            long before = Tensor.TotalCount;
            for (int i = 0; i < 3; i++)
                StepAndMeasure(method);
            Assert.InRange(Tensor.TotalCount, 0, before);
        }

        static void StepAndMeasure(ITrainingMethod method)
        {
            method.Advance();
            method.Summary();
        }
    }
}
