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
public sealed record JobSent(int Fence, DesiredState Held)
{
    /// <summary>Why nothing was sent under this fence: the job document was found damaged, and the fence may have been claimed before.</summary>
    public string? Damage { get; init; }
}

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
                await UnlessDamagedAsync(jobs.RequestAsync(order.RunId, order.Stage, desired, cancellation));
            return new JobSent(request.Fence, desired);
        }

        try
        {
            JobDocument job = await jobs.EnqueueAsync(
                order.Trainer.Machine, order.RunId, order.Stage, request.Fence, order.Job, request.Outcome, request.Reason, cancellation);
            return new JobSent(job.Fence, DesiredState.Run);
        }
        catch (CorruptBlobException e)
        {
            return new JobSent(request.Fence, DesiredState.Run) { Damage = e.Message };
        }
    }

    /// <summary>Looks at a job, and at what people want of the run.</summary>
    [Function(nameof(InspectJob))]
    public async Task<JobLook> InspectJob([ActivityTrigger] JobRequest request, CancellationToken cancellation) =>
        new(await InspectAsync(request, cancellation), await RegistryActivities.DesiredAsync(blobs, request.RunId, cancellation));

    /// <summary>Tells a job's attempt to go on, pause or stop; it hears it with its next heartbeat.</summary>
    [Function(nameof(TellJob))]
    public Task TellJob([ActivityTrigger] JobRequest request, CancellationToken cancellation) =>
        UnlessDamagedAsync(jobs.RequestAsync(request.RunId, request.Stage, request.Desired, cancellation));

    /// <summary>Ends a job whose attempt does not answer.</summary>
    [Function(nameof(CancelUnresponsiveJob))]
    public Task CancelUnresponsiveJob([ActivityTrigger] JobRequest request, CancellationToken cancellation) =>
        UnlessDamagedAsync(jobs.CancelUnresponsiveAsync(request.RunId, request.Stage, cancellation));

    private async Task<JobStatus> InspectAsync(JobRequest request, CancellationToken cancellation)
    {
        try
        {
            return await jobs.InspectAsync(request.RunId, request.Stage, cancellation)
                ?? JobStatus.Damaged($"The blob '{BlobLayout.Job(request.RunId, request.Stage)}' is gone.");
        }
        catch (CorruptBlobException e)
        {
            return JobStatus.Damaged(e.Message);
        }
    }

    /// <summary>A damaged job document is nobody's any more; the next look sees it, and decides what becomes of the job.</summary>
    private static async Task UnlessDamagedAsync(Task request)
    {
        try
        {
            await request;
        }
        catch (CorruptBlobException)
        {
            // See above.
        }
    }
}
