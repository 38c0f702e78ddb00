namespace Rlhf.Trainer.Data;

/// <summary>The job's input is bad: another attempt would fail alike. Says what is wrong and what to do.</summary>
public sealed class JobInputException(string message, string remedy, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>What to do about it.</summary>
    public string Remedy { get; } = remedy;
}
