using Rlhf.Jobs;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;

namespace Rlhf.Trainer.Work;

/// <summary>What an exception means for the run: its kind, which has a budget of its own, and what a person can do.</summary>
internal static class JobErrors
{
    private const int NoSpaceLeft = 28; // ENOSPC
    private const int QuotaExceeded = 122; // EDQUOT

    /// <summary>Longer texts do not belong into an orchestration's history.</summary>
    private const int LongestMessage = 2000;

    public static JobError Describe(Exception e, JobAttempt attempt)
    {
        (JobErrorKind kind, string remedy) = e switch
        {
            JobInputException input => (JobErrorKind.Input, input.Remedy),
            PreflightFailedException => (JobErrorKind.Input,
                "The models' numbers do not agree; do not train on. Check the SFT and reward model folders."),
            LoraTargetException => (JobErrorKind.Input, "Name modules of the model in lora.targets, or leave it empty."),
            ModelFormatException => (JobErrorKind.Input, "Give a model folder in Hugging Face's format that this trainer supports."),
            RewardEndpointException => (JobErrorKind.Endpoint,
                "See that the endpoint is up, reachable from the trainer and fast enough; then raise rewards[].retries or timeoutSeconds."),
            CheckpointMismatchException => (JobErrorKind.Input,
                "The stage's checkpoint is of another version of the trainer or another spec. Start a new run under a new runId."),
            // Nobody else writes there: the storage has lost what it had acknowledged. Another attempt goes on from what is left.
            CorruptBlobException own when own.Path.StartsWith(attempt.Path, StringComparison.Ordinal) => (JobErrorKind.CorruptCheckpoint,
                "See what writes to the storage account beside this app, or why it loses what it has acknowledged."),
            CorruptBlobException => (JobErrorKind.Input,
                "A stored input is damaged. Restore the blob, or start a new run so that it is made again."),
            DivergedException => (JobErrorKind.Diverged,
                "Lower the stage's learningRate or raise its warmupFraction; look at grad_norm in the stage's metrics."),
            InsufficientMemoryException => (JobErrorKind.OutOfMemory, "Take a larger machine or a smaller model."),
            _ when OutOfMemory.Is(e) => (JobErrorKind.OutOfMemory,
                "Set or lower trainer.microBatchSize; where it is 1 already, lower the token limits, or take a larger machine."),
            _ when IsDiskFull(e) => (JobErrorKind.DiskFull,
                "Free space in the trainer's cache folder (RLHF_CACHE), or give the machine a larger disk."),
            _ => (JobErrorKind.Internal, "Look at the trainer's log around this time; if it repeats, report it with the run's spec."),
        };
        string where = $"Run '{attempt.RunId}', stage '{attempt.Stage}', attempt {attempt.Fence}";
        string what = kind == JobErrorKind.Internal ? $"{e.GetType().Name}: {e.Message}" : e.Message;
        string message = $"{where}: {what}";
        return new JobError(kind, message.Length <= LongestMessage ? message : message[..LongestMessage] + " ...", remedy);
    }

    private static bool IsDiskFull(Exception e) =>
        e is IOException io
        && ((io.HResult & 0xFFFF) is NoSpaceLeft or QuotaExceeded || io.Message.Contains("No space left", StringComparison.OrdinalIgnoreCase));
}
