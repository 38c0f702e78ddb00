namespace Rlhf.Local.Engine;

/// <summary>The limits and versions an engine works by.</summary>
internal sealed record EngineOptions
{
    public VersionPolicy Versions { get; init; } = new(string.Empty, VersionMatch.CurrentOrOlder, VersionFailure.Reject);

    /// <summary>The largest input, output or event in bytes of UTF-8. The genuine host breaks at 4 MB for a whole message.</summary>
    public int MaxPayloadBytes { get; init; } = 1024 * 1024;

    /// <summary>The largest custom status in bytes; the genuine platform's limit is 16 KiB of UTF-16.</summary>
    public int MaxCustomStatusBytes { get; init; } = 16 * 1024;

    /// <summary>How often an activity is started before the host's repeated death is blamed on it.</summary>
    public int MaxActivityAttempts { get; init; } = 10;

    public int ConcurrentActivities { get; init; } = 20;
    public int ConcurrentTurns { get; init; } = 2;

    /// <summary>A turn should take milliseconds; one that takes longer than this is reported by name.</summary>
    public TimeSpan TurnLimit { get; init; } = TimeSpan.FromSeconds(10);
}
