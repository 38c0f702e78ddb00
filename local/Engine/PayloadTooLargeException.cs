namespace Rlhf.Local.Engine;

/// <summary>An input, output, event or custom status is larger than the engine keeps in its history.</summary>
internal sealed class PayloadTooLargeException(string what, int bytes, int limit) : Exception(
    FormattableString.Invariant($"The {what} has {bytes:N0} bytes; at most {limit:N0} are allowed. ") +
    "Put the data into blob storage and pass a reference.");
