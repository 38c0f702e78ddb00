using System.Collections.Concurrent;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.DurableTask.Client;

namespace Rlhf.Local.Tests;

/// <summary>What the trigger functions of one host have seen.</summary>
public sealed class TriggerProbe
{
    public ConcurrentQueue<TimerInfo> Ticks { get; } = new();
    public ConcurrentQueue<string> Messages { get; } = new();
}

public sealed class TriggerFunctions(TriggerProbe probe)
{
    [Function("StartChain")]
    public static async Task<IActionResult> StartAsync(
        [HttpTrigger(AuthorizationLevel.Function, "post", Route = "chains/{id}/{length:int}")] HttpRequest request,
        string id, int length, [DurableClient] DurableTaskClient client, FunctionContext context, CancellationToken cancellation)
    {
        await client.ScheduleNewOrchestrationInstanceAsync("Chain", length, new StartOrchestrationOptions(id), cancellation);
        return new AcceptedResult($"{request.Path}", new { RunId = id, Function = context.FunctionDefinition.Name });
    }

    [Function("GetChain")]
    public static async Task<IActionResult> GetAsync(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "chains/{id}")] HttpRequest request, string id,
        [DurableClient] DurableTaskClient client) =>
        await client.GetInstanceAsync(id, getInputsAndOutputs: true) is { } found
            ? new OkObjectResult(new { found.InstanceId, State = found.RuntimeStatus.ToString() })
            : new NotFoundObjectResult(new ProblemDetails { Title = "no chain", Detail = id, Status = 404 });

    [Function("Open")]
    public static IActionResult Open([HttpTrigger(AuthorizationLevel.Anonymous, "get")] HttpRequest request) =>
        new ContentResult { Content = "open", ContentType = "text/plain" };

    [Function("Breaks")]
    public static IActionResult Breaks([HttpTrigger(AuthorizationLevel.Anonymous, "get", Route = "breaks")] HttpRequest request) =>
        throw new InvalidOperationException("secret detail");

    [Function("TimerProbe")]
    public void Tick([TimerTrigger("%Probe__Schedule%")] TimerInfo timer) => probe.Ticks.Enqueue(timer);

    [Function("QueueProbe")]
    public void OnMessage([QueueTrigger("probe-messages", Connection = "AzureWebJobsStorage")] string message)
    {
        probe.Messages.Enqueue(message);
        if (message == "poison") throw new InvalidOperationException("cannot be handled");
    }
}
