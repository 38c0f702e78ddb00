using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Microsoft.Extensions.Logging;
using Rlhf.Functions.Activities;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Rows;
using Rlhf.Spec;

namespace Rlhf.Functions.Orchestrators;

/// <summary>The input of <see cref="RlhfRun"/>: the spec itself lies in <c>run.json</c>.</summary>
public sealed record RunInput(string RunId);

/// <summary>The output of <see cref="RlhfRun"/>.</summary>
/// <param name="State">One of <see cref="RunStates"/>: succeeded, failed or cancelled.</param>
/// <param name="Error">Why it failed, and what to do; or why it was cancelled.</param>
public sealed record RunOutcome(string State, string? Error);

/// <summary>The answer to the promotion gate.</summary>
public sealed record Approval(bool Approved, string? By, string? Note);

/// <summary>
/// A whole run: data, (pretrain), sft, reward, the preference method, evaluate, promote. Instance id: the run id. A run that fails is an
/// instance that completes with state <c>failed</c>: the failure is a result like others, with its reason and its report.
/// </summary>
public static class RlhfRun
{
    /// <summary>The event that answers the promotion gate.</summary>
    public const string ApprovalEvent = "approval";

    /// <summary>Carries the run from its first row to its report.</summary>
    [Function(nameof(RlhfRun))]
    public static async Task<RunOutcome> RunAsync([OrchestrationTrigger] TaskOrchestrationContext context, RunInput input)
    {
        ILogger logger = context.CreateReplaySafeLogger(nameof(RlhfRun));
        RunDocument run = await context.CallActivityAsync<RunDocument>(nameof(RegistryActivities.ReadRun), input.RunId, Retries.Storage);
        var account = new RunAccount(context, run);
        var pipeline = new Pipeline(context, run, account);
        RunOutcome outcome;
        try
        {
            await pipeline.PrepareAsync();
            await pipeline.TrainAsync();
            await pipeline.EvaluateAsync();
            await pipeline.PromoteAsync();
            outcome = new RunOutcome(RunStates.Succeeded, null);
        }
        catch (StageStoppedException stopped)
        {
            outcome = new RunOutcome(stopped.State == StageStates.Cancelled ? RunStates.Cancelled : RunStates.Failed, stopped.Message);
        }
        catch (TaskFailedException failed)
        {
            string error = $"Run '{run.RunId}', stage '{account.Stage}': {Retries.Reason(failed)}";
            account.End(account.Stage!, new StageOutcome { State = StageStates.Failed });
            outcome = new RunOutcome(RunStates.Failed, error);
        }

        logger.LogInformation("{Run} {State}: {Error}", run.RunId, outcome.State, outcome.Error);
        outcome = await pipeline.ReportAsync(outcome);
        account.Finish(outcome);
        return outcome;
    }

    /// <summary>The stages, with what one hands to the next.</summary>
    private sealed class Pipeline(TaskOrchestrationContext context, RunDocument run, RunAccount account)
    {
        private readonly SortedDictionary<string, ModelRef> models = new(StringComparer.Ordinal);
        private IReadOnlyDictionary<string, DatasetRef> datasets = new Dictionary<string, DatasetRef>();
        private ContentFile? evaluation;
        private PromotionReport? promotion;

        private RunSpec Spec => run.Spec;

        public async Task PrepareAsync()
        {
            account.Begin(Stages.Data, Spec.Data.World is null ? "reading files" : "generating the sample world");
            PreparedData data = await context.CallSubOrchestratorAsync<PreparedData>(nameof(PrepareData), run, Child(Stages.Data));
            account.End(Stages.Data, new StageOutcome { State = StageStates.Succeeded });
            datasets = data.Datasets;
            if (data.Base is { } given)
                models[ModelRoles.Base] = given;
        }

        public async Task TrainAsync()
        {
            if (Spec.Pretrain is null)
                account.End(Stages.Pretrain, new StageOutcome { State = StageStates.Skipped });
            else
                await RunStageAsync(Stages.Pretrain, JobKind.Pretrain, Sets(DatasetNames.Text, "train", "validation"));

            if (Spec.Sft.Epochs > 0)
            {
                await RunStageAsync(
                    Stages.Sft, JobKind.Sft, Sets(DatasetNames.Demonstrations, "train", "validation"),
                    new Gate(
                        "gates.minSftEosRate", DecisionMetrics.EosRate, Spec.Gates.MinSftEosRate,
                        "Train SFT longer, on demonstrations that end"));
            }
            else
            {
                account.End(Stages.Sft, new StageOutcome { State = StageStates.Skipped });
                models[ModelRoles.Sft] = models[ModelRoles.Base];
            }

            if (!Spec.Aligns())
            {
                account.End(Stages.Reward, new StageOutcome { State = StageStates.Skipped });
                account.End(Stages.Of(Spec.Method), new StageOutcome { State = StageStates.Skipped });
                return;
            }

            await RunStageAsync(
                Stages.Reward, JobKind.Reward,
                [.. Sets(DatasetNames.Preferences, "train", "validation"), .. Sets(DatasetNames.Demonstrations, "train")],
                new Gate(
                    "gates.minRewardAccuracy", DecisionMetrics.RewardAccuracy, Spec.Gates.MinRewardAccuracy,
                    "Use more or cleaner preferences"),
                new Gate(
                    "gates.minRewardGoldCorrelation", DecisionMetrics.GoldCorrelation, Spec.Gates.MinRewardGoldCorrelation,
                    "Use more preferences"));

            (JobKind method, IEnumerable<string> inputs) = Spec.Method switch
            {
                PreferenceMethod.Dpo =>
                    (JobKind.Dpo, Sets(DatasetNames.Preferences, "train", "validation").Concat(Sets(DatasetNames.Prompts, "validation"))),
                PreferenceMethod.Rloo => (JobKind.Rloo, Sets(DatasetNames.Prompts, "train", "validation")),
                PreferenceMethod.Grpo => (JobKind.Grpo, Sets(DatasetNames.Prompts, "train", "validation")),
                _ =>
                    (JobKind.Ppo, Sets(DatasetNames.Prompts, "train", "validation").Concat(Sets(DatasetNames.Demonstrations, "train"))),
            };
            await RunStageAsync(Stages.Of(Spec.Method), method, inputs);
        }

        public async Task EvaluateAsync()
        {
            if (Spec.Evaluate.HeldOutRewardModel)
            {
                await RunStageAsync(
                    Stages.HeldOutReward, JobKind.HeldOutReward,
                    [
                        .. Sets(DatasetNames.Preferences, DatasetNames.HeldOutReward, "validation"),
                        .. Sets(DatasetNames.Demonstrations, "train"),
                    ]);
            }

            StageOutcome evaluated = await RunStageAsync(
                Stages.Evaluate, JobKind.Evaluate,
                [
                    .. Sets(DatasetNames.Evaluation, "test"), .. Sets(DatasetNames.FewShot, "train"),
                    .. Sets(DatasetNames.Preferences, "train", "validation", "test", DatasetNames.UnseenLabellers),
                    .. Sets(DatasetNames.Demonstrations, "validation"),
                    .. Sets(DatasetNames.Comparisons, "test"), .. Sets(DatasetNames.Safety, "test"),
                ]);
            evaluation = evaluated.Artifacts.GetValueOrDefault(ArtifactNames.Evaluation);
        }

        public async Task PromoteAsync()
        {
            account.Begin(Stages.Promote, "deciding about promotion");
            await StopIfCancelledAsync();
            promotion = await DecideAsync();
            await context.CallActivityAsync(
                nameof(RegistryActivities.RegisterModel),
                new ModelRegistration(
                    Spec.Name, run.RunId, models, Spec.Aligns() ? Stages.Of(Spec.Method) : ModelRoles.Sft, promotion,
                    context.CurrentUtcDateTime), Retries.Storage);
            account.End(Stages.Promote, new StageOutcome { State = StageStates.Succeeded });
        }

        /// <summary>
        /// Writes the report whatever the outcome. That it could not be written is an error too, but does not hide the first.
        /// </summary>
        public async Task<RunOutcome> ReportAsync(RunOutcome outcome)
        {
            account.Resume("writing the report");
            var request = new ReportRequest(
                run.RunId, outcome, account.Closed, models, promotion, evaluation, account.TotalSeconds, account.WaitingSeconds);
            try
            {
                await context.CallActivityAsync(nameof(ReportActivities.WriteReport), request, Retries.Storage);
                return outcome;
            }
            catch (TaskFailedException failed)
            {
                string state = outcome.State == RunStates.Cancelled ? RunStates.Cancelled : RunStates.Failed;
                return new RunOutcome(state, $"{outcome.Error} The report could not be written: {Retries.Reason(failed)}".TrimStart());
            }
        }

        /// <summary>Sees one stage's job through; stops the run if the stage fails, is cancelled, or misses a gate.</summary>
        private async Task<StageOutcome> RunStageAsync(
            string stage, JobKind kind, IEnumerable<string> inputs, params IEnumerable<Gate> gates)
        {
            account.Begin(stage, kind == JobKind.Evaluate ? "evaluating" : "training");
            var order = new JobOrder
            {
                RunId = run.RunId,
                Stage = stage,
                Trainer = Spec.Trainer,
                Budget = Spec.Budget,
                MaxTrainerSeconds = Spec.Budget.MaxTrainerMinutes is { } minutes
                    ? Math.Max(0, (minutes * 60) - account.TrainerSeconds)
                    : null,
                Job = new JobSpec
                {
                    Kind = kind,
                    RunDocument = BlobLayout.RunDocument(run.RunId),
                    Models = models,
                    Datasets = inputs.Where(datasets.ContainsKey).ToDictionary(name => name, name => datasets[name]),
                },
            };
            StageOutcome outcome = stage == Stages.Of(Spec.Method) && Spec.Online() is { } online
                ? await context.CallSubOrchestratorAsync<StageOutcome>(
                    nameof(StageSlices),
                    new StageSlicesInput
                    {
                        Order = order,
                        Iterations = online.Iterations,
                        IterationsPerSlice = online.IterationsPerSlice,
                        Guard = Spec.Guard,
                    },
                    Child(stage))
                : await context.CallSubOrchestratorAsync<StageOutcome>(
                    nameof(StageJob), new StageJobInput(order, new JobWatch()), Child(stage));
            string? missed = gates.Select(gate => gate.Miss(outcome)).FirstOrDefault(miss => miss is not null);
            if (outcome.State == StageStates.Succeeded && missed is not null)
            {
                string error = $"Run '{run.RunId}', stage '{stage}', attempt {outcome.Attempts}: {missed}";
                outcome = outcome with { State = StageStates.Failed, Error = error };
            }

            account.End(stage, outcome);
            if (outcome.State is not (StageStates.Succeeded or StageStates.StoppedByGuard))
                throw new StageStoppedException(outcome.State, outcome.Error ?? $"Run '{run.RunId}' was cancelled in stage '{stage}'.");

            foreach ((string role, ModelRef model) in outcome.Models)
                models[role] = model;
            return outcome;
        }

        private async Task<PromotionReport> DecideAsync()
        {
            PromotionSpec gate = Spec.Promotion;
            string reason = "no condition was set";
            if (gate.MinRewardGain is { } least)
            {
                RewardGain gain = await context.CallActivityAsync<RewardGain>(
                    nameof(ReportActivities.ReadRewardGain), new RewardGainRequest(run.RunId, Spec.Method, evaluation), Retries.Storage);
                string moved = gain.Gain < 0 ? "fell" : "rose";
                reason = $"{gain.Metric} {moved} by {Math.Abs(gain.Gain):0.###}; promotion.minRewardGain is {least:0.###}";
                if (!(gain.Gain >= least))
                    return new PromotionReport(false, reason, null, null);
            }

            return gate.RequireApproval
                ? await AskAsync(TimeSpan.FromHours(gate.ApprovalDeadlineHours))
                : new PromotionReport(true, reason, null, null);
        }

        /// <summary>Waits for a person's answer until the deadline; a cancel ends the wait too.</summary>
        private async Task<PromotionReport> AskAsync(TimeSpan deadline)
        {
            DateTime since = context.CurrentUtcDateTime;
            DateTime until = since + deadline;
            account.Wait("waiting for approval", $"POST /api/runs/{run.RunId}/approval until {until:yyyy-MM-dd HH:mm:ss} UTC");
            using var raceOver = new CancellationTokenSource();
            Task<Approval> answer = context.WaitForExternalEvent<Approval>(ApprovalEvent, raceOver.Token);
            Task expired = context.CreateTimer(until, raceOver.Token);
            try
            {
                Task changed;
                while (await Task.WhenAny(answer, expired, changed = Changed()) == changed)
                    await StopIfCancelledAsync();
                if (!answer.IsCompleted)
                    return new PromotionReport(false, $"nobody answered within {deadline.TotalHours:0.###} hours", null, null);
                Approval given = await answer;
                return new PromotionReport(given.Approved, given.Approved ? "approved" : "rejected", given.By, given.Note);
            }
            finally
            {
#pragma warning disable CA1849 // CancelAsync would run the callbacks on the thread pool, where an orchestrator may not be.
                raceOver.Cancel();
#pragma warning restore CA1849
                account.WaitingSeconds += (context.CurrentUtcDateTime - since).TotalSeconds;
                account.Resume("deciding about promotion");
            }

            Task<string> Changed() => context.WaitForExternalEvent<string>(JobDriver.ChangedEvent, raceOver.Token);
        }

        private async Task StopIfCancelledAsync()
        {
            DesiredState desired = await context.CallActivityAsync<DesiredState>(
                nameof(RegistryActivities.ReadControl), run.RunId, Retries.Storage);
            if (desired != DesiredState.Cancel)
                return;
            account.End(account.Stage!, new StageOutcome { State = StageStates.Cancelled });
            throw new StageStoppedException(StageStates.Cancelled, $"Run '{run.RunId}' was cancelled in stage '{account.Stage}'.");
        }

        private SubOrchestrationOptions Child(string stage) => new(instanceId: $"{run.RunId}:{stage}");

        private static IEnumerable<string> Sets(string dataset, params IEnumerable<string> splits) =>
            splits.Select(split => DatasetNames.Split(dataset, split));
    }

    /// <summary>A bound that a stage's metric must reach before the run goes on.</summary>
    /// <param name="Field">The spec's field.</param>
    /// <param name="Metric">The metric.</param>
    /// <param name="Least">The bound; null turns the gate off.</param>
    /// <param name="Remedy">What to do about a miss.</param>
    private sealed record Gate(string Field, string Metric, double? Least, string Remedy)
    {
        /// <summary>What is wrong; null when the gate is open.</summary>
        public string? Miss(StageOutcome outcome)
        {
            if (Least is not { } bound)
                return null;
            bool reported = outcome.Metrics.TryGetValue(Metric, out double value);
            return reported && value >= bound
                ? null
                : $"{Metric} {(reported ? $"is {value:0.###}" : "was not reported")}; {Field} is {bound:0.###}. "
                    + $"{Remedy}, or lower the gate; then start the run again under a new id.";
        }
    }

    /// <summary>A stage ended in a way that ends the run.</summary>
    private sealed class StageStoppedException(string state, string message) : Exception(message)
    {
        public string State { get; } = state;
    }
}
