using Microsoft.DurableTask.Abstractions;

namespace Rlhf.Local.Engine;

/// <summary>Which instances this host's code may run: host.json's versionMatchStrategy.</summary>
internal enum VersionMatch
{
    /// <summary>All.</summary>
    None,

    /// <summary>Those of the default version only.</summary>
    Strict,

    /// <summary>Those of the default version and older ones.</summary>
    CurrentOrOlder,
}

/// <summary>What becomes of an instance that this host may not run: host.json's versionFailureStrategy.</summary>
internal enum VersionFailure
{
    /// <summary>It waits for a host that may.</summary>
    Reject,

    /// <summary>It fails.</summary>
    Fail,
}

/// <param name="Default">stamped on new instances that name no version; empty means unversioned</param>
/// <param name="Match">which versions run here</param>
/// <param name="OnMismatch">what becomes of the others</param>
internal sealed record VersionPolicy(string Default, VersionMatch Match, VersionFailure OnMismatch)
{
    public bool Accepts(string version) => Match switch
    {
        VersionMatch.None => true,
        VersionMatch.Strict => TaskOrchestrationVersioningUtils.CompareVersions(version, Default) == 0,
        _ => TaskOrchestrationVersioningUtils.CompareVersions(version, Default) <= 0,
    };
}
