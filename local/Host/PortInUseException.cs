namespace Rlhf.Local.Host;

/// <summary>The host's port is taken.</summary>
public sealed class PortInUseException(int port, Exception inner) : Exception(
    $"Port {port} on 127.0.0.1 is in use by another program. Stop that program, or choose another port (--port; 0 takes any free one).",
    inner)
{
    public int Port { get; } = port;
}
