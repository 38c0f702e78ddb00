namespace Rlhf.Local.Commands;

/// <summary>What the commands do where nothing else is said.</summary>
internal static class Defaults
{
    public const string State = ".rlhf";
    public const string Out = "artifacts";
    public const string Machine = "local";
}
