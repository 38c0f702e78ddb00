using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Reflection;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Schema;
using System.Text.Json.Serialization.Metadata;
using Rlhf.Spec;

namespace Rlhf.Shared.Tests.Spec;

/// <summary>Writes the run spec's JSON schema, and its table of fields, from the types.</summary>
internal static class SpecSchema
{
    /// <summary>The JSON schema (draft 2020-12) of <see cref="RunSpec"/>, for editors.</summary>
    public static string Json()
    {
        JsonNode schema = JsonSchemaExporter.GetJsonSchemaAsNode(
            RlhfJson.Indented,
            typeof(RunSpec),
            new JsonSchemaExporterOptions { TreatNullObliviousAsNonNullable = true, TransformSchemaNode = Annotate });
        var document = new JsonObject
        {
            ["$schema"] = "https://json-schema.org/draft/2020-12/schema",
            ["title"] = "RLHF run spec",
            ["description"] = "The body of POST /api/runs: one document that fixes a whole run, and with its seed the result.",
        };
        foreach ((string name, JsonNode? node) in schema.AsObject().ToArray())
            document[name] = node?.DeepClone();
        return document.ToJsonString(RlhfJson.Indented).ReplaceLineEndings("\n") + "\n";
    }

    /// <summary>The fields as Markdown, one table per section of the spec.</summary>
    public static string Markdown()
    {
        JsonObject root = JsonNode.Parse(Json())!.AsObject();
        var page = new StringBuilder();
        page.Append(
            """
            # Run spec

            The body of `POST /api/runs`. Unknown fields, wrong types, values out of range and combinations that make no sense are
            refused, all at once, each by its path. With `"$schema": "../docs/run-spec.schema.json"` (the path from your file) an editor
            completes and checks it while you type. This page and the schema are generated from `shared/Spec/RunSpec.cs`.

            """.ReplaceLineEndings("\n"));
        AppendSection(page, "", root);
        return page.ToString();
    }

    private static JsonNode Annotate(JsonSchemaExporterContext context, JsonNode node)
    {
        if (node is not JsonObject schema)
            return node;

        Type type = Nullable.GetUnderlyingType(context.TypeInfo.Type) ?? context.TypeInfo.Type;
        if (type.IsEnum)
            schema.Insert(0, "type", type == context.TypeInfo.Type ? "string" : new JsonArray("string", "null"));
        if (schema["properties"] is not null)
            AddDefaults(context.TypeInfo, schema);

        ICustomAttributeProvider? attributes = context.PropertyInfo?.AttributeProvider;
        foreach (object attribute in attributes?.GetCustomAttributes(inherit: true) ?? [])
        {
            switch (attribute)
            {
                case DescriptionAttribute description:
                    schema.Insert(0, "description", string.Join(' ', [description.Description, .. MemberDescriptions(type)]));
                    break;
                case RangeAttribute range:
                    schema["minimum"] = JsonSerializer.SerializeToNode(range.Minimum);
                    if (range.Maximum is not (int.MaxValue or (double)long.MaxValue))
                        schema["maximum"] = JsonSerializer.SerializeToNode(range.Maximum);
                    break;
                case RegularExpressionAttribute expression:
                    schema["pattern"] = expression.Pattern;
                    break;
                case MinLengthAttribute length:
                    schema["minLength"] = length.Length;
                    break;
            }
        }

        return schema;
    }

    private static IEnumerable<string> MemberDescriptions(Type type) => !type.IsEnum ? [] :
        from name in Enum.GetNames(type)
        let description = type.GetField(name)!.GetCustomAttribute<DescriptionAttribute>()
        where description is not null
        select $"{JsonNamingPolicy.CamelCase.ConvertName(name)}: {description.Description}";

    private static void AddDefaults(JsonTypeInfo type, JsonObject schema)
    {
        object instance = Activator.CreateInstance(type.Type)!;
        foreach (JsonPropertyInfo property in type.Properties)
        {
            JsonNode? value = JsonSerializer.SerializeToNode(property.Get!(instance), property.PropertyType, RlhfJson.Compact);
            if (!property.IsRequired && value is JsonValue or JsonArray)
                schema["properties"]![property.Name]!.AsObject()["default"] = value;
        }
    }

    private static void AppendSection(StringBuilder page, string path, JsonObject schema)
    {
        HashSet<string> required = [.. schema["required"]?.AsArray().Select(name => name!.GetValue<string>()) ?? []];
        var sections = new List<(string Path, JsonObject Schema)>();
        page.Append("\n| field | type | default | meaning |\n|---|---|---|---|\n");
        foreach ((string name, JsonNode? node) in schema["properties"]!.AsObject())
        {
            JsonObject field = node!.AsObject();
            string fallback = required.Contains(name) ? "**required**" : field["default"] is { } value ? $"`{value.ToJsonString()}`" : "";
            page.Append(CultureInfo.InvariantCulture, $"| `{name}` | {Describe(field)} | {fallback} | {field["description"]} |\n");
            if (field["properties"] is not null)
                sections.Add((path.Length == 0 ? name : $"{path}.{name}", field));
            else if (field["items"] is JsonObject items && items["properties"] is not null)
                sections.Add(($"{path}.{name}[]", items));
        }

        foreach ((string inner, JsonObject section) in sections)
        {
            page.Append(CultureInfo.InvariantCulture, $"\n{new string('#', 1 + inner.Split('.').Length)} {inner}\n");
            AppendSection(page, inner, section);
        }
    }

    private static string Describe(JsonObject field)
    {
        if (field["enum"] is JsonArray names)
            return string.Join(", ", names.Where(name => name is not null).Select(name => $"`{name}`"));
        string type = field["type"] is JsonArray types ? types[0]!.GetValue<string>() : field["type"]!.GetValue<string>();
        return type switch
        {
            "array" when field["items"]!["$ref"] is { } target => $"list of the same as `{target.GetValue<string>()[("#/properties/".Length)..]
                .Replace("/properties/", ".", StringComparison.Ordinal).Replace("/items", "[]", StringComparison.Ordinal)}`",
            "array" => $"list of {field["items"]!["type"]}",
            _ when field["maximum"] is { } maximum => $"{type}, {field["minimum"]} to {maximum}",
            _ when field["minimum"] is { } minimum => $"{type}, {minimum} or more",
            _ => type,
        };
    }
}
