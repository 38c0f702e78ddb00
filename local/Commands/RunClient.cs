using System.Net;
using System.Text;
using System.Text.Json;
using Rlhf.Spec;

namespace Rlhf.Local.Commands;

/// <summary>The run API as a person's tools see it: plain HTTP.</summary>
internal sealed class RunClient : IDisposable
{
    private readonly HttpClient http;

    /// <param name="baseUrl">The host's root.</param>
    /// <param name="key">The functions key; null where none is set.</param>
    public RunClient(Uri baseUrl, string? key)
    {
        http = new HttpClient { BaseAddress = new Uri(baseUrl, "api/"), Timeout = TimeSpan.FromSeconds(100) };
        if (key is not null)
            http.DefaultRequestHeaders.Add("x-functions-key", key);
    }

    /// <summary>Starts the run, or finds it started.</summary>
    /// <returns>True if it is new.</returns>
    /// <exception cref="UserErrorException">The spec was refused, or the id belongs to another spec.</exception>
    public async Task<bool> StartAsync(RunSpec spec, CancellationToken cancellation)
    {
        using var body = new StringContent(JsonSerializer.Serialize(spec, RlhfJson.Compact), Encoding.UTF8, "application/json");
        using HttpResponseMessage answer = await http.PostAsync("runs", body, cancellation);
        string text = await answer.Content.ReadAsStringAsync(cancellation);
        return answer.StatusCode switch
        {
            HttpStatusCode.Accepted => true,
            HttpStatusCode.OK => false,
            HttpStatusCode.Conflict => throw new UserErrorException(
                $"The run '{spec.RunId}' was started before with another spec or other data. Choose another id with --run-id, or another --state."),
            _ => throw new UserErrorException($"The run was refused ({(int)answer.StatusCode}): {text}"),
        };
    }

    /// <summary>How the run stands; null while the API does not know it.</summary>
    public async Task<RunView?> GetAsync(string runId, CancellationToken cancellation)
    {
        using HttpResponseMessage answer = await http.GetAsync($"runs/{runId}", cancellation);
        if (answer.StatusCode == HttpStatusCode.NotFound)
            return null;
        answer.EnsureSuccessStatusCode();
        await using Stream body = await answer.Content.ReadAsStreamAsync(cancellation);
        return await JsonSerializer.DeserializeAsync<RunView>(body, RlhfJson.Compact, cancellation);
    }

    /// <summary>The report as JSON or as a page; null while there is none.</summary>
    public async Task<string?> GetReportAsync(string runId, string mediaType, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, $"runs/{runId}/report") { Headers = { { "Accept", mediaType } } };
        using HttpResponseMessage answer = await http.SendAsync(request, cancellation);
        return answer.IsSuccessStatusCode ? await answer.Content.ReadAsStringAsync(cancellation) : null;
    }

    /// <summary>The metric rows of a stage, as JSON lines; empty where the stage wrote none.</summary>
    public async Task<string> GetMetricsAsync(string runId, string stage, CancellationToken cancellation)
    {
        using HttpResponseMessage answer = await http.GetAsync($"runs/{runId}/metrics?stage={stage}", cancellation);
        return answer.IsSuccessStatusCode ? await answer.Content.ReadAsStringAsync(cancellation) : string.Empty;
    }

    public void Dispose() => http.Dispose();
}
