using Rlhf.Jobs;
using Rlhf.Spec;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Native;
using TorchSharp;

namespace Rlhf.Trainer.Work;

/// <summary>
/// What a job computes with, and on which kind of thread. <see cref="TorchBackend"/> is the real one; the simulation brings one whose
/// methods are hash chains and whose threads wait on virtual time.
/// </summary>
internal interface IComputeBackend
{
    /// <summary>Prepares the calling thread, on which a job is about to compute.</summary>
    void EnterThread(RunSpec spec);

    /// <summary>Loads and verifies a job's inputs, and builds the method that works on them.</summary>
    /// <param name="job">The job.</param>
    /// <param name="spec">The run's spec.</param>
    /// <param name="resume">The checkpoint that will be loaded into the method; null on a first start.</param>
    /// <param name="scratch">A folder of the attempt's own.</param>
    /// <param name="cancellation">Cancels.</param>
    StageWork Build(JobSpec job, RunSpec spec, ICheckpointReader? resume, string scratch, CancellationToken cancellation);

    /// <summary>Bytes the job has taken at its highest since <see cref="EnterThread"/>; 0 where that is not measured.</summary>
    long PeakMemoryBytes => 0;

    /// <summary>Holds the computing thread until the task has ended; throws what it throws.</summary>
    void Wait(Task task);
}

/// <summary>libtorch on an operating system's thread.</summary>
internal sealed class TorchBackend(ContentCache cache, WorkerLog log) : IComputeBackend
{
    private ComputeDevice device;

    public void EnterThread(RunSpec spec)
    {
        torch.set_num_threads(spec.Trainer.Threads);
        device = spec.Trainer.Device;
        ProcessMemory.ResetPeak();
    }

    /// <summary>On the CPU the process's resident size; on CUDA the device's memory in use.</summary>
    public long PeakMemoryBytes => device == ComputeDevice.Cuda
        ? CudaMemory.Read() is { } memory ? memory.Total - memory.Free : 0
        : ProcessMemory.PeakBytes;

    public StageWork Build(JobSpec job, RunSpec spec, ICheckpointReader? resume, string scratch, CancellationToken cancellation) =>
        new StageInputs(cache, job, spec, scratch, log, cancellation).Build(resume);

    public void Wait(Task task) => task.GetAwaiter().GetResult(); // no synchronisation context to deadlock on
}
