using Rlhf.Functions.Orchestrators;
using Rlhf.Jobs;
using Rlhf.Storage;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>The events queue, and generations of an orchestration.</summary>
public sealed class HintTests(FunctionApp app)
{
    [Fact]
    public async Task Hints_carry_a_run_that_hardly_looks_for_itself()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("trainer.pollSeconds", 300);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
    }

    [Fact]
    public async Task A_run_needs_no_hints()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await using FakeTrainer trainer = new(app.Storage, spec.Machine) { IsSilent = true };
        await app.StartAsync(spec);
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
    }

    [Fact]
    public async Task A_message_that_is_no_event_or_of_no_run_is_dropped()
    {
        IMessageQueue events = app.Storage.Queue(StorageAccount.EventsQueue);
        await events.SendAsync("nonsense", CancellationToken.None);
        var ofNobody = new JobEvent("nobody", Stages.Sft, 1, JobState.Succeeded);
        await events.SendAsync(CasDocument.Serialize(ofNobody).ToString(), CancellationToken.None);

        // What comes after them is still read.
        await Hints_carry_a_run_that_hardly_looks_for_itself();
    }

    [Fact]
    public async Task A_pause_is_ended_by_people_and_not_by_the_late_hint_of_what_it_follows()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("trainer.lostAfterSeconds", 300);
        var full = new JobError(JobErrorKind.DiskFull, "no space left", "Make room.");
        await using FakeTrainer trainer = app.Trainer(
            spec, attempt => attempt.Stage == Stages.Sft ? new FakeBehaviour { EndAt = 2, Error = full } : new FakeBehaviour());
        await app.StartAsync(spec);
        await app.UntilAsync(
            spec.RunId, view => view.Activity?.Contains("waiting for the next attempt, in 300 s", StringComparison.Ordinal) == true);
        for (int i = 0; i < 3; i++)
        {
            await app.Client.RaiseEventAsync(
                $"{spec.RunId}:{Stages.Sft}", JobDriver.ChangedEvent, $"{JobState.Failed} 1", CancellationToken.None);
        }

        await Task.Delay(1000);
        Assert.Equal((Stages.Sft, 1), trainer.Claims.Last());
        Assert.Equal(1, (await app.JobAsync(spec.RunId, Stages.Sft))!.Fence);

        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
        Assert.Equal(RunStates.Cancelled, (await app.EndAsync(spec.RunId, seconds: 100)).State);
    }

    [Fact]
    public async Task A_watch_goes_on_through_many_generations_and_loses_nothing()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.Stage == Stages.Sft);
        for (int i = 0; i < 150; i++)
            await app.Client.RaiseEventAsync($"{spec.RunId}:{Stages.Sft}", JobDriver.ChangedEvent, $"{i}", CancellationToken.None);
        await Task.Delay(1000);
        JobDocument waiting = (await app.JobAsync(spec.RunId, Stages.Sft))!;
        Assert.Equal((JobState.Queued, 1), (waiting.State, waiting.Fence));

        await using FakeTrainer trainer = app.Trainer(spec);
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
        Assert.Equal(1, (await app.JobAsync(spec.RunId, Stages.Sft))!.Fence);
    }
}
