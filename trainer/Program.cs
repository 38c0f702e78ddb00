using System.CommandLine;

var root = new RootCommand("The trainer of RLHF as durable functions: models, tokenizers, training methods and the job worker.");
return await root.Parse(args).InvokeAsync();
