namespace Rlhf.World;

/// <summary>Measured properties of a world's preference data.</summary>
/// <param name="Pairs">Answer pairs measured.</param>
/// <param name="Agreement">Share of pairs that two different labellers, each ranking once, order alike.</param>
/// <param name="Ceiling">Expected accuracy of the gold judge at foretelling a labeller's choice; no reward model can do better than by chance.</param>
/// <param name="Ties">Share of pairs whose gold scores are equal.</param>
/// <param name="WriterGold">Mean gold score of the ranked answers.</param>
/// <param name="LabellerScale">Utility per gold point.</param>
public sealed record WorldStatistics(int Pairs, double Agreement, double Ceiling, double Ties, double WriterGold, double LabellerScale);
