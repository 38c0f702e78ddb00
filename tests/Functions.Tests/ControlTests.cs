using System.Net;
using Rlhf.Jobs;
using Rlhf.Report;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>Cancel, pause, resume and approval.</summary>
public sealed class ControlTests(FunctionApp app)
{
    [Fact]
    public async Task A_cancel_reaches_the_trainer_and_ends_the_run_with_a_report()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await using FakeTrainer trainer = app.Trainer(spec, _ => new FakeBehaviour { Steps = 100_000 });
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.Progress?.Step > 1);
        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{spec.RunId}/cancel"));
        RunView view = await app.EndAsync(spec.RunId);
        Assert.Equal(RunStates.Cancelled, view.State);
        Assert.Equal((JobState.Cancelled, 1), await StateAsync(spec));
        Assert.Equal(RunStates.Cancelled, (await app.ReportAsync(spec.RunId)).State);

        Assert.Equal(HttpStatusCode.Conflict, await app.PostAsync($"api/runs/{spec.RunId}/cancel"));
        Assert.Equal(HttpStatusCode.Conflict, await app.PostAsync($"api/runs/{spec.RunId}/pause"));
    }

    [Fact]
    public async Task A_run_whose_job_nobody_has_taken_is_cancelled_on_the_spot()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.Stage == Stages.Sft);
        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{spec.RunId}/cancel"));
        Assert.Equal(RunStates.Cancelled, (await app.EndAsync(spec.RunId)).State);
    }

    [Fact]
    public async Task A_trainer_that_does_not_answer_a_cancel_is_cut_off()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("trainer.lostAfterSeconds", 2);
        await using FakeTrainer trainer = app.Trainer(spec, _ => new FakeBehaviour { Steps = 100_000, Deaf = true });
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.Progress?.Step > 1);
        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
        Assert.Equal(RunStates.Cancelled, (await app.EndAsync(spec.RunId)).State);
        Assert.Equal((JobState.Cancelled, 2), await StateAsync(spec));
        Assert.Equal("unresponsive", (await app.JobAsync(spec.RunId, Stages.Sft))!.History.Single().Outcome);
        await UntilAsync(() => Task.FromResult(trainer.Fenced.Contains((Stages.Sft, 1))));
    }

    [Fact]
    public async Task A_pause_puts_the_job_aside_and_a_resume_takes_it_up()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await using FakeTrainer trainer = app.Trainer(
            spec, attempt => new FakeBehaviour { Steps = attempt is { Stage: Stages.Sft, Fence: 1 } ? 100_000 : 3 });
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.Progress?.Step > 1);
        Assert.Equal(HttpStatusCode.Conflict, await app.PostAsync($"api/runs/{spec.RunId}/resume"));
        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{spec.RunId}/pause"));
        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{spec.RunId}/pause"));
        await app.UntilAsync(spec.RunId, view => view.State == RunStates.Paused);
        Assert.Equal((JobState.Paused, 1), await StateAsync(spec));
        await Task.Delay(700);
        Assert.Single(trainer.Claims);

        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{spec.RunId}/resume"));
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
        Assert.Equal("paused", (await app.JobAsync(spec.RunId, Stages.Sft))!.History.Single().Outcome);
        RunReport report = await app.ReportAsync(spec.RunId);
        Assert.True(report.Time.WaitingSeconds >= 0.5, $"{report.Time.WaitingSeconds} s of waiting");
    }

    [Fact]
    public async Task A_paused_run_can_be_cancelled_and_a_cancelled_one_not_resumed()
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        await app.StartAsync(spec);
        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{spec.RunId}/pause"));
        await app.UntilAsync(spec.RunId, view => view.State == RunStates.Paused);
        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{spec.RunId}/cancel"));
        Assert.Equal(HttpStatusCode.Conflict, await app.PostAsync($"api/runs/{spec.RunId}/resume"));
        Assert.Equal(RunStates.Cancelled, (await app.EndAsync(spec.RunId)).State);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task The_promotion_gate_waits_for_an_answer(bool approved)
    {
        TestSpec spec = (await TestSpec.CreateAsync(app, $"gated-{approved}".ToLowerInvariant())).With("promotion.requireApproval", true);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        Assert.Equal(HttpStatusCode.Conflict, await app.PostAsync($"api/runs/{spec.RunId}/approval", """{"approved": true}"""));
        RunView waiting = await app.UntilAsync(spec.RunId, view => view.State == RunStates.WaitingForApproval);
        Assert.Contains($"POST /api/runs/{spec.RunId}/approval until ", waiting.Activity, StringComparison.Ordinal);
        Assert.Equal(HttpStatusCode.BadRequest, await app.PostAsync($"api/runs/{spec.RunId}/approval", """{"approved": "yes"}"""));
        Assert.Equal(HttpStatusCode.BadRequest, await app.PostAsync($"api/runs/{spec.RunId}/approval", "{}"));

        string answer = $$"""{"approved": {{(approved ? "true" : "false")}}, "by": "ada", "note": "looked at the samples"}""";
        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{spec.RunId}/approval", answer));
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
        PromotionReport promotion = (await app.ReportAsync(spec.RunId)).Promotion!;
        Assert.Equal((approved, "ada", "looked at the samples"), (promotion.Promoted, promotion.By, promotion.Note));
        Assert.Equal(approved, await app.TextAsync(BlobLayout.ProductionModel(spec.Name)) is not null);
    }

    [Fact]
    public async Task Without_an_answer_by_the_deadline_nothing_is_promoted()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app, "expired"))
            .With("promotion.requireApproval", true).With("promotion.approvalDeadlineHours", 0.001);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        Assert.Equal(RunStates.Succeeded, (await app.EndAsync(spec.RunId)).State);
        PromotionReport promotion = (await app.ReportAsync(spec.RunId)).Promotion!;
        Assert.False(promotion.Promoted);
        Assert.Contains("nobody answered", promotion.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_run_that_waits_for_approval_can_be_cancelled()
    {
        TestSpec spec = (await TestSpec.CreateAsync(app)).With("promotion.requireApproval", true);
        await using FakeTrainer trainer = app.Trainer(spec);
        await app.StartAsync(spec);
        await app.UntilAsync(spec.RunId, view => view.State == RunStates.WaitingForApproval);
        Assert.Equal(HttpStatusCode.Accepted, await app.PostAsync($"api/runs/{spec.RunId}/cancel"));
        Assert.Equal(RunStates.Cancelled, (await app.EndAsync(spec.RunId)).State);
    }

    private static async Task UntilAsync(Func<Task<bool>> there)
    {
        for (int i = 0; i < 200 && !await there(); i++)
            await Task.Delay(50);
        Assert.True(await there());
    }

    private async Task<(JobState State, int Fence)> StateAsync(TestSpec spec)
    {
        JobDocument job = (await app.JobAsync(spec.RunId, Stages.Sft))!;
        return (job.State, job.Fence);
    }
}
