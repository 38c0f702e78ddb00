using System.IO.Compression;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Rlhf.Rows.Flan;

/// <summary>A way to put an example into words: FLAN's pairs of an input and a target pattern.</summary>
/// <param name="Input">What the model reads.</param>
/// <param name="Target">What it is to say.</param>
public sealed partial record FlanTemplate(string Input, string Target)
{
    /// <summary>
    /// The template asks for the answer and lists what there is to choose from. The others are "turned around": they ask for the question
    /// (Wei et al. 2021, section 2.1: at most three of ten). They are for training alone.
    /// </summary>
    public bool IsClassification => Target == "{answer}" && Input.Contains("{options_}", StringComparison.Ordinal);

    /// <summary>Names in braces, such as <c>question</c>, that the patterns use.</summary>
    public IEnumerable<string> Fields => Field().Matches(Input + Target).Select(match => match.Groups[1].Value).Distinct();

    /// <summary>
    /// The options as a classification task shows them: FLAN's OPTIONS suffix, "so that the model is aware of which choices are desired"
    /// (Wei et al. 2021, section 2.3; format_options in flan/preprocessors.py).
    /// </summary>
    public static string OptionsSuffix(IReadOnlyList<string> options) => $"OPTIONS:\n- {string.Join("\n- ", options)}";

    /// <summary>
    /// Puts an example's question, answer and options in their places (format_from_feature_dictionary in flan/preprocessors.py).
    /// </summary>
    public (string Input, string Target) Fill(FlanExample example)
    {
        return (Filled(Input), Filled(Target));

        string Filled(string pattern) => Field().Replace(pattern, match => match.Groups[1].Value switch
        {
            "question" => example.Question,
            "answer" => example.Options[example.Answer],
            "options_" => OptionsSuffix(example.Options),
            _ => throw new InvalidOperationException($"The template's field '{match.Value}' is none of an example."),
        });
    }

    [GeneratedRegex(@"\{(\w*)\}")]
    private static partial Regex Field();
}

/// <summary>FLAN's file of templates: <c>{"PATTERNS": {"arc": [[input, target], ...], ...}}</c>.</summary>
public sealed class FlanTemplates
{
    private const int Longest = 16 * 1024 * 1024; // bytes, unpacked; FLAN's own file has 300 kB

    private static readonly string[] Known = ["question", "answer", "options_"];
    private readonly string file;
    private readonly Dictionary<string, FlanTemplate[]> patterns;

    private FlanTemplates(string file, Dictionary<string, FlanTemplate[]> patterns)
    {
        this.file = file;
        this.patterns = patterns;
    }

    /// <summary>Reads the file, plain or gzip.</summary>
    /// <exception cref="UnreadableFileException">It is not that kind of file.</exception>
    public static async Task<FlanTemplates> ReadAsync(string file, Stream content, CancellationToken cancellation = default)
    {
        using MemoryStream copy = await CopyAsync(file, content, cancellation);
        bool gzip = copy.Length > 1 && copy.GetBuffer()[0] == 0x1F && copy.GetBuffer()[1] == 0x8B;
        try
        {
            await using Stream json = gzip
                ? await CopyAsync(file, new GZipStream(copy, CompressionMode.Decompress), cancellation)
                : copy;
            Document document = await JsonSerializer.DeserializeAsync<Document>(json, cancellationToken: cancellation)
                ?? throw new JsonException("it holds null");
            if (document.PATTERNS is not { Count: > 0 } tasks)
                throw new UnreadableFileException(file, "has no object 'PATTERNS' of lists of templates");
            if (tasks.FirstOrDefault(task => task.Value.Any(pair => pair.Length != 2)) is { Key: { } odd })
                throw new UnreadableFileException(file, $"has a template of '{odd}' that is no pair of input and target");
            return new FlanTemplates(file, tasks.ToDictionary(
                task => task.Key, task => task.Value.Select(pair => new FlanTemplate(pair[0], pair[1])).ToArray()));
        }
        catch (Exception e) when (e is JsonException or InvalidDataException)
        {
            throw new UnreadableFileException(file, $"is no file of templates: {e.Message.Split(" LineNumber")[0].TrimEnd('.')}");
        }
    }

    /// <summary>The templates of one name that a question with options can fill.</summary>
    /// <exception cref="UnreadableFileException">
    /// There is no such name, its templates need other fields than question, answer and options, or none asks for the answer.
    /// </exception>
    public IReadOnlyList<FlanTemplate> Of(string name)
    {
        if (!patterns.TryGetValue(name, out FlanTemplate[]? templates))
            throw Unusable($"has no templates '{name}'; it has {string.Join(", ", patterns.Keys.Order(StringComparer.Ordinal))}");
        string[] others = [.. templates.SelectMany(template => template.Fields).Except(Known).Order(StringComparer.Ordinal)];
        if (others.Length > 0)
        {
            throw Unusable(
                $"has templates '{name}' that need {string.Join(", ", others)}; a question with options has only question, answer and options_");
        }

        if (!templates.Any(template => template.IsClassification))
            throw Unusable($"has no template of '{name}' that lists the options and asks for the answer");
        return templates;

        UnreadableFileException Unusable(string why) => new(file, why);
    }

    /// <summary>A copy in memory, of as much as templates may be.</summary>
    private static async Task<MemoryStream> CopyAsync(string file, Stream content, CancellationToken cancellation)
    {
        var copy = new MemoryStream();
        byte[] buffer = new byte[64 * 1024];
        for (int read; (read = await content.ReadAsync(buffer, cancellation)) > 0;)
        {
            if (copy.Length + read > Longest)
                throw new UnreadableFileException(file, $"is no file of templates: it holds more than {Longest / 1024 / 1024} MiB");
            copy.Write(buffer, 0, read);
        }

        copy.Position = 0;
        return copy;
    }

    private sealed record Document(Dictionary<string, string[][]>? PATTERNS);
}
