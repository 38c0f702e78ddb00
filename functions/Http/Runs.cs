using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask.Client;
using Rlhf.Functions.Orchestrators;
using Rlhf.Jobs;
using Rlhf.Spec;
using Rlhf.Storage;

namespace Rlhf.Functions.Http;

/// <summary>Starting, watching and steering runs.</summary>
public sealed class Runs(IBlobStore blobs, JobControl jobs, RunStart starts, RunReader reader)
{
    private const int LargestSpec = 256 * 1024;
    private const int LargestAnswer = 16 * 1024;

    /// <summary>Starts a run. The same id with the same spec is the same run.</summary>
    [Function(nameof(StartRun))]
    public async Task<IActionResult> StartRun(
        [HttpTrigger(AuthorizationLevel.Function, "post", Route = "runs")] HttpRequest request,
        [DurableClient] DurableTaskClient client, CancellationToken cancellation)
    {
        RunSpec spec;
        try
        {
            if (await RequestBody.ReadAsync(request, LargestSpec, cancellation) is not { } body)
            {
                return Answers.Problem(
                    StatusCodes.Status413PayloadTooLarge, "Spec too large", $"A run spec has at most {LargestSpec / 1024} KiB.");
            }

            spec = SpecReader.ReadStored(body);
        }
        catch (InvalidSpecException e)
        {
            return Answers.BadRequest("The run spec is not valid", e.Errors);
        }
        catch (DecoderFallbackException)
        {
            return Answers.BadRequest("The run spec is not valid", [new SpecError("$", "is not UTF-8")]);
        }

        string runId = spec.RunId ?? starts.NewId(spec.Name);
        switch (await starts.StartAsync(client, runId, spec, cancellation))
        {
            case StartOutcome.Conflict:
                return Answers.Conflict($"There is a run '{runId}' with another spec. Choose another runId, or leave it out to get one.");
            case StartOutcome.Existed:
                return Answers.Json(Started(runId));
            default:
                request.HttpContext.Response.Headers.Location = StatusUrl(runId);
                return Answers.Json(Started(runId), StatusCodes.Status202Accepted);
        }
    }

    /// <summary>All runs, the newest first.</summary>
    [Function(nameof(ListRuns))]
    public async Task<IActionResult> ListRuns(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "runs")] HttpRequest request,
        [DurableClient] DurableTaskClient client, CancellationToken cancellation) =>
        Answers.Json(await reader.ListAsync(client, cancellation));

    /// <summary>One run: state, stage, progress, newest metrics, attempts, cost.</summary>
    [Function(nameof(GetRun))]
    public async Task<IActionResult> GetRun(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "runs/{id}")] HttpRequest request, string id,
        [DurableClient] DurableTaskClient client, CancellationToken cancellation)
    {
        if (await FindAsync(id, cancellation) is not { } run)
            return Answers.NoSuchRun(id);
        await starts.CompleteAsync(client, run, cancellation);
        return Answers.Json(await reader.ViewAsync(client, run, cancellation));
    }

    /// <summary>The metric rows of all stages, or of one, as JSON lines.</summary>
    [Function(nameof(GetMetrics))]
    public async Task<IActionResult> GetMetrics(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "runs/{id}/metrics")] HttpRequest request, string id,
        CancellationToken cancellation)
    {
        string? stage = request.Query["stage"];
        if (await FindAsync(id, cancellation) is not { } run)
            return Answers.NoSuchRun(id);
        IReadOnlyList<string> stages = Stages.All(run.Spec);
        if (stage is { Length: > 0 } && !stages.Contains(stage))
        {
            return Answers.BadRequest(
                "The request is not valid", [new SpecError("stage", $"must be one of {string.Join(", ", stages)}")]);
        }

        return new ContentResult
        {
            Content = await reader.MetricsAsync(id, stage is { Length: > 0 } ? [stage] : stages, cancellation),
            ContentType = "application/x-ndjson; charset=utf-8",
        };
    }

    /// <summary>The final report: JSON, or the page where the client prefers HTML.</summary>
    [Function(nameof(GetReport))]
    public async Task<IActionResult> GetReport(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "runs/{id}/report")] HttpRequest request, string id,
        CancellationToken cancellation)
    {
        if (await FindAsync(id, cancellation) is null)
            return Answers.NoSuchRun(id);
        bool html = PrefersHtml(request);
        StoredBlob? report = await blobs.ReadAsync(html ? BlobLayout.ReportPage(id) : BlobLayout.Report(id), cancellation);
        return report is null
            ? Answers.Problem(
                StatusCodes.Status404NotFound, "No report yet",
                $"The report of run '{id}' is written when the run ends. GET {StatusUrl(id)} shows how far it is.")
            : new FileContentResult(report.Content.ToArray(), html ? "text/html; charset=utf-8" : "application/json; charset=utf-8");
    }

    /// <summary>Stops the run for good; it reaches the trainer within a heartbeat and a step.</summary>
    [Function(nameof(CancelRun))]
    public Task<IActionResult> CancelRun(
        [HttpTrigger(AuthorizationLevel.Function, "post", Route = "runs/{id}/cancel")] HttpRequest request, string id,
        [DurableClient] DurableTaskClient client, CancellationToken cancellation) =>
        AskAsync(client, id, DesiredState.Cancel, cancellation);

    /// <summary>Stops the run's trainer at its next step, to be taken up again.</summary>
    [Function(nameof(PauseRun))]
    public Task<IActionResult> PauseRun(
        [HttpTrigger(AuthorizationLevel.Function, "post", Route = "runs/{id}/pause")] HttpRequest request, string id,
        [DurableClient] DurableTaskClient client, CancellationToken cancellation) => AskAsync(client, id, DesiredState.Pause, cancellation);

    /// <summary>Takes up a paused run.</summary>
    [Function(nameof(ResumeRun))]
    public Task<IActionResult> ResumeRun(
        [HttpTrigger(AuthorizationLevel.Function, "post", Route = "runs/{id}/resume")] HttpRequest request, string id,
        [DurableClient] DurableTaskClient client, CancellationToken cancellation) => AskAsync(client, id, DesiredState.Run, cancellation);

    /// <summary>Answers the promotion gate.</summary>
    [Function(nameof(ApproveRun))]
    public async Task<IActionResult> ApproveRun(
        [HttpTrigger(AuthorizationLevel.Function, "post", Route = "runs/{id}/approval")] HttpRequest request, string id,
        [DurableClient] DurableTaskClient client, CancellationToken cancellation)
    {
        string? body;
        try
        {
            body = await RequestBody.ReadAsync(request, LargestAnswer, cancellation);
        }
        catch (DecoderFallbackException)
        {
            return Answers.BadRequest("The approval is not valid", [new SpecError("$", "is not UTF-8")]);
        }

        if (body is null)
        {
            return Answers.Problem(
                StatusCodes.Status413PayloadTooLarge, "Approval too large", $"An approval has at most {LargestAnswer / 1024} KiB.");
        }

        (Approval? approval, IReadOnlyList<SpecError> errors) = ReadApproval(body);
        if (approval is null)
            return Answers.BadRequest("The approval is not valid", errors);
        if (await FindAsync(id, cancellation) is not { } run)
            return Answers.NoSuchRun(id);
        RunView view = await reader.ViewAsync(client, run, cancellation);
        if (view.State != RunStates.WaitingForApproval)
            return Answers.Conflict($"Run '{id}' does not wait for approval: its state is '{view.State}'.");
        return await client.TryRaiseAsync(id, RlhfRun.ApprovalEvent, approval, cancellation)
            ? new StatusCodeResult(StatusCodes.Status202Accepted)
            : Answers.Conflict($"Run '{id}' does not wait for approval any more: it is over.");
    }

    private static string StatusUrl(string runId) => $"/api/runs/{runId}";

    private static object Started(string runId) => new
    {
        runId,
        statusUrl = StatusUrl(runId),
        metricsUrl = $"{StatusUrl(runId)}/metrics",
        reportUrl = $"{StatusUrl(runId)}/report",
        cancelUrl = $"{StatusUrl(runId)}/cancel",
    };

    /// <summary>True when the client names HTML and does not rank JSON above it.</summary>
    private static bool PrefersHtml(HttpRequest request)
    {
        IList<Microsoft.Net.Http.Headers.MediaTypeHeaderValue> accept = request.GetTypedHeaders().Accept;
        double Quality(string type) =>
            accept.Where(entry => entry.MediaType == type).Select(entry => entry.Quality ?? 1).DefaultIfEmpty(0).Max();
        return Quality("text/html") > Quality("application/json");
    }

    private static (Approval? Approval, IReadOnlyList<SpecError> Errors) ReadApproval(string body)
    {
        var errors = new List<SpecError>();
        try
        {
            using JsonDocument document = JsonDocument.Parse(body);
            if (document.RootElement.ValueKind != JsonValueKind.Object)
                return (null, [new SpecError("$", "must be an object with 'approved', and if you like 'by' and 'note'")]);
            bool? approved = null;
            string? by = null;
            string? note = null;
            foreach (JsonProperty member in document.RootElement.EnumerateObject())
            {
                switch (member.Name, member.Value.ValueKind)
                {
                    case ("approved", JsonValueKind.True or JsonValueKind.False):
                        approved = member.Value.GetBoolean();
                        break;
                    case ("by", JsonValueKind.String):
                        by = member.Value.GetString();
                        break;
                    case ("note", JsonValueKind.String):
                        note = member.Value.GetString();
                        break;
                    case ("by" or "note", JsonValueKind.Null):
                        break;
                    default:
                        errors.Add(new SpecError(member.Name, member.Name switch
                        {
                            "approved" => "must be true or false",
                            "by" or "note" => "must be a string",
                            _ => "is not a field of an approval. Known: approved, by, note.",
                        }));
                        break;
                }
            }

            if (approved is null && errors.TrueForAll(error => error.Field != "approved"))
                errors.Add(new SpecError("approved", "is missing"));
            return errors.Count > 0 ? (null, errors) : (new Approval(approved!.Value, by, note), []);
        }
        catch (JsonException e)
        {
            return (null, [new SpecError("$", $"is not valid JSON: {e.Message}")]);
        }
        catch (InvalidOperationException)
        {
            // JsonElement.GetString on an escaped half of a surrogate pair.
            return (null, [new SpecError("$", "holds half a character (an unpaired surrogate such as \\ud800)")]);
        }
    }

    private async Task<RunDocument?> FindAsync(string id, CancellationToken cancellation) =>
        PlainNames.IsId(id) ? await blobs.ReadJsonAsync<RunDocument>(BlobLayout.RunDocument(id), cancellation) : null;

    /// <summary>
    /// Writes down what is wanted, tells the trainer at once, and wakes the orchestrations, which would see it at their next look anyway.
    /// </summary>
    private async Task<IActionResult> AskAsync(DurableTaskClient client, string id, DesiredState desired, CancellationToken cancellation)
    {
        if (await FindAsync(id, cancellation) is not { } run)
            return Answers.NoSuchRun(id);
        RunView view = await reader.ViewAsync(client, run, cancellation);
        if (RunStates.IsFinal(view.State))
            return Answers.Conflict($"Run '{id}' is over: its state is '{view.State}'.");

        bool wasPaused = false;
        RunControl? control = await blobs.UpdateJsonAsync<RunControl>(
            BlobLayout.Control(id),
            present =>
            {
                wasPaused = present?.Desired == DesiredState.Pause;
                return present?.Desired == desired || present?.Desired == DesiredState.Cancel || (desired == DesiredState.Run && !wasPaused)
                    ? present
                    : new RunControl(desired);
            },
            cancellation);
        if (control?.Desired == DesiredState.Cancel && desired != DesiredState.Cancel)
            return Answers.Conflict($"Run '{id}' has been cancelled.");
        if (desired == DesiredState.Run && !wasPaused)
            return Answers.Conflict($"Run '{id}' is not paused.");

        foreach (string stage in Stages.All(run.Spec))
        {
            try
            {
                await jobs.RequestAsync(id, stage, desired, cancellation);
            }
            catch (CorruptBlobException)
            {
                // Nobody works by a damaged job document; the stage's orchestration reads what was asked before it mends it.
            }

            await client.TryRaiseAsync($"{id}:{stage}", JobDriver.ChangedEvent, JobDriver.PeoplesHint, cancellation);
        }

        await client.TryRaiseAsync(id, JobDriver.ChangedEvent, JobDriver.PeoplesHint, cancellation);
        return new StatusCodeResult(StatusCodes.Status202Accepted);
    }
}
