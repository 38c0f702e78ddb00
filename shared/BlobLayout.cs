using System.Globalization;

namespace Rlhf;

/// <summary>
/// Where things lie in the container. Objects are create-once unless marked CAS (compare-and-swap on the ETag) or said otherwise.
/// <code>
/// inputs/{sha256}/{name}                                  uploads: data files, base models
/// runs/{runId}/run.json                                   the spec; its creation is the start of the run
/// runs/{runId}/control.json                         CAS   what people last asked for: run, pause, cancel
/// runs/{runId}/data/...                                   normalised rows, validation report
/// runs/{runId}/report.json, report.html
/// runs/{runId}/stages/{stage}/job.json              CAS   the only authority over a stage's job
/// runs/{runId}/stages/{stage}/head.json             CAS   the newest checkpoint, and the fence that sealed it
/// runs/{runId}/stages/{stage}/attempts/{fence}-{attempt}/
///       hb.json                                           overwritten by its attempt alone
///       metrics.jsonl                                     appended by its attempt alone
///       ckpt/{step}/{part}, manifest.json                 parts first, manifest last
///       result.json
/// cas/{first two digits}/{sha256}                         finished artifacts by content
/// models/{name}/versions/{runId}.json; models/{name}/production.json  CAS
/// feedback/{name}/{id}.jsonl; feedback/{name}/watermark.json          CAS
/// </code>
/// </summary>
public static class BlobLayout
{
    public static string Input(string sha256, string name) => $"inputs/{sha256}/{name}";

    public static string Run(string runId) => $"runs/{runId}/";

    public static string RunDocument(string runId) => $"runs/{runId}/run.json";

    public static string Control(string runId) => $"runs/{runId}/control.json";

    public static string Data(string runId, string name) => $"runs/{runId}/data/{name}";

    public static string Report(string runId) => $"runs/{runId}/report.json";

    public static string ReportPage(string runId) => $"runs/{runId}/report.html";

    public static string Stage(string runId, string stage) => $"runs/{runId}/stages/{stage}/";

    public static string Job(string runId, string stage) => $"runs/{runId}/stages/{stage}/job.json";

    public static string Head(string runId, string stage) => $"runs/{runId}/stages/{stage}/head.json";

    public static string Attempts(string runId, string stage) => $"runs/{runId}/stages/{stage}/attempts/";

    public static string Attempt(string runId, string stage, int fence, string attemptId) => $"{Attempts(runId, stage)}{fence:D6}-{attemptId}/";

    /// <summary>The attempt that a blob of the stage belongs to.</summary>
    /// <returns>False where it belongs to none.</returns>
    public static bool TryParseAttempt(string runId, string stage, string path, out int fence, out string attemptId)
    {
        (fence, attemptId) = (0, string.Empty);
        string prefix = Attempts(runId, stage);
        if (!path.StartsWith(prefix, StringComparison.Ordinal))
            return false;
        string[] name = path[prefix.Length..].Split('/')[0].Split('-', 2);
        attemptId = name[^1];
        return name.Length == 2 && int.TryParse(name[0], NumberStyles.None, CultureInfo.InvariantCulture, out fence);
    }

    public static string Heartbeat(string attempt) => attempt + "hb.json";

    public static string Metrics(string attempt) => attempt + "metrics.jsonl";

    public static string Result(string attempt) => attempt + "result.json";

    public static string Checkpoint(string attempt, long step) => $"{attempt}ckpt/{step:D9}/";

    public static string CheckpointManifest(string attempt, long step) => Checkpoint(attempt, step) + "manifest.json";

    public static string Content(string sha256) => $"cas/{sha256[..2]}/{sha256}";

    public static string ModelVersion(string name, string runId) => $"models/{name}/versions/{runId}.json";

    public static string ProductionModel(string name) => $"models/{name}/production.json";

    public static string Feedback(string name) => $"feedback/{name}/";

    public static string FeedbackWatermark(string name) => $"feedback/{name}/watermark.json";
}
