namespace Rlhf.World;

/// <summary>What to generate. Two worlds with equal options are equal, character for character.</summary>
public sealed record WorldOptions
{
    /// <summary>Seed of everything that models are trained on.</summary>
    public ulong Seed { get; init; } = 1;

    /// <summary>Seed of the evaluation prompts. Which prompts may be evaluated on is fixed and depends on no seed.</summary>
    public ulong EvaluationSeed { get; init; } = 1001;

    /// <summary>Documents of pretraining text, about 60 words each.</summary>
    public int PretrainDocuments { get; init; } = 20_000;

    /// <summary>Demonstrations for SFT.</summary>
    public int Demonstrations { get; init; } = 2_000;

    /// <summary>Prompts with ranked answers for the reward model, by the labellers it may see.</summary>
    public int PreferencePrompts { get; init; } = 2_000;

    /// <summary>Prompts with answers ranked by the one labeller whom the reward model does not see.</summary>
    public int UnseenLabellerPrompts { get; init; } = 200;

    /// <summary>Answers ranked for a prompt, K of InstructGPT (2 to 9).</summary>
    public int CompletionsPerPrompt { get; init; } = 4;

    /// <summary>Prompts for PPO.</summary>
    public int Prompts { get; init; } = 3_000;

    /// <summary>Prompts of the trained clusters, kept from all training, for evaluation.</summary>
    public int EvaluationPrompts { get; init; } = 600;

    /// <summary>Prompts of the held-out cluster for evaluation.</summary>
    public int HeldOutPrompts { get; init; } = 100;

    /// <summary>Number of labellers, the unseen one included.</summary>
    public int Labellers { get; init; } = 5;

    /// <summary>Share of answer pairs on which two labellers agree (InstructGPT: .726 among training labellers, .773 among others).</summary>
    public double LabellerAgreement { get; init; } = .75;

    public WriterErrors Writer { get; init; } = new();

    /// <exception cref="ArgumentException">A value is out of its range; the message names the field, the value and the range.</exception>
    public void Validate()
    {
        Require(PretrainDocuments, 0, 10_000_000, nameof(PretrainDocuments));
        Require(Demonstrations, 0, 10_000, nameof(Demonstrations));
        Require(PreferencePrompts, 0, 10_000, nameof(PreferencePrompts));
        Require(UnseenLabellerPrompts, 0, 1_000, nameof(UnseenLabellerPrompts));
        Require(CompletionsPerPrompt, 2, 9, nameof(CompletionsPerPrompt));
        Require(Prompts, 0, 10_000, nameof(Prompts));
        Require(EvaluationPrompts, 0, 1_500, nameof(EvaluationPrompts));
        Require(HeldOutPrompts, 0, 150, nameof(HeldOutPrompts));
        Require(Labellers, 2, 1_000, nameof(Labellers));
        Require(LabellerAgreement, .5, .85, nameof(LabellerAgreement));
        Require(Writer.Wrong, 0, 1, "Writer.Wrong");
        Require(Writer.OffTopic, 0, 1, "Writer.OffTopic");
        Require(Writer.NotKnowing, 0, 1, "Writer.NotKnowing");
        Require(Writer.WrongForm, 0, 1, "Writer.WrongForm");
        Require(Writer.Verbose, 0, 1, "Writer.Verbose");
        Require(Writer.MadeUp, 0, 1, "Writer.MadeUp");
        Require(Writer.Comply, 0, 1, "Writer.Comply");
        Require(Writer.OverRefuse, 0, 1, "Writer.OverRefuse");
    }

    private static void Require(double value, double low, double high, string field)
    {
        if (!(value >= low && value <= high))
            throw new ArgumentException(FormattableString.Invariant($"world.{char.ToLowerInvariant(field[0])}{field[1..]} is {value}; it must be from {low} to {high}."), field);
    }
}
