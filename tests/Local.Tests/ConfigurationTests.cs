using System.Reflection;
using System.Reflection.Emit;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Rlhf.Local.Host;
using Xunit;

namespace Rlhf.Local.Tests;

public sealed class ConfigurationTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rlhf-config-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Settings_come_from_the_files_the_environment_and_the_options_the_later_above_the_earlier()
    {
        Write("host.json", """{ "extensions": { "durableTask": { "defaultVersion": "4.2" } } }""");
        Write("local.settings.json", """{ "IsEncrypted": false, "Values": { "Rlhf__A": "file", "Rlhf__B": "file", "Rlhf__C": "file" } }""");
        Environment.SetEnvironmentVariable("Rlhf__B", "environment");
        Environment.SetEnvironmentVariable("Rlhf__C", "environment");
        try
        {
            IConfiguration settings = FunctionsSettings.Load(_folder, new Dictionary<string, string?> { ["Rlhf__C"] = "option" });
            Assert.Equal(["file", "environment", "option"], new[] { "A", "B", "C" }.Select(name => settings[$"Rlhf:{name}"]));
            Assert.Equal("4.2", settings.Extension("durableTask:defaultVersion"));
            Assert.Equal("at file and option", settings.Resolve("at %Rlhf__A% and %Rlhf:C%", "F"));
            var missing = Assert.Throws<HostConfigurationException>(() => settings.Resolve("%Nothing%", "F"));
            Assert.Contains("Function 'F' needs the setting 'Nothing'", missing.Message, StringComparison.Ordinal);
        }
        finally
        {
            Environment.SetEnvironmentVariable("Rlhf__B", null);
            Environment.SetEnvironmentVariable("Rlhf__C", null);
        }
    }

    [Theory]
    [InlineData("host.json", "{ \"version\": ", "host.json cannot be read")]
    [InlineData("local.settings.json", "Values: none", "local.settings.json cannot be read")]
    [InlineData(
        "host.json", """{ "extensions": { "durableTask": { "versionMatchStrategy": "Newest" } } }""",
        "host.json: extensions:durableTask:versionMatchStrategy is 'Newest'")]
    [InlineData("host.json", """{ "extensions": { "queues": { "maxPollingInterval": "soon" } } }""", "maxPollingInterval is 'soon'")]
    public async Task A_bad_settings_file_keeps_the_host_from_starting_and_is_named(string file, string content, string expected)
    {
        Write(file, content);
        EmbeddedHostOptions options = CrashHost.Options(_folder);
        var error = await Assert.ThrowsAsync<HostConfigurationException>(() => EmbeddedHost.CreateAsync(options));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        File.Delete(Path.Combine(_folder, file));
        await using EmbeddedHost host = await EmbeddedHost.CreateAsync(options); // nothing was left locked
    }

    [Fact]
    public async Task A_disabled_function_is_not_there()
    {
        EmbeddedHostOptions options = CrashHost.Options(_folder);
        var settings = new Dictionary<string, string?>(options.Settings) { ["AzureWebJobs.Open.Disabled"] = "true" };
        await using EmbeddedHost host = await EmbeddedHost.CreateAsync(options with { Settings = settings });
        var catalog = host.Services.GetRequiredService<FunctionCatalog>();
        Assert.Null(catalog.Find<HttpTriggerAttribute>("Open"));
        Assert.NotNull(catalog.Find<HttpTriggerAttribute>("Breaks"));
    }

    public static TheoryData<string> Mistakes => [.. Wrong.Keys];

    private static readonly Dictionary<string, (Declaration[] Functions, string Expected)> Wrong = new()
    {
        ["no trigger"] = ([new("F", typeof(string), null)], "Function 'F' (App.M0) has no trigger parameter"),
        ["same name"] = (
            [new("F", typeof(int), typeof(ActivityTriggerAttribute)), new("f", typeof(int), typeof(ActivityTriggerAttribute))],
            "Two functions have the name 'f': App.M1 and App.M0"),
        ["orchestrator without context"] = (
            [new("F", typeof(string), typeof(OrchestrationTriggerAttribute))],
            "Orchestrator 'F' (App.M0) must take a TaskOrchestrationContext"),
        ["orchestrator with an instance"] = (
            [new("F", typeof(TaskOrchestrationContext), typeof(OrchestrationTriggerAttribute), IsStatic: false)],
            "Orchestrator 'F' (App.M0) must be static"),
        ["private"] = (
            [new("F", typeof(int), typeof(ActivityTriggerAttribute), IsPublic: false)],
            "Function 'F' (App.M0) and its class must be public"),
    };

    [Theory]
    [MemberData(nameof(Mistakes))]
    public void A_function_that_cannot_be_bound_is_named_at_start(string mistake)
    {
        var error = Assert.Throws<HostConfigurationException>(
            () => new FunctionCatalog([Assemble(Wrong[mistake].Functions)], _ => false));
        Assert.Contains(Wrong[mistake].Expected, error.Message, StringComparison.Ordinal);
    }

    private sealed record Declaration(string Name, Type Parameter, Type? Trigger, bool IsStatic = true, bool IsPublic = true);

    /// <summary>An assembly with one class, App, of these functions: a wrong one in this assembly would break every other test.</summary>
    private static AssemblyBuilder Assemble(Declaration[] functions)
    {
        var assembly = AssemblyBuilder.DefineDynamicAssembly(new AssemblyName("Wrong"), AssemblyBuilderAccess.Run);
        TypeBuilder type = assembly.DefineDynamicModule("Wrong").DefineType("App", TypeAttributes.Public);
        for (int i = 0; i < functions.Length; i++)
        {
            Declaration function = functions[i];
            MethodAttributes attributes = (function.IsPublic ? MethodAttributes.Public : MethodAttributes.Private)
                | (function.IsStatic ? MethodAttributes.Static : 0);
            MethodBuilder method = type.DefineMethod($"M{i}", attributes, typeof(void), [function.Parameter]);
            method.GetILGenerator().Emit(OpCodes.Ret);
            ConstructorInfo attribute = typeof(FunctionAttribute).GetConstructor([typeof(string)])!;
            method.SetCustomAttribute(new CustomAttributeBuilder(attribute, [function.Name]));
            ParameterBuilder parameter = method.DefineParameter(1, ParameterAttributes.None, "input");
            if (function.Trigger is { } trigger)
                parameter.SetCustomAttribute(new CustomAttributeBuilder(trigger.GetConstructor([])!, []));
        }
        type.CreateType();
        return assembly;
    }

    private void Write(string file, string content) => File.WriteAllText(Path.Combine(_folder, file), content);
}
