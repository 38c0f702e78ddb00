using System.Diagnostics.CodeAnalysis;
using System.Text.Json;

namespace Microsoft.DurableTask.Converters;

/// <summary>
/// JSON as the Functions worker writes it: names as they stand (PascalCase), read without regard to case, properties only. Fields are left
/// out, tuples with them: so it is on the genuine host, where an orchestrator that returns a tuple returns an empty object.
/// </summary>
public class JsonDataConverter(JsonSerializerOptions? options = null) : DataConverter
{
    private readonly JsonSerializerOptions _options = options ?? new JsonSerializerOptions { PropertyNameCaseInsensitive = true };

    public static JsonDataConverter Default { get; } = new();

    [return: NotNullIfNotNull(nameof(value))]
    public override string? Serialize(object? value) => value is null ? null : JsonSerializer.Serialize(value, value.GetType(), _options);

    public override object? Deserialize(string? data, Type targetType) =>
        string.IsNullOrEmpty(data) ? null : JsonSerializer.Deserialize(data, targetType, _options);
}
