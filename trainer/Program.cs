using System.CommandLine;
using Rlhf.Trainer.Commands;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;

var root = new RootCommand("The trainer of RLHF as durable functions: models, tokenizers, training methods and the job worker.")
{
    LogitsCommand.Create(),
    GenerateCommand.Create(),
    ScoreCommand.Create(),
    TokenizeCommand.Create(),
    ChatCommand.Create(),
    WorkCommand.Create(),
};

ParseResult command = root.Parse(args);
if (command.Errors.Count > 0) return Fail(command.Errors[0].Message);
try
{
    // The worker handles signals itself: it needs longer than the command line would give it.
    var configuration = new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null };
    return await command.InvokeAsync(configuration);
}
catch (JobInputException e)
{
    return Fail($"{e.Message} {e.Remedy}");
}
catch (Exception e) when (
    e is CommandException or ModelFormatException or TorchNativeException or IOException or UnauthorizedAccessException)
{
    return Fail(e.Message);
}
catch (Exception e)
{
    return Fail($"{e.GetType().Name}: {e.Message}");
}

// One line on standard error; standard output belongs to results.
static int Fail(string message)
{
    Console.Error.WriteLine($"error: {message.ReplaceLineEndings(" ")}");
    return 1;
}
