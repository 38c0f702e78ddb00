using System.Collections;
using System.ComponentModel.DataAnnotations;
using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Rlhf.Spec;

/// <summary>One fault of a spec.</summary>
/// <param name="Field">The field's path, such as <c>ppo.clipRange</c> or <c>data.preferences[0].file</c>.</param>
/// <param name="Message">What is wrong and what would be right.</param>
public sealed record SpecError(string Field, string Message);

/// <summary>A spec that cannot be run, with every fault that was found.</summary>
public sealed class InvalidSpecException(IReadOnlyList<SpecError> errors)
    : Exception("The run spec is not valid:\n" + string.Join("\n", errors.Select(e => $"  {e.Field}: {e.Message}")))
{
    /// <summary>The faults, in the document's order.</summary>
    public IReadOnlyList<SpecError> Errors { get; } = errors;
}

/// <summary>
/// Reads a run spec and names every bad field at once: unknown fields, wrong types, values out of range, missing parts, and
/// combinations that make no sense. A serializer would stop at the first.
/// </summary>
public static class SpecReader
{
    private const string RegisteredModel = "model:";

    /// <summary>Reads and checks a spec.</summary>
    /// <exception cref="InvalidSpecException">The text is no JSON, or some fields are bad.</exception>
    public static RunSpec Read(string json)
    {
        var errors = new List<SpecError>();
        try
        {
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { AllowTrailingCommas = true, CommentHandling = JsonCommentHandling.Skip });
            Check(document.RootElement, typeof(RunSpec), string.Empty, [], errors);
            if (errors.Count == 0)
            {
                // Written anew, since an element keeps its comments and trailing commas, which the contract's options refuse.
                RunSpec spec = JsonSerializer.Deserialize<RunSpec>(JsonSerializer.SerializeToUtf8Bytes(document.RootElement), RlhfJson.Compact)!;
                errors.AddRange([.. Contradictions(spec), .. RewardRules.Errors(spec)]);
                if (errors.Count == 0)
                    return spec;
            }
        }
        catch (JsonException e)
        {
            errors.Add(new SpecError("$", $"is not valid JSON (line {e.LineNumber + 1}, column {e.BytePositionInLine + 1}): {e.Message.Split(" LineNumber")[0]}"));
        }

        throw new InvalidSpecException(errors);
    }

    /// <summary>Reads and checks a spec whose files and base model lie in the container, as they do for everyone but the local command.</summary>
    /// <exception cref="InvalidSpecException">The text is no JSON, or some fields are bad.</exception>
    public static RunSpec ReadStored(string json)
    {
        RunSpec spec = Read(json);
        return spec.Model.Base is not { } model || IsStoredModel(model)
            ? spec
            : throw new InvalidSpecException([new SpecError(
                "model.base", "must be a plain path in the container (no '..', no address, no leading '/', no '\\'), or 'model:NAME' with the name of a registered model")]);
    }

    private static bool IsStoredModel(string model) => model.StartsWith(RegisteredModel, StringComparison.Ordinal)
        ? PlainNames.IsId(model[RegisteredModel.Length..])
        : IsPlainRelativePath(model.TrimEnd('/'));

    private static void Check(JsonElement value, Type type, string path, IReadOnlyList<ValidationAttribute> rules, List<SpecError> errors)
    {
        string field = path.Length == 0 ? "$" : path;
        Type target = Nullable.GetUnderlyingType(type) ?? type;
        if (ElementType(target) is { } element)
        {
            if (value.ValueKind != JsonValueKind.Array)
                errors.Add(new SpecError(field, $"must be a list, not {Describe(value)}"));
            else
                foreach ((int index, JsonElement item) in value.EnumerateArray().Index())
                    Check(item, element, $"{path}[{index}]", [], errors);
        }
        else if (target.IsClass && target != typeof(string))
        {
            CheckObject(value, target, path, errors);
        }
        else if (Scalar(value, target, out object? scalar, out string? expected))
        {
            foreach (ValidationAttribute rule in rules.Where(rule => !rule.IsValid(scalar)))
                errors.Add(new SpecError(field, Explain(rule, value)));
        }
        else
        {
            errors.Add(new SpecError(field, $"must be {expected}, not {Describe(value)}"));
        }
    }

    private static void CheckObject(JsonElement value, Type type, string path, List<SpecError> errors)
    {
        if (value.ValueKind != JsonValueKind.Object)
        {
            errors.Add(new SpecError(path.Length == 0 ? "$" : path, $"must be an object, not {Describe(value)}"));
            return;
        }

        Dictionary<string, PropertyInfo> properties = Properties(type);
        var seen = new HashSet<string>();
        foreach (JsonProperty member in value.EnumerateObject())
        {
            string name = member.Name.Length == 0 ? "''" : member.Name;
            string field = path.Length == 0 ? name : $"{path}.{name}";
            if (!properties.TryGetValue(member.Name, out PropertyInfo? property))
            {
                errors.Add(new SpecError(field, $"is not a field of the spec. {Suggest(member.Name, properties.Keys)}"));
                continue;
            }

            if (!seen.Add(member.Name))
                errors.Add(new SpecError(field, "appears twice"));
            else if (member.Value.ValueKind == JsonValueKind.Null && IsNullable(property))
                continue;
            else
                Check(member.Value, property.PropertyType, field, [.. property.GetCustomAttributes<ValidationAttribute>()], errors);
        }

        foreach ((string name, PropertyInfo property) in properties)
        {
            if (!seen.Contains(name) && property.GetCustomAttribute<System.Runtime.CompilerServices.RequiredMemberAttribute>() is not null)
                errors.Add(new SpecError(path.Length == 0 ? name : $"{path}.{name}", "is missing"));
        }
    }

    private static bool Scalar(JsonElement value, Type type, out object? scalar, [NotNullWhen(false)] out string? expected)
    {
        scalar = null;
        expected = null;
        if (type.IsEnum)
        {
            string[] names = [.. Enum.GetNames(type).Select(JsonNamingPolicy.CamelCase.ConvertName)];
            if (value.ValueKind == JsonValueKind.String && names.Contains(value.GetString()))
                return true;
            expected = $"one of {string.Join(", ", names.Select(name => $"'{name}'"))}";
        }
        else if (type == typeof(string))
        {
            if (value.ValueKind == JsonValueKind.String)
            {
                scalar = value.GetString();
                return true;
            }

            expected = "a string";
        }
        else if (type == typeof(bool))
        {
            if (value.ValueKind is JsonValueKind.True or JsonValueKind.False)
                return true;
            expected = "true or false";
        }
        else if (type == typeof(int) || type == typeof(long))
        {
            if (value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out long number) && (type == typeof(long) || number is >= int.MinValue and <= int.MaxValue))
            {
                scalar = type == typeof(long) ? number : (int)number;
                return true;
            }

            expected = "a whole number";
        }
        else
        {
            if (value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out double number) && double.IsFinite(number))
            {
                scalar = number;
                return true;
            }

            expected = "a number";
        }

        return false;
    }

    private static IEnumerable<SpecError> Contradictions(RunSpec spec)
    {
        if (spec.Model.Base is null == spec.Model.Scratch is null)
            yield return new SpecError("model", "needs either 'base' (a model to start from) or 'scratch' (the shape of a new one), and not both");
        if (spec.Model.Scratch is null && spec.Pretrain is not null)
            yield return new SpecError("pretrain", "is only for a model made from scratch; remove it, or give model.scratch instead of model.base");
        if (spec.Model.Scratch is { } scratch)
        {
            if (spec.Pretrain is null)
                yield return new SpecError("pretrain", "is missing: a model made from scratch must be pretrained");
            else if (spec.Pretrain.SequenceLength > scratch.ContextLength)
                yield return new SpecError("pretrain.sequenceLength", $"must be at most model.scratch.contextLength ({scratch.ContextLength})");
            if (scratch.HiddenSize % scratch.Heads != 0 || scratch.HiddenSize / scratch.Heads % 2 != 0)
                yield return new SpecError("model.scratch.hiddenSize", $"must be an even multiple of model.scratch.heads ({scratch.Heads})");
            if (scratch.Heads % scratch.KeyValueHeads != 0)
                yield return new SpecError("model.scratch.keyValueHeads", $"must divide model.scratch.heads ({scratch.Heads})");
            if (spec.Model.MaxPromptTokens + spec.Model.MaxCompletionTokens > scratch.ContextLength)
                yield return new SpecError("model.maxPromptTokens", $"plus model.maxCompletionTokens must fit model.scratch.contextLength ({scratch.ContextLength})");
        }

        bool files = spec.Data.Text.Count + spec.Data.Demonstrations.Count + spec.Data.Preferences.Count + spec.Data.Prompts.Count + spec.Data.Evaluation.Count
            + spec.Data.Comparisons.Count + spec.Data.Safety.Count > 0;
        if (spec.Data.World is not null && files)
            yield return new SpecError("data.world", "excludes files: the sample world generates every data set");
        if (spec.Data.World is not null && spec.Data.HeldOutLabellers.Count > 0)
            yield return new SpecError("data.heldOutLabellers", "is for files: the sample world keeps a labeller of its own out");
        if (spec.Data.Flan is { } flan)
        {
            if (files || spec.Data.World is not null)
                yield return new SpecError("data.flan", "excludes data.world and lists of files: its tasks give every data set");
            foreach (SpecError error in Contradictions(flan))
                yield return error;
        }

        if (!spec.Aligns())
        {
            foreach (SpecError error in NeedsRewardModel(spec))
                yield return error;
        }

        if (!spec.Aligns() && spec.Evaluate.HeldOutRewardModel)
            yield return new SpecError("evaluate.heldOutRewardModel", "judges an aligned model; this run ends with SFT (reward.epochs is 0)");
        if (spec.Aligns() && spec.Data.Flan is not null)
            yield return new SpecError("data.flan", "has no preferences to train a reward model on: set reward.epochs to 0, and the run ends with SFT");
        else if (spec.Aligns() && spec.Data.World is null && spec.Data.Preferences.Count == 0)
            yield return new SpecError("data.preferences", "is empty: a reward model needs ranked completions");
        foreach ((string list, IReadOnlyList<DataFileSpec> entries) in new[]
        {
            ("text", spec.Data.Text), ("demonstrations", spec.Data.Demonstrations), ("preferences", spec.Data.Preferences),
            ("prompts", spec.Data.Prompts), ("evaluation", spec.Data.Evaluation),
            ("comparisons", spec.Data.Comparisons), ("safety", spec.Data.Safety),
        })
        {
            foreach ((int index, DataFileSpec file) in entries.Index())
            {
                if (!IsPlainRelativePath(file.File))
                    yield return new SpecError($"data.{list}[{index}].file", "must be a plain relative path: no '..', no leading '/', no '\\'");
            }
        }

        foreach (SpecError error in MethodContradictions(spec))
            yield return error;
        if (spec.Guard.Metric == GuardMetric.GoldReward && spec.Data.World is null)
            yield return new SpecError("guard.metric", "'goldReward' needs the sample world's judge; use 'proxyReward' with maxKl");
        if (spec.Gates.MinRewardGoldCorrelation is not null && spec.Data.World is null)
            yield return new SpecError("gates.minRewardGoldCorrelation", "needs the sample world's judge");
        foreach (SpecError error in spec.Lora is { } lora ? Contradictions(lora, spec.Sft) : [])
            yield return error;
        foreach ((int index, int n) in spec.Evaluate.BestOf.Index())
        {
            if (n is < 2 or > 1024)
                yield return new SpecError($"evaluate.bestOf[{index}]", "must be from 2 to 1024");
        }
    }

    private static IEnumerable<SpecError> MethodContradictions(RunSpec spec)
    {
        string chosen = Stages.Of(spec.Method);
        (PreferenceMethod Method, bool Given)[] sections =
        [
            // A spec that was read and written again has a section of defaults.
            (PreferenceMethod.Ppo, spec.Ppo != new PpoSpec()), (PreferenceMethod.Dpo, spec.Dpo is not null),
            (PreferenceMethod.Rloo, spec.Rloo is not null), (PreferenceMethod.Grpo, spec.Grpo is not null),
        ];
        foreach (string section in sections.Where(section => section.Given && section.Method != spec.Method).Select(other => Stages.Of(other.Method)))
            yield return new SpecError(section, $"would not be read: method is '{chosen}'; remove the section, or set method to '{section}'");

        if (spec.Online() is { } online)
        {
            if (online.MinibatchSize > online.Episodes)
                yield return new SpecError($"{chosen}.minibatchSize", $"must be at most {chosen}.episodes ({online.Episodes})");
            if (online is PpoSpec { WhitenAdvantages: true, Episodes: < 8 })
                yield return new SpecError("ppo.episodes", "must be at least 8 to whiten advantages");
            int groupSize = online switch { RlooSpec rloo => rloo.GroupSize, GrpoSpec grpo => grpo.GroupSize, _ => 1 };
            if (online.Episodes % groupSize != 0)
                yield return new SpecError($"{chosen}.episodes", $"must be a multiple of {chosen}.groupSize ({groupSize})");
            if (spec.Guard.Metric != GuardMetric.None && online.ValidationPrompts == 0)
                yield return new SpecError($"{chosen}.validationPrompts", "must be above 0 for the guard to have something to look at");
        }
        else
        {
            if (spec.Guard != new GuardSpec())
                yield return new SpecError("guard", "is for methods that train in slices; remove it, or choose method 'ppo', 'rloo' or 'grpo'");
            if (spec.Dpo is { Loss: PreferenceLossKind.Ipo, LabelSmoothing: > 0 })
                yield return new SpecError("dpo.labelSmoothing", "is for loss 'sigmoid'; set it to 0 with 'ipo'");
        }
    }

    private static IEnumerable<SpecError> Contradictions(LoraSpec lora, SftSpec sft)
    {
        if (lora.Stages.Count == 0)
            yield return new SpecError("lora.stages", "is empty, so that nothing would train an adapter; name a stage, or remove 'lora'");
        else if (sft.Epochs == 0 && lora.Stages.All(stage => stage == LoraStage.Sft))
            yield return new SpecError("lora.stages", "names only 'sft', which sft.epochs 0 skips; name another stage, or remove 'lora'");
        foreach ((int index, LoraStage stage) in lora.Stages.Index())
        {
            if (lora.Stages.Take(index).Contains(stage))
                yield return new SpecError($"lora.stages[{index}]", $"names '{JsonNamingPolicy.CamelCase.ConvertName(stage.ToString())}' again");
        }

        foreach ((int index, string target) in lora.Targets.Index())
        {
            if (target.Length is 0 or > 200 || !target.All(c => char.IsAsciiLetterOrDigit(c) || c is '_' or '-' or '.'))
                yield return new SpecError($"lora.targets[{index}]", "must be a module name such as 'q_proj' (letters, digits, '_', '.'), or 'all-linear'");
            else if (lora.Targets.Take(index).Contains(target))
                yield return new SpecError($"lora.targets[{index}]", $"names '{target}' again");
            else if (target == "all-linear" && lora.Targets.Count > 1)
                yield return new SpecError($"lora.targets[{index}]", "'all-linear' takes every matrix already; leave the others out");
        }
    }

    /// <summary>What a run without a reward model cannot be asked for.</summary>
    private static IEnumerable<SpecError> NeedsRewardModel(RunSpec spec)
    {
        const string message = "needs a reward model, and reward.epochs is 0";
        if (spec.Method != PreferenceMethod.Ppo)
            yield return new SpecError("method", "would not be run: reward.epochs is 0, which ends the run with SFT");
        if (spec.Rewards.Count > 0)
            yield return new SpecError("rewards", "would not be read: reward.epochs is 0, which ends the run with SFT");
        if (spec.Gates.MinRewardAccuracy is not null)
            yield return new SpecError("gates.minRewardAccuracy", message);
        if (spec.Gates.MinRewardGoldCorrelation is not null)
            yield return new SpecError("gates.minRewardGoldCorrelation", message);
        if (spec.Promotion.MinRewardGain is not null)
            yield return new SpecError("promotion.minRewardGain", message);
        if (spec.Guard.Metric != GuardMetric.None)
            yield return new SpecError("guard.metric", message);
    }

    private static IEnumerable<SpecError> Contradictions(FlanSpec flan)
    {
        const string path = "must be a plain relative path: no '..', no leading '/', no '\\'";
        if (!IsPlainRelativePath(flan.Templates))
            yield return new SpecError("data.flan.templates", path);
        foreach ((int index, FlanTaskSpec task) in flan.Tasks.Index())
        {
            if (!IsPlainRelativePath(task.File))
                yield return new SpecError($"data.flan.tasks[{index}].file", path);
            if (task.Labels.Count == 1 || task.Labels.Distinct(StringComparer.Ordinal).Count() < task.Labels.Count)
                yield return new SpecError($"data.flan.tasks[{index}].labels", "must be at least two different options, or none");
        }

        if (!flan.Tasks.Any(task => task.Cluster == flan.HeldOutCluster))
            yield return new SpecError("data.flan.heldOutCluster", $"'{flan.HeldOutCluster}' is the cluster of no task");
        if (!flan.Tasks.Any(task => task.Cluster != flan.HeldOutCluster))
            yield return new SpecError("data.flan.tasks", "are all of the held-out cluster: nothing is left to train on");
    }

    /// <summary>True for a path that stays below the folder it is relative to.</summary>
    public static bool IsPlainRelativePath(string path) =>
        path.Length is > 0 and <= 512
        && !path.Contains('\\', StringComparison.Ordinal)
        && !path.Any(char.IsControl)
        && path.Split('/').All(part => part is not ("" or "." or ".."));

    private static Dictionary<string, PropertyInfo> Properties(Type type) =>
        type.GetProperties(BindingFlags.Public | BindingFlags.Instance)
            .Where(property => property.Name != "EqualityContract")
            .ToDictionary(property => property.GetCustomAttribute<JsonPropertyNameAttribute>()?.Name ?? JsonNamingPolicy.CamelCase.ConvertName(property.Name));

    private static Type? ElementType(Type type) =>
        type != typeof(string) && type.IsGenericType && typeof(IEnumerable).IsAssignableFrom(type) ? type.GetGenericArguments()[0] : null;

    private static bool IsNullable(PropertyInfo property) =>
        Nullable.GetUnderlyingType(property.PropertyType) is not null
        || (!property.PropertyType.IsValueType && new NullabilityInfoContext().Create(property).WriteState == NullabilityState.Nullable);

    private static string Explain(ValidationAttribute rule, JsonElement value) => rule switch
    {
        RangeAttribute range => string.Create(
            System.Globalization.CultureInfo.InvariantCulture, $"must be from {range.Minimum} to {range.Maximum}, not {value.GetRawText()}"),
        MinLengthAttribute => "must not be empty",
        _ => $"{rule.ErrorMessage}, not {value.GetRawText()}",
    };

    private static string Describe(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "a list",
        JsonValueKind.Null => "null",
        _ => value.GetRawText(),
    };

    private static string Suggest(string name, IEnumerable<string> known)
    {
        string? nearest = known.Select(candidate => (candidate, distance: Distance(name, candidate)))
            .Where(pair => pair.distance <= Math.Max(2, name.Length / 3))
            .OrderBy(pair => pair.distance).Select(pair => pair.candidate).FirstOrDefault();
        return nearest is null ? $"Known: {string.Join(", ", known)}." : $"Did you mean '{nearest}'?";
    }

    /// <summary>Levenshtein distance without regard to case.</summary>
    private static int Distance(string a, string b)
    {
        int[] row = [.. Enumerable.Range(0, b.Length + 1)];
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int substituted = diagonal + (char.ToLowerInvariant(a[i - 1]) == char.ToLowerInvariant(b[j - 1]) ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.Min(substituted, Math.Min(row[j], row[j - 1]) + 1);
            }
        }

        return row[^1];
    }
}
