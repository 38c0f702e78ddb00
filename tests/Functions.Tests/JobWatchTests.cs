using FsCheck;
using FsCheck.Fluent;
using Rlhf.Functions.Orchestrators;
using Rlhf.Jobs;
using Rlhf.Spec;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>The watchdog's rules, without a host: looks at a job in, decisions out.</summary>
public sealed class JobWatchTests
{
    private static readonly DateTime Start = new(2026, 1, 1, 0, 0, 0, DateTimeKind.Utc);

    private static readonly JobOrder Order = new()
    {
        RunId = "r",
        Stage = "sft",
        Job = new JobSpec { Kind = JobKind.Sft, RunDocument = "runs/r/run.json" },
        Trainer = new TrainerSpec
        {
            HeartbeatSeconds = 1,
            PollSeconds = 2,
            LostAfterSeconds = 30,
            WedgedAfterSeconds = 60,
            StartTimeoutSeconds = 90,
        },
        Budget = new BudgetSpec
        {
            LostTrainers = 2,
            WedgedTrainers = 1,
            StartTimeouts = 1,
            ErrorRetries = 1,
            OutOfMemoryRetries = 2,
            DiskFullRetries = 3,
            CorruptCheckpoints = 1,
        },
    };

    [Fact]
    public void A_trainer_whose_heartbeat_stands_still_is_lost_after_the_limit_and_not_before()
    {
        var watch = new Watch();
        watch.Look(0, Running(sequence: 1));
        for (int second = 2; second < 30; second += 2)
            Assert.Equal(WatchStep.Wait, watch.Look(second, Running(sequence: 1)));
        Assert.Equal(WatchStep.Requeue, watch.Look(30, Running(sequence: 1)));
        Assert.Equal(("lost", 2), (watch.State.Outcome, watch.State.Fence));
        Assert.Contains("no heartbeat for 30 s", watch.State.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Six_heartbeats_may_be_missed_however_short_the_limit()
    {
        JobOrder slow = Order with { Trainer = Order.Trainer with { HeartbeatSeconds = 20 } };
        var watch = new Watch(slow);
        for (int second = 0; second < 120; second += 5)
            Assert.Equal(WatchStep.Wait, watch.Look(second, Running(sequence: 1)));
        Assert.Equal(WatchStep.Requeue, watch.Look(120, Running(sequence: 1)));
    }

    [Fact]
    public void A_trainer_that_beats_without_progress_is_wedged()
    {
        var watch = new Watch();
        WatchStep step = WatchStep.Wait;
        int second = 0;
        for (; step == WatchStep.Wait; second += 2)
            step = watch.Look(second, Running(sequence: second, step: 5));
        Assert.Equal((WatchStep.Requeue, "wedged"), (step, watch.State.Outcome));
        Assert.InRange(second, 60, 64);
    }

    [Fact]
    public void A_new_phase_is_progress_and_slow_steps_get_more_time()
    {
        var watch = new Watch();
        for (int second = 0; second < 200; second += 2)
            Assert.Equal(WatchStep.Wait, watch.Look(second, Running(sequence: second, phase: $"phase {second / 50}")));

        watch = new Watch();
        for (int second = 0; second < 290; second += 2)
            Assert.Equal(WatchStep.Wait, watch.Look(second, Running(sequence: second, secondsPerStep: 30)));
    }

    [Fact]
    public void An_absence_of_the_orchestrator_kills_no_trainer()
    {
        var watch = new Watch();
        watch.Look(0, Running(sequence: 1));
        Assert.Equal(WatchStep.Wait, watch.Look(100_000, Running(sequence: 1)));
        Assert.Equal(WatchStep.Wait, watch.Look(100_002, Running(sequence: 2)));
        Assert.Equal(0, watch.State.SilentSeconds);
    }

    [Fact]
    public void Unreachable_storage_is_no_death_however_long_it_lasts()
    {
        var watch = new Watch();
        watch.Look(0, Running(sequence: 1));
        for (int minute = 1; minute < 23 * 60; minute++)
            Assert.Equal(WatchStep.Wait, watch.Unreachable(minute * 60));
        Assert.Equal(WatchStep.Wait, watch.Look(23 * 3600, Running(sequence: 1)));
        Assert.InRange(watch.State.SilentSeconds, -10, 0);
        watch.Unreachable((23 * 3600) + 1);
        for (int hour = 24; hour <= 47; hour++)
            Assert.Equal(WatchStep.Wait, watch.Unreachable(hour * 3600));
        Assert.Equal(WatchStep.Done, watch.Unreachable(48 * 3600));
        Assert.Contains("storage could not be read", watch.State.End!.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void After_an_outage_a_trainer_has_a_little_longer_to_find_that_storage_is_back_and_no_more()
    {
        var watch = new Watch();
        watch.Look(0, Running(sequence: 1));
        for (int second = 2; second < 28; second += 2)
            watch.Look(second, Running(sequence: 1));
        watch.Unreachable(30);
        watch.Unreachable(90);
        WatchStep step = WatchStep.Wait;
        int back = 100;
        for (; step == WatchStep.Wait; back += 2)
            step = watch.Look(back, Running(sequence: 1));
        Assert.Equal((WatchStep.Requeue, "lost"), (step, watch.State.Outcome));
        Assert.InRange(back - 100, 40, 44);
    }

    [Fact]
    public void Unreachable_storage_and_a_clock_that_jumps_a_day_end_nothing()
    {
        var watch = new Watch();
        watch.Look(0, Running(sequence: 1));
        Assert.Equal(WatchStep.Wait, watch.Unreachable(10));
        Assert.Equal(WatchStep.Wait, watch.Unreachable(20 + 86_400));
        Assert.Equal(WatchStep.Wait, watch.Look(30 + 86_400, Running(sequence: 2)));
    }

    [Fact]
    public void Lost_trainers_have_a_budget_that_a_new_checkpoint_renews()
    {
        var watch = new Watch();
        for (int loss = 0; loss < 10; loss++)
            Assert.Equal(WatchStep.Requeue, watch.Lose(headStep: loss * 5));

        // Without progress the third loss is one too many.
        Assert.Equal(WatchStep.Requeue, watch.Lose(headStep: 45));
        Assert.Equal(WatchStep.CancelUnresponsive, watch.Lose(headStep: 45));
        Assert.Equal(WatchStep.Done, watch.Look(1, Status(JobState.Cancelled)));
        Assert.Equal(JobState.Failed, watch.State.End!.State);
        Assert.Contains("Run 'r', stage 'sft', attempt 12", watch.State.End.Error, StringComparison.Ordinal);
        Assert.Contains("budget.lostTrainers is 2", watch.State.End.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_job_that_nobody_takes_is_sent_again_and_then_given_up()
    {
        var watch = new Watch();
        Assert.Equal(WatchStep.Requeue, watch.Starve());
        Assert.Equal("startTimeout", watch.State.Outcome);
        Assert.Equal(WatchStep.CancelUnresponsive, watch.Starve());
        watch.Look(1, Status(JobState.Cancelled));
        Assert.Contains("rlhf-jobs-local", watch.State.End!.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_claim_renews_the_budget_of_start_timeouts()
    {
        var watch = new Watch();
        for (int i = 0; i < 2; i++)
        {
            Assert.Equal(WatchStep.Requeue, watch.Starve());
            Assert.Equal(WatchStep.Wait, watch.Look(0, Running(sequence: 1)));
            Assert.Equal(WatchStep.Requeue, watch.Look(0, Status(JobState.Preempted) with { HeadStep = i + 1 }));
        }
    }

    [Theory]
    [InlineData(JobErrorKind.Input, 0)]
    [InlineData(JobErrorKind.Diverged, 0)]
    [InlineData(JobErrorKind.Internal, 1)]
    [InlineData(JobErrorKind.OutOfMemory, 2)]
    [InlineData(JobErrorKind.DiskFull, 3)]
    [InlineData(JobErrorKind.Endpoint, 1)]
    [InlineData(JobErrorKind.CorruptCheckpoint, 1)]
    public void Errors_are_tried_again_as_often_as_their_kind_allows(JobErrorKind kind, int retries)
    {
        var watch = new Watch();
        JobStatus failed = Failed(kind);
        for (int i = 0; i < retries; i++)
            Assert.Equal(WatchStep.Requeue, watch.Look(i, failed));
        Assert.Equal(WatchStep.Done, watch.Look(9, failed));
        Assert.StartsWith("Run 'r', stage 'sft', attempt 1: it broke", watch.State.End!.Error, StringComparison.Ordinal);
        Assert.EndsWith("Mend it.", watch.State.End.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Lost_trainers_do_not_use_up_the_retries_for_errors()
    {
        var watch = new Watch();
        Assert.Equal(WatchStep.Requeue, watch.Lose(headStep: 1));
        Assert.Equal(WatchStep.Requeue, watch.Lose(headStep: 1));
        Assert.Equal(WatchStep.Requeue, watch.Look(9, Failed(JobErrorKind.Internal)));
    }

    [Fact]
    public void Each_kind_of_failure_has_a_budget_of_its_own()
    {
        var watch = new Watch();
        JobErrorKind[] failures =
        [
            JobErrorKind.Internal, JobErrorKind.OutOfMemory, JobErrorKind.DiskFull, JobErrorKind.CorruptCheckpoint, JobErrorKind.OutOfMemory,
            JobErrorKind.DiskFull, JobErrorKind.DiskFull,
        ];
        foreach (JobErrorKind kind in failures)
            Assert.Equal(WatchStep.Requeue, watch.Look(0, Failed(kind)));
        Assert.Equal(WatchStep.Requeue, watch.Lose(headStep: 1));
        Assert.Equal(WatchStep.Requeue, watch.Wedge(headStep: 1));
        Assert.Equal(WatchStep.Requeue, watch.Lose(headStep: 1));
        Assert.Equal(WatchStep.CancelUnresponsive, watch.Wedge(headStep: 1));
        watch.Look(1, Status(JobState.Cancelled));
        Assert.Contains("budget.wedgedTrainers is 1", watch.State.End!.Error, StringComparison.Ordinal);

        Assert.Equal(WatchStep.Done, new Watch(Order with { Budget = Order.Budget with { DiskFullRetries = 0 } }).Look(0, Failed(JobErrorKind.DiskFull)));
    }

    [Fact]
    public void After_a_full_disk_the_next_attempt_waits_longer_each_time()
    {
        var watch = new Watch(Order with { Budget = Order.Budget with { DiskFullRetries = 10 } });
        var pauses = new List<double>();
        for (int i = 0; i < 7; i++)
        {
            watch.Look(i, Failed(JobErrorKind.DiskFull));
            pauses.Add(watch.State.PauseSeconds);
        }

        Assert.Equal([30, 60, 120, 240, 480, 600, 600], pauses);
        watch.Look(9, Failed(JobErrorKind.Internal));
        Assert.Equal(0, watch.State.PauseSeconds);
    }

    [Fact]
    public void A_damaged_job_document_costs_a_fence_and_more_of_them_the_run()
    {
        var watch = new Watch();
        watch.Look(0, Running(sequence: 1));
        Assert.Equal(WatchStep.Requeue, watch.Look(1, JobStatus.Damaged("The blob 'x' is corrupt.")));
        Assert.Equal((2, AttemptOutcomes.DocumentLost, "The blob 'x' is corrupt."), (watch.State.Fence, watch.State.Outcome, watch.State.Reason));
        Assert.Equal(WatchStep.Done, watch.Look(2, JobStatus.Damaged("The blob 'x' is corrupt.")));
        Assert.Contains("budget.corruptCheckpoints is 1", watch.State.End!.Error, StringComparison.Ordinal);

        var cancelled = new Watch();
        Assert.Equal(WatchStep.Done, cancelled.Look(1, JobStatus.Damaged("x"), DesiredState.Cancel));
        Assert.Equal(JobState.Cancelled, cancelled.State.End!.State);
    }

    [Theory]
    [InlineData("the fence", "the job is back at attempt 1")]
    [InlineData("the claim", "attempt 2 has been claimed, and is no longer")]
    [InlineData("the head", "the newest checkpoint is of step 3 and was of step 7")]
    [InlineData("every checkpoint", "the newest checkpoint is of step 0 and was of step 7")]
    [InlineData("the head's fence", "the newest checkpoint is of step 9 and was of step 7")]
    public void A_storage_that_goes_back_in_time_is_noticed_by_name(string what, string expected)
    {
        JobStatus before = Running(sequence: 5, step: 8) with { Fence = 2, HeadFence = 2, HeadStep = 7 };
        var watch = new JobWatch { Fence = 2, IsQueued = true };
        watch = watch.Observe(Order, new JobLook(before, DesiredState.Run), Start).Watch;
        JobStatus after = what switch
        {
            "the fence" => before with { Fence = 1 },
            "the claim" => before with { State = JobState.Queued, Sequence = -1 },
            "the head" => before with { HeadStep = 3 },
            "every checkpoint" => before with { HeadFence = 0, HeadStep = 0 },
            _ => before with { HeadFence = 1, HeadStep = 9 },
        };

        (JobWatch next, WatchStep step) = watch.Observe(Order, new JobLook(after, DesiredState.Run), Start.AddSeconds(1));

        Assert.Equal((WatchStep.Requeue, 3, AttemptOutcomes.StorageRollback), (step, next.Fence, next.Outcome));
        Assert.Contains("storage has lost writes that it had acknowledged: " + expected, next.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_late_heartbeat_or_a_damaged_head_is_no_rollback()
    {
        var watch = new Watch();
        watch.Look(0, Running(sequence: 5) with { HeadFence = 1, HeadStep = 7 });
        Assert.Equal(WatchStep.Wait, watch.Look(1, Running(sequence: 4) with { HeadFence = 1, HeadStep = 7 }));
        Assert.Equal(WatchStep.Wait, watch.Look(2, Running(sequence: 6) with { HeadFence = -1 }));
        Assert.Equal(WatchStep.Wait, watch.Look(3, Running(sequence: 7) with { HeadFence = 1, HeadStep = 8 }));
    }

    [Fact]
    public void A_cancel_is_told_once_and_ends_the_job_if_nobody_answers()
    {
        var watch = new Watch();
        watch.Look(0, Running(sequence: 1));
        Assert.Equal(WatchStep.Tell, watch.Look(2, Running(sequence: 2), DesiredState.Cancel));
        WatchStep step = WatchStep.Wait;
        int second = 2;
        while (step == WatchStep.Wait)
            step = watch.Look(second += 2, Running(sequence: second), DesiredState.Cancel);
        Assert.Equal(WatchStep.CancelUnresponsive, step);
        Assert.InRange(second, 30, 36);
        Assert.Equal(WatchStep.Done, watch.Look(second + 2, Status(JobState.Cancelled), DesiredState.Cancel));
        Assert.Equal(JobState.Cancelled, watch.State.End!.State);
    }

    [Fact]
    public void A_paused_job_waits_under_its_next_fence()
    {
        var watch = new Watch();
        Assert.Equal(WatchStep.Tell, watch.Look(0, Running(sequence: 1), DesiredState.Pause));
        Assert.Equal(WatchStep.Requeue, watch.Look(2, Status(JobState.Paused), DesiredState.Pause));
        Assert.Equal((2, false, "paused"), (watch.State.Fence, watch.State.IsQueued, watch.State.Outcome));
    }

    [Fact]
    public void A_spent_budget_stops_the_job_and_fails_the_stage()
    {
        var watch = new Watch(Order with { MaxTrainerSeconds = 10 });
        Assert.Equal(WatchStep.Wait, watch.Look(0, Running(sequence: 1) with { Seconds = 10 }));
        Assert.Equal(WatchStep.Tell, watch.Look(2, Running(sequence: 2) with { Seconds = 11 }));
        Assert.Equal(DesiredState.Cancel, watch.State.Told);
        Assert.Equal(WatchStep.Done, watch.Look(4, Status(JobState.Cancelled)));
        Assert.Equal(JobState.Failed, watch.State.End!.State);
        Assert.Contains("budget.maxTrainerMinutes", watch.State.End.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Whatever_is_seen_the_fence_never_falls_and_a_live_trainer_is_never_given_up()
    {
        Gen<(int Gap, bool Beats, bool Steps)> look = Gen.Choose(0, 100_000).Zip(Gen.Elements(true, true, true, false)).Zip(
            Gen.Elements(true, true, false), (pair, steps) => (pair.Item1, pair.Item2, steps));
        Prop.ForAll(look.ListOf(60).ToArbitrary(), looks =>
        {
            var watch = new Watch();
            (double now, int sequence, int step, int quiet) = (0, 0, 0, 0);
            foreach ((int gap, bool beats, bool steps) in looks)
            {
                quiet = beats ? 0 : quiet + 1;
                WatchStep decision = watch.Look(now += gap, Running(beats ? ++sequence : sequence, steps ? ++step : step));
                // Three gaps in a row without a beat are the least that can end a trainer.
                if (decision != WatchStep.Wait && quiet < 3 && watch.State.Outcome != "wedged")
                    return false;
                if (decision != WatchStep.Wait)
                    return watch.State.Fence >= 2 || decision == WatchStep.CancelUnresponsive;
            }

            return true;
        }).QuickCheckThrowOnFailure();
    }

    private static JobStatus Status(JobState state) => new() { Fence = 1, State = state };

    private static JobStatus Failed(JobErrorKind kind) => Status(JobState.Failed) with
    {
        Result = new JobResult
        {
            Outcome = JobState.Failed,
            Error = new JobError(kind, "Run 'r', stage 'sft', attempt 1: it broke.", "Mend it."),
        },
    };

    private static JobStatus Running(long sequence, int step = 0, string phase = "train", double secondsPerStep = 0) =>
        new() { Fence = 1, State = JobState.Running, Sequence = sequence, Step = step, Phase = phase, SecondsPerStep = secondsPerStep };

    /// <summary>Feeds looks to the watchdog and keeps its state, as the orchestrator does.</summary>
    private sealed class Watch(JobOrder? order = null)
    {
        private double offset;

        public JobWatch State { get; private set; } = new() { IsQueued = true };

        public WatchStep Look(double second, JobStatus job, DesiredState desired = DesiredState.Run)
        {
            JobWatch queued = State with { IsQueued = true };
            var look = new JobLook(job with { Fence = State.Fence }, desired);
            (State, WatchStep step) = queued.Observe(order ?? Order, look, Start.AddSeconds(second));
            return step;
        }

        public WatchStep Unreachable(double second)
        {
            (State, WatchStep step) = State.Unreachable(order ?? Order, Start.AddSeconds(second), "connection refused");
            return step;
        }

        public WatchStep Lose(int headStep) => Until(second => Running(sequence: 1) with { HeadStep = headStep });

        public WatchStep Wedge(int headStep)
        {
            long sequence = 0;
            return Until(second => Running(++sequence, step: 1) with { HeadStep = headStep });
        }

        public WatchStep Starve() => Until(_ => Status(JobState.Queued));

        private WatchStep Until(Func<double, JobStatus> job)
        {
            WatchStep step = WatchStep.Wait;
            while (step == WatchStep.Wait)
                step = Look(offset += 2, job(offset));
            return step;
        }
    }
}
