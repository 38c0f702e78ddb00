namespace Rlhf.Local.Host;

/// <summary>A function or a setting is wrong. The message names it and says what to do.</summary>
public sealed class HostConfigurationException(string message, Exception? inner = null) : Exception(message, inner);
