using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text.Json;
using Rlhf.Spec;
using Rlhf.Trainer.Data;

namespace Rlhf.Trainer.Methods.RewardSources;

/// <summary>An endpoint that scores answers gave none, however often it was asked; another attempt may find it up again.</summary>
public sealed class RewardEndpointException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>
/// An HTTP endpoint that scores answers: <c>POST {"rows": [{"prompt", "completion", "reference"?}]}</c> is answered by
/// <c>{"rewards": [number]}</c>, one per row in their order. The contract, with what is tried again and what is an error, is in
/// docs/rewards.md.
/// </summary>
internal sealed class HttpReward : IRewardSource
{
    private const long LongestAnswer = 16 << 20; // bytes

    private readonly RewardSourceSpec spec;
    private readonly Uri url;
    private readonly string runId;
    private readonly Func<int, TimeSpan> pauseBefore;
    private readonly HttpClient client;

    /// <summary>The source; no request is sent yet.</summary>
    /// <param name="spec">The source's settings.</param>
    /// <param name="runId">The run.</param>
    /// <param name="secret">The value of the spec's header; null where it names none.</param>
    /// <param name="pauseBefore">The pause before a retry, counted from 0.</param>
    public HttpReward(RewardSourceSpec spec, string runId, string? secret, Func<int, TimeSpan> pauseBefore)
    {
        this.spec = spec;
        this.runId = runId;
        this.pauseBefore = pauseBefore;
        url = new Uri(spec.Url!);
        // A redirect would carry prompts, and the secret, to a place that the spec does not name.
        client = new HttpClient(new SocketsHttpHandler { AllowAutoRedirect = false, UseCookies = false })
        {
            Timeout = Timeout.InfiniteTimeSpan,
            MaxResponseContentBufferSize = LongestAnswer,
        };
        if (secret is not null)
            client.DefaultRequestHeaders.TryAddWithoutValidation(spec.Header!, secret);
    }

    /// <summary>The source with its secret from the trainer's environment.</summary>
    /// <exception cref="JobInputException">The environment variable is not set, or cannot be a header's value.</exception>
    public static HttpReward Create(RewardSourceSpec spec, string runId, Func<string, string?> environment)
    {
        string? secret = null;
        if (spec.HeaderVariable is { } variable)
        {
            secret = environment(variable);
            if (string.IsNullOrWhiteSpace(secret) || secret.Any(c => !char.IsAscii(c) || char.IsControl(c)))
            {
                throw new JobInputException(
                    $"The reward '{spec.MetricName()}' takes the header '{spec.Header}' from the trainer's environment variable {variable}, "
                    + $"which {(string.IsNullOrWhiteSpace(secret) ? "is not set" : "holds more than plain ASCII characters")}.",
                    $"Set {variable} where the trainer starts.");
            }
        }

        return new HttpReward(spec, runId, secret, RewardSourceSpec.PauseBefore);
    }

    /// <summary>The source and its endpoint for messages; the query may hold a key and is left out.</summary>
    private string Endpoint => $"The reward endpoint '{spec.MetricName()}' ({url.GetLeftPart(UriPartial.Path)})";

    public float[] Score(AnswerBatch answers, CancellationToken cancellation)
    {
        var scores = new List<float>(answers.Episodes.Count);
        foreach ((int chunk, int[] rows) in Enumerable.Range(0, answers.Episodes.Count).Chunk(spec.RowsPerCall ?? RewardSourceSpec.DefaultRowsPerCall).Index())
        {
            byte[] body = JsonSerializer.SerializeToUtf8Bytes(
                new
                {
                    Rows = rows.Select(i => new Row(answers.Prompts[i], answers.Completions[i], answers.Episodes[i].Reference)),
                },
                RlhfJson.Compact);
            // The same rows on the same occasion have the same key, whichever attempt asks.
            string key = $"{runId}/{answers.Occasion}/{spec.MetricName()}/{chunk}-{Convert.ToHexStringLower(SHA256.HashData(body))[..16]}";
            // This thread computes and has nothing to do meanwhile; the heartbeat has a thread of its own.
            scores.AddRange(AskAsync(body, key, rows.Length, cancellation).GetAwaiter().GetResult());
        }

        return [.. scores];
    }

    public void Dispose() => client.Dispose();

    private async Task<float[]> AskAsync(byte[] body, string key, int rows, CancellationToken cancellation)
    {
        int retries = spec.Retries ?? RewardSourceSpec.DefaultRetries;
        for (int attempt = 0; ; attempt++)
        {
            (float[]? scores, string fault, Exception? cause) = await TryAskAsync(body, key, rows, cancellation);
            if (scores is not null)
                return scores;
            if (attempt == retries)
            {
                throw new RewardEndpointException(
                    $"{Endpoint} gave no scores in {attempt + 1} tries; the last time it {fault}. Request: {key}.", cause);
            }

            await Task.Delay(pauseBefore(attempt), cancellation);
        }
    }

    /// <summary>One request. No scores means that it may be tried again, and says why.</summary>
    private async Task<(float[]? Scores, string Fault, Exception? Cause)> TryAskAsync(
        byte[] body, string key, int rows, CancellationToken cancellation)
    {
        double seconds = spec.TimeoutSeconds ?? RewardSourceSpec.DefaultTimeoutSeconds;
        using var timeLimit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        timeLimit.CancelAfter(TimeSpan.FromSeconds(seconds));
        try
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, url) { Content = new ByteArrayContent(body) };
            request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json", "utf-8");
            request.Headers.TryAddWithoutValidation("Idempotency-Key", key);
            using HttpResponseMessage response = await client.SendAsync(request, timeLimit.Token);
            int status = (int)response.StatusCode;
            if (status >= 500 || response.StatusCode is HttpStatusCode.RequestTimeout or HttpStatusCode.TooManyRequests)
                return (null, $"answered {status}", null);
            if (status != 200)
                throw Refused($"answered {status} to request {key}", "Look into the endpoint's log, and check rewards[].url and its header.");
            return (Parse(await response.Content.ReadAsByteArrayAsync(timeLimit.Token), rows, key), "", null);
        }
        catch (OperationCanceledException e) when (!cancellation.IsCancellationRequested)
        {
            return (null, string.Create(CultureInfo.InvariantCulture, $"did not answer within {seconds} s"), e);
        }
        catch (HttpRequestException e) when (e.HttpRequestError == HttpRequestError.ConfigurationLimitExceeded)
        {
            throw Refused($"answered request {key} with more than {LongestAnswer >> 20} MiB", "It must answer with the rewards alone.", e);
        }
        catch (HttpRequestException e)
        {
            return (null, $"could not be reached or broke off ({e.HttpRequestError})", e);
        }
    }

    private float[] Parse(byte[] content, int rows, string key)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(content);
            if (document.RootElement.ValueKind != JsonValueKind.Object
                || !document.RootElement.TryGetProperty("rewards", out JsonElement rewards) || rewards.ValueKind != JsonValueKind.Array)
            {
                throw Wrong("has no list 'rewards'");
            }

            if (rewards.GetArrayLength() != rows)
                throw Wrong($"has {rewards.GetArrayLength()} rewards for {rows} rows");
            return [.. rewards.EnumerateArray().Select((reward, i) =>
                reward.ValueKind == JsonValueKind.Number && reward.TryGetSingle(out float score) && float.IsFinite(score)
                    ? score
                    : throw Wrong($"has no finite number as rewards[{i}]"))];
        }
        catch (JsonException e)
        {
            throw Wrong("is no JSON", e);
        }

        JobInputException Wrong(string what, Exception? inner = null) => Refused(
            $"gave an answer that {what}; request {key}",
            "It must answer {\"rewards\": [...]} with one finite number for each row, in their order (docs/rewards.md).", inner);
    }

    private JobInputException Refused(string what, string remedy, Exception? inner = null) => new($"{Endpoint} {what}.", remedy, inner);

    private sealed record Row(string Prompt, string Completion, string? Reference);
}
