using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>A reward endpoint on a free port of this machine. A real listener; each request is answered by the test's function.</summary>
internal sealed class RewardEndpoint : IAsyncDisposable
{
    private readonly HttpListener listener = new();
    private readonly Func<Request, Task<(int Status, string Body)>> answer;
    private readonly CancellationTokenSource stopping = new();
    private readonly Task loop;
    private int received;

    private RewardEndpoint(Func<Request, Task<(int Status, string Body)>> answer)
    {
        this.answer = answer;
        using (var probe = new TcpListener(IPAddress.Loopback, 0))
        {
            probe.Start();
            Url = $"http://127.0.0.1:{((IPEndPoint)probe.LocalEndpoint).Port}/score?key=abc";
        }

        listener.Prefixes.Add(Url[..(Url.LastIndexOf('/') + 1)]);
        listener.Start();
        loop = Task.Run(ServeAsync);
    }

    /// <summary>One request as it came.</summary>
    /// <param name="Number">From 0, in the order of arrival.</param>
    /// <param name="Headers">Its headers.</param>
    /// <param name="Rows">Its rows.</param>
    public sealed record Request(int Number, IReadOnlyDictionary<string, string> Headers, IReadOnlyList<JsonElement> Rows);

    public string Url { get; }

    public ConcurrentQueue<Request> Requests { get; } = [];

    /// <summary>An endpoint whose answer to a request is a status and a body.</summary>
    public static RewardEndpoint Start(Func<Request, Task<(int Status, string Body)>> answer) => new(answer);

    public static RewardEndpoint Start(Func<Request, (int Status, string Body)> answer) => new(request => Task.FromResult(answer(request)));

    /// <summary>An endpoint that scores each row by a function of its completion.</summary>
    public static RewardEndpoint Scoring(Func<string, double> score) => Start(request => (200, Rewards(request, score)));

    public static string Rewards(Request request, Func<string, double> score) => JsonSerializer.Serialize(
        new { rewards = request.Rows.Select(row => score(row.GetProperty("completion").GetString()!)) });

    public async ValueTask DisposeAsync()
    {
        await stopping.CancelAsync();
        listener.Stop();
        await loop;
        listener.Close();
        stopping.Dispose();
    }

    private async Task ServeAsync()
    {
        while (!stopping.IsCancellationRequested)
        {
            try
            {
                HttpListenerContext context = await listener.GetContextAsync();
                _ = Task.Run(() => AnswerAsync(context));
            }
            catch (Exception e) when (e is HttpListenerException or ObjectDisposedException)
            {
                return; // stopped
            }
        }
    }

    private async Task AnswerAsync(HttpListenerContext context)
    {
        using var body = new StreamReader(context.Request.InputStream);
        using JsonDocument document = JsonDocument.Parse(await body.ReadToEndAsync());
        var request = new Request(
            Interlocked.Increment(ref received) - 1,
            context.Request.Headers.AllKeys.ToDictionary(name => name!, name => context.Request.Headers[name]!),
            [.. document.RootElement.GetProperty("rows").EnumerateArray().Select(row => row.Clone())]);
        Requests.Enqueue(request);
        (int status, string text) = await answer(request);
        try
        {
            context.Response.StatusCode = status;
            if (status == 302)
                context.Response.RedirectLocation = Url.Replace("score", "elsewhere", StringComparison.Ordinal);
            await context.Response.OutputStream.WriteAsync(Encoding.UTF8.GetBytes(text));
            context.Response.Close();
        }
        catch (Exception e) when (e is HttpListenerException or ObjectDisposedException or IOException)
        {
            // The client has gone.
        }
    }
}
