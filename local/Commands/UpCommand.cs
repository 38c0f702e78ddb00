using System.Net;
using Rlhf.Local.Stack;

namespace Rlhf.Local.Commands;

/// <summary>Only the stack, until it is stopped: for those who bring their own client.</summary>
internal sealed record UpCommand(string State, IPAddress Address, int Port, bool Verbose)
{
    /// <summary>Runs until cancelled.</summary>
    /// <exception cref="UserErrorException">The stack cannot start, or a part of it failed.</exception>
    public async Task<int> ExecuteAsync(TextWriter output, CancellationToken cancellation)
    {
        await using DevStack stack = await DevStack.StartAsync(
            new StackOptions(State, Address, Port, Defaults.Machine, Verbose), output.WriteLine, cancellation);
        await output.WriteLineAsync($"runs:    {stack.BaseUrl}api/runs");
        await output.WriteLineAsync($"storage: {stack.StorageUrl} (Azurite)");
        await output.WriteLineAsync($"logs:    {Path.Combine(stack.State.Root, "logs")}");
        await output.WriteLineAsync("Unfinished runs go on. Ctrl+C stops; the next start carries on.");

        await Task.WhenAny(stack.Completion, Task.Delay(Timeout.Infinite, cancellation));
        if (stack.Completion.IsCompleted)
            await stack.Completion;
        await output.WriteLineAsync("stopping");
        return 0;
    }
}
