namespace Rlhf.Trainer.Commands;

/// <summary>A command was given input it cannot work with; the message is one line that names the input and the remedy.</summary>
public sealed class CommandException(string message) : Exception(message);
