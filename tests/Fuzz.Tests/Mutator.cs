using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Rlhf.Fuzz.Tests;

/// <summary>
/// Makes bad input out of good input. Half of the changes respect JSON's grammar and break what is said in it, half break the bytes:
/// a parser must survive both. Everything follows from the generator, so a seed repeats an input.
/// </summary>
internal sealed class Mutator(Random random)
{
    private const int MostChanges = 6;
    private const int LongestText = 100_000; // characters
    private const string Twice = "\u0001twice";

    private static readonly JsonDocumentOptions Lenient =
        new() { AllowTrailingCommas = true, CommentHandling = JsonCommentHandling.Skip, AllowDuplicateProperties = false };

    /// <summary>Values at which readers break: ends of number ranges, empty and huge texts, halves of characters, other kinds.</summary>
    private static readonly string[] Nasty =
    [
        "null", "true", "false", "0", "-0", "-1", "1", "2147483647", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808",
        "18446744073709551616", "1e308", "1e309", "-1e309", "1e-400", "0.1", "1.0000000000000000000000000000001", "\"\"", "\" \"", "\"\\u0000\"",
        "\"\\ud800\"", "\"\\udc00x\"", "\"..\"", "\"../../x\"", "\"/etc/passwd\"", "\"a\\\\b\"", "\"NaN\"", "\"Infinity\"", "\"(a+)+$\"", "[]", "{}", "[[]]",
        "[null]", "[{}]", "{\"\":{}}", "[0,-1]", "[9223372036854775807,9223372036854775807]", "[1e18,1e18]",
    ];

    /// <summary>One input: a member of the corpus with one to six changes.</summary>
    public byte[] Mutate(IReadOnlyList<byte[]> corpus)
    {
        byte[] input = corpus[random.Next(corpus.Count)];
        for (int left = random.Next(1, MostChanges + 1); left > 0; left--)
            input = random.Next(2) == 0 ? ChangeJson(input) ?? ChangeBytes(input, corpus) : ChangeBytes(input, corpus);
        return input;
    }

    /// <summary>One change in what a JSON text says; null when it is none.</summary>
    public byte[]? ChangeJson(byte[] input)
    {
        try
        {
            JsonNode? root = JsonNode.Parse(input, documentOptions: Lenient);
            if (root is not (JsonObject or JsonArray))
                return null;
            List<JsonNode> containers = [];
            Collect(root, containers);
            JsonNode container = containers[random.Next(containers.Count)];
            string? twice = null;
            if (container is JsonObject members)
                twice = Change(members, containers);
            else
                Change(container.AsArray(), containers);
            string text = root.ToJsonString();
            return Encoding.UTF8.GetBytes(twice is null ? text : text.Replace(JsonSerializer.Serialize(Twice), twice, StringComparison.Ordinal));
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            return null; // a name that stands twice, or half a character: the tree cannot hold them
        }
    }

    /// <summary>Changes a member; answers a name to be written a second time, which the tree itself cannot hold.</summary>
    private string? Change(JsonObject members, List<JsonNode> all)
    {
        if (members.Count == 0)
        {
            members["x"] = Value(all);
            return null;
        }

        (string name, JsonNode? value) = members.ElementAt(random.Next(members.Count));
        switch (random.Next(6))
        {
            case 0:
                members.Remove(name);
                return null;
            case 1:
                members[Twice] = Value(all);
                return JsonSerializer.Serialize(name);
            case 2:
                members.Remove(name);
                members[name + (char)random.Next(32, 1000)] = value;
                return null;
            default:
                members[name] = Value(all);
                return null;
        }
    }

    private void Change(JsonArray items, List<JsonNode> all)
    {
        switch (random.Next(4))
        {
            case 0 when items.Count > 0:
                items.RemoveAt(random.Next(items.Count));
                break;
            case 1:
                items.Insert(random.Next(items.Count + 1), Value(all));
                break;
            case 2 when items.Count is > 0 and < 1000:
                JsonNode? item = items[random.Next(items.Count)];
                for (int copies = random.Next(1, 50); copies > 0; copies--)
                    items.Add(item?.DeepClone());
                break;
            default:
                if (items.Count > 0)
                    items[random.Next(items.Count)] = Value(all);
                break;
        }
    }

    /// <summary>A nasty value, a copy of another part of the document, something deep, or something long.</summary>
    private JsonNode? Value(List<JsonNode> all)
    {
        switch (random.Next(10))
        {
            case 0:
                JsonNode other = all[random.Next(all.Count)];
                return other.ToJsonString().Length < LongestText ? other.DeepClone() : null;
            case 1:
                JsonNode? deep = JsonValue.Create(1);
                for (int depth = random.Next(1, 60); depth > 0; depth--)
                    deep = random.Next(2) == 0 ? new JsonArray(deep) : new JsonObject { ["x"] = deep };
                return deep;
            case 2:
                return JsonValue.Create(new string((char)random.Next(1, 0x3000), random.Next(1, LongestText)));
            case 3:
                return JsonValue.Create(random.NextInt64(-1000, 100_000));
            default:
                return JsonNode.Parse(Nasty[random.Next(Nasty.Length)]);
        }
    }

    /// <summary>One change of the bytes themselves.</summary>
    private byte[] ChangeBytes(byte[] input, IReadOnlyList<byte[]> corpus)
    {
        if (input.Length == 0)
            return corpus[random.Next(corpus.Count)];
        int at = random.Next(input.Length);
        int length = Math.Min(random.Next(1, 200), input.Length - at);
        switch (random.Next(7))
        {
            case 0:
                byte[] flipped = [.. input];
                flipped[at] ^= (byte)(1 << random.Next(8));
                return flipped;
            case 1:
                byte[] set = [.. input];
                set[at] = (byte)random.Next(256);
                return set;
            case 2:
                return input[..at];
            case 3:
                return [.. input[..at], .. input[(at + length)..]];
            case 4:
                return [.. input[..at], .. input[at..(at + length)], .. input[at..]];
            case 5:
                byte[] donor = corpus[random.Next(corpus.Count)];
                int from = random.Next(donor.Length);
                return [.. input[..at], .. donor[from..Math.Min(donor.Length, from + length)], .. input[at..]];
            default:
                return [.. input[..at], .. Encoding.UTF8.GetBytes(Nasty[random.Next(Nasty.Length)]), .. input[at..]];
        }
    }

    private static void Collect(JsonNode node, List<JsonNode> containers)
    {
        containers.Add(node);
        IEnumerable<JsonNode?> children = node is JsonObject members ? members.Select(member => member.Value) : node.AsArray();
        foreach (JsonNode? child in children)
        {
            if (child is JsonObject or JsonArray)
                Collect(child, containers);
        }
    }
}
