namespace Rlhf.Trainer.Data;

/// <summary>A demonstration in tokens. Only <paramref name="Completion"/> is learnt.</summary>
/// <param name="Id">The row's id.</param>
/// <param name="Prompt">The prompt, its oldest tokens dropped where it was too long.</param>
/// <param name="Completion">The answer, closed by the end token; a completion that had to be cut has none.</param>
public sealed record TokenizedDemonstration(string Id, int[] Prompt, int[] Completion);

/// <summary>A prompt with K ranked completions in tokens.</summary>
/// <param name="Id">The row's id.</param>
/// <param name="Subset">The subset that metrics report it under.</param>
/// <param name="Prompt">The prompt.</param>
/// <param name="Completions">K completions as in <see cref="TokenizedDemonstration"/>.</param>
/// <param name="Ranks">One rank per completion: 1 = best, equal numbers = tie.</param>
public sealed record TokenizedPreference(
    string Id, string Subset, int[] Prompt, IReadOnlyList<int[]> Completions, IReadOnlyList<int> Ranks);

/// <summary>A prompt in tokens.</summary>
/// <param name="Id">The row's id.</param>
/// <param name="Prompt">The prompt.</param>
/// <param name="Reference">The right answer as text, where the row has one.</param>
public sealed record TokenizedPrompt(string Id, int[] Prompt, string? Reference = null);
