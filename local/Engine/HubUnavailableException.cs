namespace Rlhf.Local.Engine;

/// <summary>The hub's database cannot be opened or written. The message names the file, the reason and what to do.</summary>
public sealed class HubUnavailableException(string message, Exception? inner = null) : Exception(message, inner);
