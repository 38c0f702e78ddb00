using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Xunit;

namespace Rlhf.Shared.Tests.Spec;

/// <summary>The generated documents under docs/ are those of the types. With UPDATE_DOCS=1 the tests write them.</summary>
public sealed class SpecSchemaTests
{
    [Fact]
    public void The_schema_in_docs_is_that_of_the_types() => Compare("run-spec.schema.json", SpecSchema.Json());

    [Fact]
    public void The_table_in_docs_is_that_of_the_types() => Compare("run-spec.md", SpecSchema.Markdown());

    [Fact]
    public void Every_field_has_a_description_and_no_object_takes_unknown_fields()
    {
        var faults = new List<string>();
        Walk(JsonNode.Parse(SpecSchema.Json())!.AsObject(), "$");
        Assert.Empty(faults);

        void Walk(JsonObject schema, string path)
        {
            if (schema["properties"] is JsonObject properties)
            {
                if (schema["additionalProperties"]?.ToJsonString() != "false")
                    faults.Add($"{path} takes unknown fields");
                foreach ((string name, JsonNode? field) in properties)
                {
                    if (field!["description"] is null)
                        faults.Add($"{path}.{name} has no description");
                    Walk(field.AsObject(), $"{path}.{name}");
                }
            }
            else if (schema["items"] is JsonObject items)
            {
                Walk(items, path + "[]");
            }
        }
    }

    private static void Compare(string name, string generated, [CallerFilePath] string source = "")
    {
        string path = Path.GetFullPath(Path.Combine(Path.GetDirectoryName(source)!, "../../../docs", name));
        if (Environment.GetEnvironmentVariable("UPDATE_DOCS") == "1")
            File.WriteAllText(path, generated);
        Assert.True(
            File.Exists(path) && File.ReadAllText(path).ReplaceLineEndings("\n") == generated,
            $"docs/{name} is not what the types say. Write it anew with: UPDATE_DOCS=1 dotnet run --project tests/Shared.Tests -- -class {typeof(SpecSchemaTests).FullName}");
    }
}
