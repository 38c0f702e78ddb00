using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;
using Rlhf.Functions.Timers;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Storage;

namespace Rlhf.Functions.Http;

/// <summary>
/// Takes in what people preferred, for later training. A request's rows become one blob whose name says when it came and how many rows it
/// holds, so that counting what is new reads no rows.
/// </summary>
public sealed class Feedback(IBlobStore blobs, RetrainSettings settings, TimeProvider clock)
{
    private const int LargestBody = 8 * 1024 * 1024;

    /// <summary>
    /// JSON lines of preference rows; those that cannot be used come back with line and reason. <c>?model=</c> names the model.
    /// </summary>
    [Function(nameof(PostFeedback))]
    public async Task<IActionResult> PostFeedback(
        [HttpTrigger(AuthorizationLevel.Function, "post", Route = "feedback")] HttpRequest request, CancellationToken cancellation)
    {
        string model = request.Query["model"] is [{ Length: > 0 } name, ..] ? name : settings.Model ?? "default";
        if (!PlainNames.IsId(model))
        {
            return Answers.BadRequest(
                "The request is not valid", [new SpecError("model", "must be 1 to 48 lower-case letters, digits and hyphens")]);
        }

        string? body;
        try
        {
            body = await RequestBody.ReadAsync(request, LargestBody, cancellation);
        }
        catch (DecoderFallbackException)
        {
            return Answers.BadRequest("The feedback is not valid", [new SpecError("$", "is not UTF-8")]);
        }

        if (body is null)
        {
            return Answers.Problem(
                StatusCodes.Status413PayloadTooLarge, "Too much feedback",
                $"At most {LargestBody / 1024 / 1024} MiB at a time: send it in parts.");
        }

        if (string.IsNullOrWhiteSpace(body))
            return Answers.BadRequest("The feedback is not valid", [new SpecError("$", "is empty: send JSON lines of preference rows")]);

        var accepted = new StringBuilder();
        var rejected = new List<RejectedLine>();
        int rows = 0;
        foreach ((int index, string line) in body.Split('\n').Index())
        {
            if (string.IsNullOrWhiteSpace(line))
                continue;
            RowResult result = RowReader.ParsePreference(line.TrimEnd('\r'), index + 1);
            if (result.Row is null)
            {
                rejected.Add(new RejectedLine(index + 1, result.Reason!));
                continue;
            }

            accepted.Append(line.TrimEnd('\r')).Append('\n');
            rows++;
        }

        if (rows > 0)
            await StoreAsync(model, rows, new BinaryData(accepted.ToString()), cancellation);
        return Answers.Json(new { accepted = rows, rejected, model }, StatusCodes.Status202Accepted);
    }

    private async Task StoreAsync(string model, int rows, BinaryData content, CancellationToken cancellation)
    {
        string digest = Convert.ToHexStringLower(SHA256.HashData(content))[..8];
        string unique = Guid.NewGuid().ToString("N", CultureInfo.InvariantCulture)[..8];
        var blob = new FeedbackBlob(clock.GetUtcNow().Ticks, rows, $"{digest}-{unique}");
        await blobs.TryCreateAsync(BlobLayout.Feedback(model) + blob.Name, content, cancellation);
    }

    private sealed record RejectedLine(int Line, string Reason);
}

/// <summary>The name of a feedback blob: <c>{ticks}-{rows}-{suffix}.jsonl</c>, so that names sort by time.</summary>
internal sealed record FeedbackBlob(long Ticks, int Rows, string Suffix)
{
    /// <summary>Below <see cref="BlobLayout.Feedback"/>.</summary>
    public string Name => string.Create(CultureInfo.InvariantCulture, $"{Ticks:D19}-{Rows:D7}-{Suffix}.jsonl");

    /// <summary>Reads a name; null for other blobs of the folder.</summary>
    public static FeedbackBlob? Parse(string name)
    {
        string[] parts = name.Split('-', 3);
        return parts.Length == 3 && name.EndsWith(".jsonl", StringComparison.Ordinal)
            && long.TryParse(parts[0], CultureInfo.InvariantCulture, out long ticks)
            && int.TryParse(parts[1], CultureInfo.InvariantCulture, out int rows)
            ? new FeedbackBlob(ticks, rows, parts[2][..^".jsonl".Length])
            : null;
    }
}
