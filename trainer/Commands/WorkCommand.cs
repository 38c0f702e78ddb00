using System.CommandLine;
using Rlhf.Trainer.Work;

namespace Rlhf.Trainer.Commands;

/// <summary>The job worker: the container's entry point.</summary>
internal static class WorkCommand
{
    public static Command Create()
    {
        var command = new Command("work", "Take training jobs from the queue and run them: the container's entry point.");
        command.SetAction(async (_, _) => await JobWorker.RunAsync());
        return command;
    }
}
