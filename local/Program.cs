using System.CommandLine;
using System.Net;
using System.Runtime.InteropServices;
using Rlhf.Local;
using Rlhf.Local.Commands;
using Rlhf.Local.Stack;
using Spectre.Console;

const int Unexpected = 1;
const int BadInput = 2;
const int Interrupted = 130;

var spec = new Option<string?>("--spec") { Description = "The run spec (JSON). Default: the sample run." };
var data = new Option<string?>("--data") { Description = "The folder of the spec's data files. Default: the spec's folder." };
var outFolder = new Option<string>("--out") { Description = "Where results go.", DefaultValueFactory = _ => Defaults.Out };
var runId = new Option<string?>("--run-id") { Description = "The run's id. An id that the state knows is attached to and carried on." };
var state = new Option<string>("--state")
{
    Description = "The folder with everything that outlives the process: storage, engine, logs.",
    DefaultValueFactory = _ => Defaults.State,
    Recursive = true,
};
var port = new Option<int>("--port")
{
    Description = "The API's port; 0 takes any free one.",
    DefaultValueFactory = _ => DevStack.DefaultPort,
    Recursive = true,
};
var verbose = new Option<bool>("--verbose") { Description = "Log lines of the host on standard error.", Recursive = true };

var run = new Command("run", "One run, from spec to report. Exit code 0 only if it succeeded.") { spec, data, outFolder, runId };
run.SetAction(RunAsync);

var address = new Option<IPAddress>("--address")
{
    Description = "Where the API listens. Any other than loopback needs the setting FunctionsKey, which callers must send.",
    DefaultValueFactory = _ => IPAddress.Loopback,
    CustomParser = result =>
    {
        if (IPAddress.TryParse(result.Tokens[0].Value, out IPAddress? parsed))
            return parsed;
        result.AddError($"--address must be an IP address such as 127.0.0.1 or 0.0.0.0, not '{result.Tokens[0].Value}'.");
        return null;
    },
};
var up = new Command("up", "Only the stack (storage, API, trainer), until Ctrl+C.") { address };
up.SetAction((arguments, cancellation) => GuardAsync(arguments.GetValue(state)!, () => new UpCommand(
    arguments.GetValue(state)!, arguments.GetValue(address)!, arguments.GetValue(port), arguments.GetValue(verbose)).ExecuteAsync(Console.Out, cancellation)));

var historyOf = new Option<string>("--run-id") { Description = "The run.", Required = true };
var historyOut = new Option<string>("--out") { Description = "The folder to write to.", DefaultValueFactory = _ => "histories" };
var history = new Command("history", "Writes what the durable engine knows of a run, as JSON: for a bug report, or for 'replay'.")
{
    historyOf, historyOut,
};
history.SetAction((arguments, cancellation) => GuardAsync(arguments.GetValue(state)!, () => new HistoryCommand(
    arguments.GetValue(state)!, arguments.GetValue(historyOf)!, arguments.GetValue(historyOut)!).ExecuteAsync(Console.Out, cancellation)));

var files = new Argument<string[]>("files") { Description = "Files that 'history' wrote.", Arity = ArgumentArity.OneOrMore };
var replay = new Command("replay", "Runs this code through recorded histories, without any effect. Exit code 0 only if all still replay.")
{
    files,
};
replay.SetAction((arguments, cancellation) => GuardAsync(arguments.GetValue(state)!, () => new ReplayCommand(
    arguments.GetValue(files)!).ExecuteAsync(Console.Out, cancellation)));

var root = new RootCommand("RLHF as durable functions, on one machine. Without a command: 'run' with the sample spec.")
{
    run, up, history, replay, spec, data, outFolder, runId, state, port, verbose,
};
root.SetAction(RunAsync);

// The stack's parts end in order on Ctrl+C and SIGTERM; that takes longer than the two seconds that are the default here.
// So do they when the terminal goes away (SIGHUP), which System.CommandLine leaves to us.
using var hangUp = new CancellationTokenSource();
using PosixSignalRegistration registration = PosixSignalRegistration.Create(PosixSignal.SIGHUP, signal =>
{
    signal.Cancel = true;
    hangUp.Cancel();
});
return await root.Parse(args).InvokeAsync(
    new InvocationConfiguration { ProcessTerminationTimeout = TimeSpan.FromSeconds(60) }, hangUp.Token);

Task<int> RunAsync(ParseResult arguments, CancellationToken cancellation) => GuardAsync(arguments.GetValue(state)!, () => new RunCommand(
    arguments.GetValue(spec) ?? Path.GetRelativePath(Environment.CurrentDirectory, Path.Combine(BuildLayout.Samples, "sample.json")),
    arguments.GetValue(data),
    arguments.GetValue(outFolder)!,
    arguments.GetValue(state)!,
    arguments.GetValue(runId),
    arguments.GetValue(port),
    arguments.GetValue(verbose)).ExecuteAsync(AnsiConsole.Console, cancellation));

static async Task<int> GuardAsync(string state, Func<Task<int>> command)
{
    try
    {
        return await command();
    }
    catch (UserErrorException e)
    {
        await Console.Error.WriteLineAsync($"error: {e.Message}");
        return BadInput;
    }
    catch (OperationCanceledException)
    {
        return Interrupted;
    }
    catch (Exception e)
    {
        // Nobody foresaw this one: words for the terminal, the trace for whoever is to mend it.
        string details = Path.Combine(Directory.CreateDirectory(Path.Combine(state, "logs")).FullName, "error.log");
        await File.AppendAllTextAsync(details, $"{DateTime.UtcNow:O} {e}\n");
        await Console.Error.WriteLineAsync($"error: something unforeseen: {e.Message}\nDetails are in '{details}'. Start again to carry on.");
        return Unexpected;
    }
}
