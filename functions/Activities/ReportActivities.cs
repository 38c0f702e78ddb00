using System.Text.Json;
using Microsoft.Azure.Functions.Worker;
using Rlhf.Functions.Orchestrators;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Spec;
using Rlhf.Storage;

namespace Rlhf.Functions.Activities;

/// <summary>An ended stage, as the orchestrator recorded it.</summary>
/// <param name="Name">The stage.</param>
/// <param name="State">One of <see cref="StageStates"/>.</param>
/// <param name="Seconds">From its start to its end, on the orchestrator's clock.</param>
/// <param name="Metrics">Summary metrics.</param>
public sealed record StageClose(string Name, string State, double Seconds, IReadOnlyDictionary<string, double> Metrics);

/// <summary>What the report is made of, beside the blobs of the run.</summary>
public sealed record ReportRequest(
    string RunId,
    RunOutcome Outcome,
    IReadOnlyList<StageClose> Stages,
    IReadOnlyDictionary<string, ModelRef> Models,
    PromotionReport? Promotion,
    ContentFile? Evaluation,
    double TotalSeconds,
    double WaitingSeconds);

/// <summary>Asks by how much the aligned model's reward is above SFT's.</summary>
public sealed record RewardGainRequest(string RunId, PreferenceMethod Method, ContentFile? Evaluation);

/// <summary>By how much, and in which metric.</summary>
public sealed record RewardGain(string Metric, double Gain);

/// <summary>The run's report, composed from what the stages recorded.</summary>
public sealed class ReportActivities(IBlobStore blobs)
{
    /// <summary>Reads the gain that the promotion gate looks at: of the gold judge where there is one, else of the reward model.</summary>
    [Function(nameof(ReadRewardGain))]
    public async Task<RewardGain> ReadRewardGain([ActivityTrigger] RewardGainRequest request, CancellationToken cancellation)
    {
        EvaluationReport? evaluation = await EvaluationAsync(request.Evaluation, cancellation);
        return Gain(evaluation, Stages.Of(request.Method)) ?? throw new UnusableInputException(
            $"promotion.minRewardGain is set, but the evaluation of run '{request.RunId}' has no reward of both SFT and "
            + $"{Findings.Name(request.Method)} to compare.");
    }

    /// <summary>Writes <c>report.json</c> and <c>report.html</c>.</summary>
    [Function(nameof(WriteReport))]
    public async Task WriteReport([ActivityTrigger] ReportRequest request, CancellationToken cancellation)
    {
        RunReport report = await ComposeAsync(request, cancellation);
        await blobs.TryCreateAsync(BlobLayout.ReportPage(request.RunId), BinaryData.FromString(ReportPage.Render(report)), cancellation);
        var json = new BinaryData(JsonSerializer.SerializeToUtf8Bytes(report, RlhfJson.Indented));
        await blobs.TryCreateAsync(BlobLayout.Report(request.RunId), json, cancellation);
    }

    private async Task<RunReport> ComposeAsync(ReportRequest request, CancellationToken cancellation)
    {
        RunDocument run = (await blobs.ReadJsonAsync<RunDocument>(BlobLayout.RunDocument(request.RunId), cancellation))!;
        EvaluationReport? evaluation = await EvaluationAsync(request.Evaluation, cancellation);
        var stages = new List<StageReport>();
        var curve = new List<CurvePoint>();
        var lineage = new List<LineageEntry>();
        double trainer = 0;
        double overhead = 0;
        foreach (StageClose stage in request.Stages)
        {
            if (await JobAsync(request.RunId, stage.Name, cancellation) is not { } job)
            {
                stages.Add(new StageReport(stage.Name, stage.State, stage.Seconds, 0, 0, stage.Metrics, []));
                continue;
            }

            IReadOnlyList<JobResult> results = await ResultsAsync(job, cancellation);
            double seconds = await TrainerSecondsAsync(job, cancellation);
            trainer += seconds;
            overhead += results.Sum(result => result.OverheadSeconds);
            stages.Add(new StageReport(stage.Name, stage.State, stage.Seconds, seconds, AttemptsOf(job), stage.Metrics, Failures(job))
            {
                PeakMemoryBytes = results.Select(result => result.PeakMemoryBytes).DefaultIfEmpty().Max(),
            });
            lineage.AddRange(Lineage(stage.Name, job, results));
            if (stage.Name == Stages.Of(run.Spec.Method))
            {
                curve.AddRange(results
                    .Where(result => result.Outcome is JobState.SliceDone or JobState.Succeeded)
                    .Where(result => result.Metrics.ContainsKey(DecisionMetrics.Kl))
                    .Select(result => Point(stage.Name, result)));
            }
        }

        double active = Math.Max(request.TotalSeconds - request.WaitingSeconds, double.Epsilon);
        double compute = Math.Max(0, trainer - overhead);
        return new RunReport
        {
            RunId = request.RunId,
            State = request.Outcome.State,
            Summary = request.Outcome.Error ?? Findings.Summary(run.Spec.Method, evaluation, curve, request.Promotion),
            Spec = run.Spec,
            Stages = stages,
            Models = request.Models.ToDictionary(model => model.Key, model => new ModelReport(model.Value.Manifest, model.Value.Sha256)),
            Evaluation = evaluation,
            Curve = curve,
            Fits = GaoFit.All(
                run.Spec.Online() is null ? [] : curve,
                [.. (evaluation?.BestOfN ?? []).Where(point => point.Label != Stages.Of(run.Spec.Method))]),
            Data = await blobs.ReadJsonAsync<DataReport>(BlobLayout.Data(request.RunId, DataActivities.ReportName), cancellation),
            Promotion = request.Promotion,
            Time = new TimeReport(
                request.TotalSeconds, trainer, compute, request.WaitingSeconds, Math.Clamp(1 - (compute / active), 0, 1),
                trainer / 3600 * run.Spec.Budget.PricePerTrainerHour),
            Lineage = lineage,
        };
    }

    /// <summary>The stage's job. A document that was damaged after the stage had ended takes its attempts from the report, and no more.</summary>
    private Task<JobDocument?> JobAsync(string runId, string stage, CancellationToken cancellation) =>
        blobs.ReadIntactJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), cancellation);

    /// <summary>
    /// The results of the attempts that counted, oldest first. An outdated attempt may have left a result too: the job's history knows.
    /// </summary>
    private async Task<IReadOnlyList<JobResult>> ResultsAsync(JobDocument job, CancellationToken cancellation)
    {
        var results = new List<JobResult>();
        IEnumerable<AttemptRecord> claimed = job.History.Where(record => record.AttemptId is not null);
        foreach (AttemptRecord record in claimed.Where(record => !AttemptOutcomes.IsFromOutside(record.Outcome)))
        {
            string path = BlobLayout.Result(BlobLayout.Attempt(job.RunId, job.Stage, record.Fence, record.AttemptId!));
            if (await blobs.ReadIntactJsonAsync<JobResult>(path, cancellation) is { } result)
                results.Add(result);
        }

        if (job.Result is not null)
            results.Add(job.Result);
        return results;
    }

    private async Task<double> TrainerSecondsAsync(JobDocument job, CancellationToken cancellation)
    {
        double before = job.History.Sum(record => record.Seconds);
        if (job.Result is not null)
            return before + job.Result.Seconds;
        if (job.AttemptId is null)
            return before;
        string attempt = BlobLayout.Attempt(job.RunId, job.Stage, job.Fence, job.AttemptId);
        return before + ((await blobs.ReadJsonAsync<Heartbeat>(BlobLayout.Heartbeat(attempt), cancellation))?.Seconds ?? 0);
    }

    /// <summary>Attempts that a trainer claimed.</summary>
    private static int AttemptsOf(JobDocument job) =>
        job.History.Count(record => record.AttemptId is not null) + (job.AttemptId is null ? 0 : 1);

    private static IReadOnlyList<AttemptRecord> Failures(JobDocument job) =>
    [
        .. job.History.Where(record => record.Outcome is not ("sliceDone" or "paused")),
        .. job.Result is { Error: { } error }
            ? [new AttemptRecord(job.Fence, job.AttemptId, "failed", error.Message, job.Result.Seconds)]
            : Array.Empty<AttemptRecord>(),
    ];

    private static CurvePoint Point(string stage, JobResult slice) =>
        new(
            $"{stage} {slice.Step}", slice.Step, slice.Metrics.GetValueOrDefault(DecisionMetrics.Kl),
            slice.Metrics.GetValueOrDefault(DecisionMetrics.ProxyReward),
            Optional(slice, DecisionMetrics.GoldReward))
        {
            ProxyCi95 = Optional(slice, DecisionMetrics.ProxyReward + DecisionMetrics.Ci95),
            GoldCi95 = Optional(slice, DecisionMetrics.GoldReward + DecisionMetrics.Ci95),
        };

    private static double? Optional(JobResult slice, string metric) => slice.Metrics.TryGetValue(metric, out double value) ? value : null;

    private static IEnumerable<LineageEntry> Lineage(string stage, JobDocument job, IReadOnlyList<JobResult> results)
    {
        string[] inputs =
        [
            .. job.Spec.Models.OrderBy(model => model.Key, StringComparer.Ordinal).Select(model => model.Value.Sha256),
            .. job.Spec.Datasets.OrderBy(set => set.Key, StringComparer.Ordinal).Select(set => set.Value.Sha256),
        ];
        return results
            .SelectMany(result => result.Models.Values.Select(model => model.Sha256)
                .Concat(result.Artifacts.Values.Select(file => file.Sha256)))
            .Distinct().Select(output => new LineageEntry(output, stage, inputs));
    }

    private static RewardGain? Gain(EvaluationReport? evaluation, string aligned)
    {
        foreach (string metric in new[] { DecisionMetrics.GoldReward, DecisionMetrics.ProxyReward })
        {
            if (Findings.Find(evaluation, ModelRoles.Sft, metric) is { } sft && Findings.Find(evaluation, aligned, metric) is { } after)
                return new RewardGain(metric, after.Value - sft.Value);
        }

        return null;
    }

    private async Task<EvaluationReport?> EvaluationAsync(ContentFile? artifact, CancellationToken cancellation) =>
        artifact is null ? null : await blobs.ReadContentJsonAsync<EvaluationReport>(artifact.Sha256, cancellation);
}
