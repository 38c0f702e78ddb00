using System.Text;
using Rlhf.Jobs;
using Rlhf.Spec;
using Rlhf.Storage;
using Rlhf.Tests;
using Rlhf.Trainer.Tests.Methods;
using Xunit;

namespace Rlhf.Trainer.Tests.Work;

/// <summary>Jobs that wait for a reward endpoint: the heart goes on, a stop reaches them, and nothing of the run is lost.</summary>
[Collection(nameof(StorageTests))]
public sealed class RewardEndpointJobTests(AzuriteFixture azurite)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task APauseReachesAJobThatWaitsAndTheRunEndsInTheSameBytes()
    {
        var hanging = new TaskCompletionSource<bool>();
        int askedToHang = -1;
        await using RewardEndpoint endpoint = RewardEndpoint.Start(async request =>
        {
            if (request.Number == askedToHang)
                await Task.WhenAny(hanging.Task, Task.Delay(TimeSpan.FromSeconds(50), Cancellation));
            return (200, RewardEndpoint.Rewards(request, text => text.Length % 5));
        });
        JobTestRun run = await TrainedAsync(endpoint);
        JobResult whole = await run.RunAsync("ppo-whole", run.Job(JobKind.Ppo));
        int requests = endpoint.Requests.Count;
        askedToHang = requests + 2; // the third iteration's

        await run.EnqueueAsync(Stages.Ppo, 1, run.Job(JobKind.Ppo));
        Task<JobState?> running = run.RunAsync(await run.ClaimAsync(), CancellationToken.None);
        JobStatus waiting = await StatusAsync(run, _ => endpoint.Requests.Count == requests + 3);
        await StatusAsync(run, status => status.Sequence > waiting.Sequence + 3); // the heart beats meanwhile
        await run.Control.RequestAsync(run.RunId, Stages.Ppo, DesiredState.Pause, Cancellation);
        Assert.Equal(JobState.Paused, await running.WaitAsync(TimeSpan.FromSeconds(20), Cancellation));
        Assert.Equal(2, (await run.JobAsync(Stages.Ppo)).Result!.Step);
        hanging.SetResult(true);

        JobResult resumed = await run.RunAsync(Stages.Ppo, run.Job(JobKind.Ppo), fence: 2);

        Assert.Equal(whole.Models[ModelRoles.Ppo].Sha256, resumed.Models[ModelRoles.Ppo].Sha256);
        Assert.Equal(whole.Metrics, resumed.Metrics);
        Assert.Contains("objective/reward/judge", whole.Metrics);
        // Four iterations and the validation; then the same, with the iteration that was left asked for again under its own key.
        string[] keys = [.. endpoint.Requests.Select(request => request.Headers["Idempotency-Key"].Replace("ppo-whole", "ppo", StringComparison.Ordinal))];
        Assert.Equal(requests + 6, keys.Length);
        Assert.Equal(keys[requests + 2], keys[requests + 3]);
        Assert.Equal(keys[..requests], keys[requests..].Distinct());
    }

    [Fact]
    public async Task AnEndpointThatGivesNothingIsTheAttemptsErrorAndTheEvaluationAsksItToo()
    {
        int status = 200;
        string? sent = null;
        await using RewardEndpoint endpoint = RewardEndpoint.Start(request =>
        {
            sent = request.Headers["Authorization"];
            return (status, status == 200 ? RewardEndpoint.Rewards(request, _ => 0.5) : $"you sent {sent}");
        });
        const string secret = "4f1d-very-secret";
        Environment.SetEnvironmentVariable("RLHF_REWARD_TEST", $"Bearer {secret}");
        JobTestRun run = await TrainedAsync(
            endpoint, source => source with { Header = "Authorization", HeaderVariable = "RLHF_REWARD_TEST" });
        run.Use(await run.RunAsync(Stages.Ppo, run.Job(JobKind.Ppo)));
        JobResult evaluated = await run.RunAsync(Stages.Evaluate, run.Job(JobKind.Evaluate));
        Assert.Equal(0.5, evaluated.Metrics["ppo/proxy_reward"], 1e-9);

        status = 500;
        await run.EnqueueAsync("ppo-again", 1, run.Job(JobKind.Ppo));
        Assert.Equal(JobState.Failed, await run.RunAsync(await run.ClaimAsync(), CancellationToken.None));
        JobError error = (await run.JobAsync("ppo-again")).Result!.Error!;
        Assert.Equal(JobErrorKind.Endpoint, error.Kind);
        Assert.Contains("The reward endpoint 'judge'", error.Message, StringComparison.Ordinal);
        status = 403; // and one that says what it was sent
        await run.EnqueueAsync("ppo-refused", 1, run.Job(JobKind.Ppo));
        Assert.Equal(JobState.Failed, await run.RunAsync(await run.ClaimAsync(), CancellationToken.None));

        Assert.Equal($"Bearer {secret}", sent);
        Assert.Contains("answered 403", (await run.JobAsync("ppo-refused")).Result!.Error!.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(secret, run.Output.ToString(), StringComparison.Ordinal);
        var paths = new List<string>();
        await foreach (BlobEntry blob in run.Blobs.ListAsync(BlobLayout.Run(run.RunId), Cancellation))
        {
            paths.Add(blob.Path);
            string text = Encoding.Latin1.GetString((await run.Blobs.ReadAsync(blob.Path, Cancellation))!.Content.ToArray());
            Assert.False(text.Contains(secret, StringComparison.Ordinal), blob.Path);
        }

        foreach (string file in new[] { "run.json", "job.json", "hb.json", "metrics.jsonl", "result.json" })
            Assert.Contains(paths, path => path.EndsWith(file, StringComparison.Ordinal));
    }

    /// <summary>A run with SFT and reward model, whose answers an endpoint scores.</summary>
    private async Task<JobTestRun> TrainedAsync(RewardEndpoint endpoint, Func<RewardSourceSpec, RewardSourceSpec>? change = null)
    {
        var source = new RewardSourceSpec { Source = RewardSourceKind.Http, Name = "judge", Url = endpoint.Url, Retries = 1 };
        JobTestRun run = await JobTestRun.CreateAsync(azurite, spec => spec with
        {
            Trainer = spec.Trainer with { CheckpointEverySteps = 1 },
            Rewards = [change?.Invoke(source) ?? source],
        });
        run.Use(await run.RunAsync(Stages.Sft, run.Job(JobKind.Sft)));
        run.Use(await run.RunAsync(Stages.Reward, run.Job(JobKind.Reward)));
        return run;
    }

    private static async Task<JobStatus> StatusAsync(JobTestRun run, Func<JobStatus, bool> until)
    {
        for (int tries = 0; tries < 1200; tries++)
        {
            if (await run.Control.InspectAsync(run.RunId, Stages.Ppo, Cancellation) is { } status && until(status))
                return status;
            await Task.Delay(50, Cancellation);
        }

        throw new TimeoutException($"The job did not come so far.\n{run.Output}");
    }
}
