using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using Microsoft.DurableTask;
using Xunit;

namespace Rlhf.Local.Tests;

/// <summary>
/// The app compiles here and on the genuine packages only if every public type and member of local/Api is one of theirs, to the letter:
/// kind, modifiers, types, parameter names and defaults. The packages cannot be had from every feed, so the comparison is with a listing.
/// </summary>
public sealed class ApiSurfaceTests
{
    /// <summary>In packages that the listing was not made from, or more general there.</summary>
    private static readonly string[] NotListed =
    [
        "DurableTask.Core.Exceptions.OrchestrationAlreadyExistsException",
        "Microsoft.Azure.Functions.Worker.BindingAttribute",
        "Microsoft.Azure.Functions.Worker.FunctionAttribute",
        "Microsoft.Azure.Functions.Worker.InputBindingAttribute",
        "Microsoft.Azure.Functions.Worker.QueueTriggerAttribute",
        "Microsoft.Azure.Functions.Worker.TriggerBindingAttribute",
        "Microsoft.DurableTask.AsyncRetryHandler",
    ];

    /// <summary>The listing leaves out what a record writes for itself, and this one the genuine record writes by hand.</summary>
    private const string HandWritten = "Microsoft.DurableTask.TaskFailureDetails: public override string ToString()";

    [Fact]
    public void Every_public_member_is_one_of_the_genuine_packages()
    {
        HashSet<string> genuine = [.. File.ReadLines(Path.Combine(AppContext.BaseDirectory, "fixtures", "durable-api.txt"))];
        List<string> ours = [.. typeof(TaskOrchestrationContext).Assembly.GetExportedTypes()
            .Where(type => type.Namespace?.StartsWith("Microsoft.", StringComparison.Ordinal) == true)
            .Where(type => !NotListed.Contains(FullName(type)))
            .SelectMany(Describe)];
        Assert.True(ours.Count > 200, "the assembly's own API was not found");
        string[] foreign = [.. ours.Where(line => line != HandWritten && !genuine.Contains(line))];
        Assert.True(foreign.Length == 0, string.Join("\n", foreign));
    }

    private static IEnumerable<string> Describe(Type type)
    {
        const BindingFlags all =
            BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Static | BindingFlags.Instance | BindingFlags.DeclaredOnly;
        string name = FullName(type);
        yield return $"{name}: {KindOf(type)}";
        if (type.IsEnum)
        {
            foreach (FieldInfo value in type.GetFields(BindingFlags.Public | BindingFlags.Static))
                yield return $"{name}: {value.Name} = {value.GetRawConstantValue()}";
            yield break;
        }
        if (typeof(Delegate).IsAssignableFrom(type))
        {
            MethodInfo invoke = type.GetMethod("Invoke")!;
            yield return $"{name}: {NameOf(invoke.ReturnType)} Invoke({Parameters(invoke)})";
            yield break;
        }
        foreach (ConstructorInfo constructor in type.GetConstructors(all).Where(IsOffered))
            yield return $"{name}: {Modifiers(constructor)} {Short(type)}({Parameters(constructor)})";
        foreach (MethodInfo method in type.GetMethods(all).Where(IsOffered))
        {
            if (method.IsSpecialName && !method.Name.StartsWith("op_", StringComparison.Ordinal)) continue; // accessors

            string generic = method.IsGenericMethod ? $"<{string.Join(", ", method.GetGenericArguments().Select(NameOf))}>" : "";
            yield return $"{name}: {Modifiers(method)} {NameOf(method.ReturnType)} {method.Name}{generic}({Parameters(method)})";
        }
        foreach (PropertyInfo property in type.GetProperties(all).Where(p => p.Name != "EqualityContract"))
        {
            MethodInfo[] accessors = [.. property.GetAccessors(nonPublic: true).Where(a => a.IsPublic || a.IsFamily)];
            if (accessors.Length == 0) continue;
            string text = string.Join(" ", accessors.Select(a => a == property.GetMethod ? "get;" : IsInit(a) ? "init;" : "set;"));
            yield return $"{name}: {Modifiers(accessors[0])} {NameOf(property.PropertyType)} {property.Name} {{ {text} }}";
        }
        foreach (FieldInfo field in type.GetFields(all).Where(field => field.IsPublic))
        {
            yield return field.IsLiteral
                ? $"{name}: public const {NameOf(field.FieldType)} {field.Name} = {field.GetRawConstantValue()}"
                : $"{name}: public {(field.IsStatic ? "static " : "")}{NameOf(field.FieldType)} {field.Name}";
        }
    }

    private static bool IsOffered(MethodBase member) =>
        (member.IsPublic || member.IsFamily) && !member.IsDefined(typeof(CompilerGeneratedAttribute));

    private static bool IsInit(MethodInfo setter) => setter.ReturnParameter.GetRequiredCustomModifiers().Contains(typeof(IsExternalInit));

    private static string KindOf(Type type) => type switch
    {
        { IsEnum: true } => "enum",
        { IsValueType: true } => "struct",
        _ when typeof(Delegate).IsAssignableFrom(type) => "delegate",
        { IsAbstract: true, IsSealed: true } => "static class",
        { IsAbstract: true } => "abstract class",
        { IsSealed: true } => "sealed class",
        _ => "class",
    };

    private static string Modifiers(MethodBase member)
    {
        string access = member.IsPublic ? "public" : "protected";
        if (member.IsStatic) return $"{access} static";
        if (member.IsAbstract) return $"{access} abstract";
        if (!member.IsVirtual || member.IsFinal) return access;
        return ((MethodInfo)member).GetBaseDefinition().DeclaringType == member.DeclaringType ? $"{access} virtual" : $"{access} override";
    }

    private static string Parameters(MethodBase method) => string.Join(", ", method.GetParameters().Select((parameter, i) =>
    {
        string prefix = parameter.IsDefined(typeof(ParamArrayAttribute)) ? "params "
            : i == 0 && method.IsDefined(typeof(ExtensionAttribute)) ? "this " : "";
        string value = !parameter.HasDefaultValue ? "" : parameter.RawDefaultValue switch
        {
            null => " = default/null",
            bool flag => flag ? " = true" : " = false",
            { } constant => string.Create(CultureInfo.InvariantCulture, $" = {constant}"),
        };
        return $"{prefix}{NameOf(parameter.ParameterType)} {parameter.Name}{value}";
    }));

    private static string NameOf(Type type)
    {
        if (Nullable.GetUnderlyingType(type) is { } value) return NameOf(value) + "?";
        if (type.IsArray) return NameOf(type.GetElementType()!) + "[]";
        if (type.IsGenericParameter) return type.Name;
        if (type.IsConstructedGenericType) return $"{Short(type)}<{string.Join(", ", type.GetGenericArguments().Select(NameOf))}>";
        return Type.GetTypeCode(type) switch
        {
            _ when type.IsEnum => type.Name,
            TypeCode.String => "string",
            TypeCode.Int32 => "int",
            TypeCode.Boolean => "bool",
            TypeCode.Double => "double",
            _ when type == typeof(object) => "object",
            _ when type == typeof(void) => "void",
            _ => type.Name,
        };
    }

    private static string FullName(Type type) => $"{type.Namespace}.{Short(type)}";

    private static string Short(Type type) => type.Name.Split('`')[0];
}
