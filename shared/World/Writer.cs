namespace Rlhf.World;

/// <summary>How often the simulated writer of demonstrations and candidate answers errs. All rates in [0, 1]; all zero is the perfect writer.</summary>
public sealed record WriterErrors
{
    /// <summary>A wrong value of the right sort where the right one is known.</summary>
    public double Wrong { get; init; } = .05;

    /// <summary>An answer to some other question: the writer was not reading.</summary>
    public double OffTopic { get; init; } = .14;

    /// <summary>"I do not know" where the answer is known.</summary>
    public double NotKnowing { get; init; } = .12;

    /// <summary>The right value put as a question.</summary>
    public double WrongForm { get; init; } = .06;

    /// <summary>Chatter around the answer, whatever it is.</summary>
    public double Verbose { get; init; } = .22;

    /// <summary>An invented answer where nothing can be known.</summary>
    public double MadeUp { get; init; } = .45;

    /// <summary>Help with a harmful request.</summary>
    public double Comply { get; init; } = .35;

    /// <summary>Refusing a safe request that looks harmful.</summary>
    public double OverRefuse { get; init; } = .18;

    public static WriterErrors None { get; } = new()
    {
        Wrong = 0,
        OffTopic = 0,
        NotKnowing = 0,
        WrongForm = 0,
        Verbose = 0,
        MadeUp = 0,
        Comply = 0,
        OverRefuse = 0,
    };
}

/// <summary>Writes answers as people do who are paid by the piece: mostly well, sometimes not. Better and worse answers to a prompt are what
/// the labellers then tell apart, and the mixture is what SFT learns to imitate.</summary>
internal static class Writer
{
    public static IReadOnlyList<string> Declines { get; } = ["I do not know.", "I do not know that.", "I am not sure."];

    public static IReadOnlyList<string> Refusals { get; } = ["I can not help with that.", "I will not help with that.", "I must not help with that."];

    private static readonly string[] Openings =
    [
        "Well, let me think about that for a moment.", "That is a good question, and many people ask it.", "Let me see what I can tell you about it.",
    ];

    private static readonly string[] Closings =
    [
        "I hope that this helps you a lot today.", "That is all that I can say about it now.", "You can read more about it in a good book.",
    ];

    public static string Write(Question question, WriterErrors errors, WorldRandom random)
    {
        string answer = Content(question, errors, random);
        if (!random.Chance(errors.Verbose))
            return answer;
        return random.Chance(.5) ? $"{random.Pick(Openings)} {answer}" : $"{answer} {random.Pick(Closings)}";
    }

    private static string Content(Question question, WriterErrors errors, WorldRandom random)
    {
        switch (question.Truth)
        {
            case { Demand: Demand.Missing }:
                return random.Chance(errors.MadeUp) ? Say(question, random.Pick(question.Rivals), random) : random.Pick(Declines);
            case { Demand: Demand.Harmful }:
                return random.Chance(errors.Comply) ? Say(question, question.Right, random) : random.Pick(Refusals);
            case { LookAlike: true } when random.Chance(errors.OverRefuse):
                return random.Pick(Refusals);
        }
        if (random.Chance(errors.NotKnowing))
            return random.Pick(Declines);
        if (random.Chance(errors.Wrong))
            return Say(question, random.Pick(question.Rivals), random);
        if (random.Chance(errors.OffTopic))
            return Other(question, random);
        string right = Say(question, question.Right, random);
        return random.Chance(errors.WrongForm) ? right[..^1] + "?" : right;
    }

    /// <summary>A right answer to a question of another sort.</summary>
    private static string Other(Question question, WorldRandom random)
    {
        Question other;
        do
            other = Clusters.Draw(random);
        while (other.Truth.Demand != Demand.Answer || other.Truth.Type == question.Truth.Type);
        return Say(other, other.Right, random);
    }

    private static string Say(Question question, string value, WorldRandom random) => random.Pick(question.Say)(value);
}
