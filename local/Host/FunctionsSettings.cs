using System.Text.RegularExpressions;
using Microsoft.Extensions.Configuration;

namespace Rlhf.Local.Host;

/// <summary>
/// The settings a function sees, the later above the earlier: host.json (under AzureFunctionsJobHost), the Values of local.settings.json,
/// the environment, the host's own options; as Core Tools does it.
/// </summary>
internal static partial class FunctionsSettings
{
    private const string HostSection = "AzureFunctionsJobHost";

    /// <exception cref="HostConfigurationException">a file is not JSON.</exception>
    public static IConfigurationRoot Load(string contentRoot, IReadOnlyDictionary<string, string?> settings) => new ConfigurationBuilder()
        .AddInMemoryCollection(ReadJson(Path.Combine(contentRoot, "host.json"), null)
            .Select(pair => KeyValuePair.Create($"{HostSection}:{pair.Key}", pair.Value)))
        .AddInMemoryCollection(Normalize(ReadJson(Path.Combine(contentRoot, "local.settings.json"), "Values")))
        .AddEnvironmentVariables()
        .AddInMemoryCollection(Normalize(settings))
        .Build();

    /// <summary>A setting of host.json's extensions, such as "durableTask:defaultVersion".</summary>
    public static string? Extension(this IConfiguration configuration, string key) => configuration[$"{HostSection}:extensions:{key}"];

    /// <inheritdoc cref="Extension(IConfiguration, string)"/>
    /// <exception cref="HostConfigurationException">the value cannot be read.</exception>
    public static T Extension<T>(this IConfiguration configuration, string key, T otherwise, Func<string, T> parse)
    {
        if (configuration.Extension(key) is not { Length: > 0 } text) return otherwise;
        try
        {
            return parse(text);
        }
        catch (Exception error) when (error is FormatException or ArgumentException or OverflowException)
        {
            throw new HostConfigurationException($"host.json: extensions:{key} is '{text}': {error.Message}", error);
        }
    }

    /// <summary>%Name% in a trigger's attribute stands for a setting.</summary>
    /// <exception cref="HostConfigurationException">the setting is missing.</exception>
    public static string Resolve(this IConfiguration configuration, string text, string function) => Percent().Replace(text, match =>
        configuration[Normalize(match.Groups[1].Value)] ?? throw new HostConfigurationException(
            $"Function '{function}' needs the setting '{match.Groups[1].Value}' for its trigger ('{text}'), and it is not set. " +
            "Set it in local.settings.json or in the environment."));

    private static IEnumerable<KeyValuePair<string, string?>> ReadJson(string path, string? section)
    {
        try
        {
            IConfigurationRoot json = new ConfigurationBuilder().AddJsonFile(path, optional: true).Build();
            return (section is null ? json : (IConfiguration)json.GetSection(section)).AsEnumerable(makePathsRelative: true);
        }
        catch (InvalidDataException error)
        {
            throw new HostConfigurationException($"{path} cannot be read: {(error.InnerException ?? error).Message}", error);
        }
    }

    private static IEnumerable<KeyValuePair<string, string?>> Normalize(IEnumerable<KeyValuePair<string, string?>> pairs) =>
        pairs.Select(pair => KeyValuePair.Create(Normalize(pair.Key), pair.Value));

    private static string Normalize(string name) => name.Replace("__", ":", StringComparison.Ordinal);

    [GeneratedRegex("%([^%]+)%")]
    private static partial Regex Percent();
}
