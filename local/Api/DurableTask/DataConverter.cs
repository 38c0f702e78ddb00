using System.Diagnostics.CodeAnalysis;

namespace Microsoft.DurableTask;

/// <summary>Turns inputs, outputs, events and custom statuses into text and back.</summary>
public abstract class DataConverter
{
    [return: NotNullIfNotNull(nameof(value))]
    public abstract string? Serialize(object? value);

    public abstract object? Deserialize(string? data, Type targetType);

    public virtual T? Deserialize<T>(string? data) => (T?)(Deserialize(data, typeof(T)) ?? default(T));
}
