using Microsoft.Azure.Functions.Worker;
using Rlhf.Functions.Orchestrators;
using Rlhf.Jobs;
using Rlhf.Storage;

namespace Rlhf.Functions.Activities;

/// <summary>Asks for an attempt to be sent.</summary>
/// <param name="Order">The job.</param>
/// <param name="Fence">The attempt's fence.</param>
/// <param name="Outcome">How the attempt before ended; null takes its state.</param>
/// <param name="Reason">Why, in words.</param>
public sealed record JobEnqueue(JobOrder Order, int Fence, string? Outcome, string? Reason);

/// <summary>What came of <see cref="JobEnqueue"/>.</summary>
/// <param name="Fence">The job's fence; larger than asked for where another execution was faster.</param>
/// <param name="Held">Pause or Cancel when people want the run to stop: then nothing was sent.</param>
public sealed record JobSent(int Fence, DesiredState Held);

/// <summary>Names a stage's job, and what is wanted of it.</summary>
public sealed record JobRequest(string RunId, string Stage, DesiredState Desired);

/// <summary>The orchestrator's hand on the job protocol; each call has the effect of one however often it runs.</summary>
public sealed class JobActivities(IBlobStore blobs, JobControl jobs)
{
    /// <summary>Sends an attempt to the queue, unless people have paused or cancelled the run.</summary>
    [Function(nameof(EnqueueJob))]
    public async Task<JobSent> EnqueueJob([ActivityTrigger] JobEnqueue request, CancellationToken cancellation)
    {
        JobOrder order = request.Order;
        DesiredState desired = await RegistryActivities.DesiredAsync(blobs, order.RunId, cancellation);
        if (desired != DesiredState.Run)
        {
            if (desired == DesiredState.Cancel)
                await jobs.RequestAsync(order.RunId, order.Stage, desired, cancellation);
            return new JobSent(request.Fence, desired);
        }

        JobDocument job = await jobs.EnqueueAsync(
            order.Trainer.Machine, order.RunId, order.Stage, request.Fence, order.Job, request.Outcome, request.Reason, cancellation);
        return new JobSent(job.Fence, DesiredState.Run);
    }

    /// <summary>Looks at a job, and at what people want of the run.</summary>
    [Function(nameof(InspectJob))]
    public async Task<JobLook> InspectJob([ActivityTrigger] JobRequest request, CancellationToken cancellation)
    {
        JobStatus job = await jobs.InspectAsync(request.RunId, request.Stage, cancellation)
            ?? throw new UnusableInputException(
                $"Run '{request.RunId}', stage '{request.Stage}': its job document has been deleted. "
                + "Do not delete blobs of runs that are going on.");
        return new JobLook(job, await RegistryActivities.DesiredAsync(blobs, request.RunId, cancellation));
    }

    /// <summary>Tells a job's attempt to go on, pause or stop; it hears it with its next heartbeat.</summary>
    [Function(nameof(TellJob))]
    public Task TellJob([ActivityTrigger] JobRequest request, CancellationToken cancellation) =>
        jobs.RequestAsync(request.RunId, request.Stage, request.Desired, cancellation);

    /// <summary>Ends a job whose attempt does not answer.</summary>
    [Function(nameof(CancelUnresponsiveJob))]
    public Task CancelUnresponsiveJob([ActivityTrigger] JobRequest request, CancellationToken cancellation) =>
        jobs.CancelUnresponsiveAsync(request.RunId, request.Stage, cancellation);
}
