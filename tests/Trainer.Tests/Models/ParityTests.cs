using Rlhf.Trainer.Models;
using Xunit;

namespace Rlhf.Trainer.Tests.Models;

/// <summary>Every number here was computed by Hugging Face's transformers on the same weights; docs/parity.md has the deviations.</summary>
public sealed class ParityTests
{
    public static TheoryData<string> LanguageModels => [.. ModelFixture.LanguageModels];

    public static TheoryData<string> RewardModels => [.. ModelFixture.RewardModels];

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Logits_agree_on_plain_and_padded_batches(string name) => AssertWithin(ModelParity.Logits(name));

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Decoding_with_a_cache_gives_the_logits_of_the_whole_sequence(string name) => AssertWithin(ModelParity.CachedLogits(name));

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Loss_and_gradients_agree(string name) => AssertWithin(ModelParity.LossAndGradients(name));

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Six_clipped_AdamW_steps_follow_the_reference(string name) => AssertWithin(ModelParity.Training(name));

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void Greedy_generation_agrees(string name) => AssertWithin(ModelParity.Greedy(name));

    [Theory]
    [MemberData(nameof(RewardModels))]
    public void Rewards_and_the_gradients_of_the_preference_loss_agree(string name) =>
        AssertWithin([.. ModelParity.Rewards(name), .. ModelParity.PreferenceLoss(name)]);

    [Theory]
    [MemberData(nameof(LanguageModels))]
    public void The_model_has_the_reference_number_of_parameters(string name)
    {
        ModelFixture fixture = ModelFixture.Open(name);
        using Transformer model = fixture.Load();
        Assert.Equal(fixture.Numbers.GetProperty("n_params").GetInt64(), model.ParameterCount);
        Assert.Equal(HeadKind.LanguageModel, model.Config.Head);
    }

    private static void AssertWithin(IEnumerable<Deviation> deviations) =>
        Assert.All(deviations, d => Assert.True(d.Largest <= d.Tolerance, d.ToString()));
}
