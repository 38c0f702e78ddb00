using System.CommandLine;
using Rlhf.Trainer.Work;

var root = new RootCommand("The trainer of RLHF as durable functions: models, tokenizers, training methods and the job worker.");

var work = new Command("work", "Takes training jobs from the queue and runs them: the container's entry point.");
work.SetAction(async (_, _) => await JobWorker.RunAsync());
root.Subcommands.Add(work);

return await root.Parse(args).InvokeAsync();
