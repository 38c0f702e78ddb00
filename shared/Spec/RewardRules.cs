namespace Rlhf.Spec;

/// <summary>What must hold among the fields of <see cref="RunSpec.Rewards"/>.</summary>
internal static class RewardRules
{
    private static readonly string[] ReservedHeaders =
        ["host", "connection", "content-length", "content-type", "transfer-encoding", "expect", "idempotency-key"];

    /// <summary>Parameters of an address that hold a secret, of a shared access signature for one; a spec is stored, recorded and reported.</summary>
    private static readonly HashSet<string> SecretParameters = new(StringComparer.OrdinalIgnoreCase)
    {
        "sig", "code", "key", "apikey", "api_key", "api-key", "subscription-key", "token", "access_token", "auth", "secret", "client_secret",
        "password", "pwd",
    };

    /// <summary>The faults of a spec's reward sources.</summary>
    public static IEnumerable<SpecError> Errors(RunSpec spec)
    {
        foreach ((int index, RewardSourceSpec source) in spec.Rewards.Index())
        {
            string field = $"rewards[{index}]";
            foreach ((string name, RewardSourceKind kind, bool given) in FieldsOf(source))
            {
                if (given && kind != source.Source)
                    yield return new SpecError($"{field}.{name}", $"is a field of '{Name(kind)}', not of '{Name(source.Source)}'; remove it");
            }

            if (source.Weight == 0)
                yield return new SpecError($"{field}.weight", "must not be 0: the source would have no effect");
            if (spec.Rewards.Take(index).Any(other => other.MetricName() == source.MetricName()))
                yield return new SpecError($"{field}.name", $"must be given and differ: there is a source '{source.MetricName()}' before it");
            foreach (SpecError error in OfKind(spec, source, field))
                yield return error;
        }
    }

    private static IEnumerable<SpecError> OfKind(RunSpec spec, RewardSourceSpec source, string field)
    {
        switch (source.Source)
        {
            case RewardSourceKind.Model when spec.Rewards.Count(other => other.Source == RewardSourceKind.Model) > 1:
                yield return new SpecError($"{field}.source", "'model' may be used once: a run has one reward model");
                break;
            case RewardSourceKind.Regex when PatternFault(source.Pattern) is { } fault:
                yield return new SpecError($"{field}.pattern", fault);
                break;
            case RewardSourceKind.Length when source.TargetTokens is not null && (source.MinTokens ?? source.MaxTokens) is not null:
                yield return new SpecError($"{field}.targetTokens", "excludes minTokens and maxTokens");
                break;
            case RewardSourceKind.Length when (source.TargetTokens ?? source.MinTokens ?? source.MaxTokens) is null:
                yield return new SpecError(field, "needs targetTokens, or minTokens or maxTokens or both");
                break;
            case RewardSourceKind.Length when source.MinTokens > source.MaxTokens:
                yield return new SpecError($"{field}.minTokens", $"must be at most maxTokens ({source.MaxTokens})");
                break;
            case RewardSourceKind.ExactMatch when spec.Data.World is not null:
                yield return new SpecError($"{field}.source", "'exactMatch' needs reference answers, and the sample world's prompts have none; use data files");
                break;
            case RewardSourceKind.ExactMatch when spec.Data.Prompts.Count == 0:
                yield return new SpecError("data.prompts", $"is empty: {field} ('exactMatch') compares with the answers of these rows");
                break;
            case RewardSourceKind.Http:
                foreach (SpecError error in OfEndpoint(spec, source, field))
                    yield return error;
                break;
        }
    }

    private static IEnumerable<SpecError> OfEndpoint(RunSpec spec, RewardSourceSpec source, string field)
    {
        if (source.Url is null)
            yield return new SpecError($"{field}.url", "is missing");
        else if (!Uri.TryCreate(source.Url, UriKind.Absolute, out Uri? url) || url.Scheme is not ("http" or "https") || url.Host.Length == 0)
            yield return new SpecError($"{field}.url", "must be an http or https address, such as https://rewards.example/score");
        else if (url.UserInfo.Length > 0)
            yield return new SpecError($"{field}.url", "must not hold a user name or password; name a header and headerVariable instead");
        else if (SecretParameter(url) is { } parameter)
            yield return new SpecError($"{field}.url", $"must not hold a secret ('{parameter}'), since the spec is stored and reported; name a header and headerVariable instead");
        else if (url.Fragment.Length > 0)
            yield return new SpecError($"{field}.url", "must not have a part after '#': it would not be sent");
        double longest = LongestCallSeconds(source);
        if (longest >= spec.Trainer.WedgedAfterSeconds)
        {
            yield return new SpecError(
                $"{field}.timeoutSeconds",
                $"and retries let one call take {longest:0} s, by which the trainer counts as wedged (trainer.wedgedAfterSeconds); lower them, or raise that");
        }

        if (source.Header is null != source.HeaderVariable is null)
            yield return new SpecError($"{field}.header", "and headerVariable belong together: the header's name, and where its value is");
        if (source.Header is { } header && ReservedHeaders.Contains(header.ToLowerInvariant()))
            yield return new SpecError($"{field}.header", $"must not be {header}: the call sets it");
    }

    private static string? SecretParameter(Uri url) => url.Query.TrimStart('?').Split('&')
        .Select(parameter => Uri.UnescapeDataString(parameter.Split('=')[0])).FirstOrDefault(SecretParameters.Contains);

    /// <summary>What a call takes when every try runs into its time limit, with the pauses between them.</summary>
    private static double LongestCallSeconds(RewardSourceSpec source)
    {
        int retries = source.Retries ?? RewardSourceSpec.DefaultRetries;
        double pauses = Enumerable.Range(0, retries).Sum(retry => RewardSourceSpec.PauseBefore(retry).TotalSeconds);
        return (retries + 1) * (source.TimeoutSeconds ?? RewardSourceSpec.DefaultTimeoutSeconds) + pauses;
    }

    private static string? PatternFault(string? pattern)
    {
        if (pattern is null)
            return "is missing";
        if (pattern.Length > RewardPattern.MaxLength)
            return $"must have at most {RewardPattern.MaxLength} characters";
        try
        {
            RewardPattern.Compile(pattern);
            return null;
        }
        catch (NotSupportedException)
        {
            return "needs backtracking, which could take for ever on some answers: do without look-around, back references, atomic groups "
                + "and conditionals, and with smaller repetition counts";
        }
        catch (ArgumentException e)
        {
            return $"is no regular expression: {e.Message}";
        }
    }

    private static IEnumerable<(string Name, RewardSourceKind Kind, bool Given)> FieldsOf(RewardSourceSpec source) =>
    [
        ("pattern", RewardSourceKind.Regex, source.Pattern is not null),
        ("minTokens", RewardSourceKind.Length, source.MinTokens is not null),
        ("maxTokens", RewardSourceKind.Length, source.MaxTokens is not null),
        ("targetTokens", RewardSourceKind.Length, source.TargetTokens is not null),
        ("ignoreCase", RewardSourceKind.ExactMatch, source.IgnoreCase is not null),
        ("url", RewardSourceKind.Http, source.Url is not null),
        ("timeoutSeconds", RewardSourceKind.Http, source.TimeoutSeconds is not null),
        ("retries", RewardSourceKind.Http, source.Retries is not null),
        ("rowsPerCall", RewardSourceKind.Http, source.RowsPerCall is not null),
        ("header", RewardSourceKind.Http, source.Header is not null),
        ("headerVariable", RewardSourceKind.Http, source.HeaderVariable is not null),
    ];

    private static string Name(RewardSourceKind kind) => System.Text.Json.JsonNamingPolicy.CamelCase.ConvertName(kind.ToString());
}
