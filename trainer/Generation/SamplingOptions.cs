namespace Rlhf.Trainer.Generation;

/// <summary>How to continue prompts.</summary>
public sealed record SamplingOptions
{
    /// <summary>Most tokens added to a prompt, the end token included.</summary>
    public required int MaxNewTokens { get; init; }

    /// <summary>Divides the logits; 0 takes the most likely token each time.</summary>
    public double Temperature { get; init; } = 1;

    /// <summary>Together with a row's id and the number of its new tokens, this decides every draw.</summary>
    public ulong Seed { get; init; }

    /// <summary>Ids of the rows, which give each row its own random numbers; null numbers them from 0.</summary>
    public IReadOnlyList<long>? RowIds { get; init; }

    /// <summary>The token that ends a row; -1 for none.</summary>
    public required int EosId { get; init; }

    /// <summary>Further tokens that end a row: models for dialogues have several.</summary>
    public IReadOnlyList<int> FurtherEndIds { get; init; } = [];

    /// <summary>The token that fills the shorter rows of a batch.</summary>
    public int PadId { get; init; }

    /// <summary>Rows decoded together. It changes speed and memory, not the tokens.</summary>
    public int BatchSize { get; init; } = 64;
}
