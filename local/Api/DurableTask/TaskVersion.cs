namespace Microsoft.DurableTask
{
    /// <summary>The version of an orchestration; the empty one means unversioned.</summary>
    public readonly struct TaskVersion(string version) : IEquatable<TaskVersion>
    {
        public static readonly TaskVersion Unversioned = new(string.Empty);

        private readonly string? _version = version;

        public string Version => _version ?? string.Empty; // default(TaskVersion) is unversioned

        public static implicit operator TaskVersion(string value) => new(value);
        public static implicit operator string(TaskVersion value) => value.Version;
        public static bool operator ==(TaskVersion a, TaskVersion b) => a.Equals(b);
        public static bool operator !=(TaskVersion a, TaskVersion b) => !a.Equals(b);

        public bool Equals(TaskVersion other) => string.Equals(Version, other.Version, StringComparison.OrdinalIgnoreCase);
        public override bool Equals(object? obj) => obj is TaskVersion other && Equals(other);
        public override int GetHashCode() => StringComparer.OrdinalIgnoreCase.GetHashCode(Version);
    }
}

namespace Microsoft.DurableTask.Abstractions
{
    public static class TaskOrchestrationVersioningUtils
    {
        /// <summary>Unversioned comes first; versions such as 1.2 compare by number, others as text without regard to case.</summary>
        /// <returns>less than, equal to or greater than 0, as <paramref name="sourceVersion"/> is older, the same or newer.</returns>
        public static int CompareVersions(string sourceVersion, string otherVersion)
        {
            if (string.IsNullOrWhiteSpace(sourceVersion)) return string.IsNullOrWhiteSpace(otherVersion) ? 0 : -1;
            if (string.IsNullOrWhiteSpace(otherVersion)) return 1;
            return System.Version.TryParse(sourceVersion, out Version? source) && System.Version.TryParse(otherVersion, out Version? other)
                ? source.CompareTo(other)
                : string.Compare(sourceVersion, otherVersion, StringComparison.OrdinalIgnoreCase);
        }
    }
}
