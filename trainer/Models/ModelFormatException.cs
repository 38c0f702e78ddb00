namespace Rlhf.Trainer.Models;

/// <summary>A model, tokenizer or tensor file cannot be used as it is; the message names the file, what is wrong and what to do.</summary>
public sealed class ModelFormatException : Exception
{
    public ModelFormatException(string file, string problem)
        : base($"{file}: {problem}") => File = file;

    public ModelFormatException(string file, string problem, Exception inner)
        : base($"{file}: {problem}", inner) => File = file;

    /// <summary>The file or folder the message is about.</summary>
    public string File { get; }
}
