namespace Rlhf.Local;

/// <summary>Something that the person at the terminal can put right: its message, which says how, is all that they see.</summary>
internal sealed class UserErrorException(string message, Exception? cause = null) : Exception(message, cause);
