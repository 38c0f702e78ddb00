using System.Diagnostics;

namespace Rlhf.Local.Stack;

/// <summary>
/// Keeps one trainer process running: starts it again when it dies, slower each time, and gives up when it does nothing but die.
/// What the dead one was at, the orchestrator gives to the next one; the supervisor knows nothing of jobs.
/// </summary>
internal sealed class TrainerSupervisor : IAsyncDisposable
{
    private const int MaxQuickDeaths = 5;
    private static readonly TimeSpan Quick = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(20);

    private readonly StateFolder state;
    private readonly IReadOnlyDictionary<string, string> settings;
    private readonly Action<string> tell;
    private readonly CancellationTokenSource stopping = new();

    private TrainerSupervisor(StateFolder state, IReadOnlyDictionary<string, string> settings, Action<string> tell)
    {
        this.state = state;
        this.settings = settings;
        this.tell = tell;
        Completion = SuperviseAsync();
    }

    /// <summary>Ends when <see cref="DisposeAsync"/> was called; fails with a <see cref="UserErrorException"/> on a crash loop.</summary>
    public Task Completion { get; }

    /// <summary>Starts the trainer.</summary>
    /// <exception cref="UserErrorException">It has not been built.</exception>
    public static TrainerSupervisor Start(StateFolder state, IReadOnlyDictionary<string, string> settings, Action<string> tell)
    {
        if (!File.Exists(BuildLayout.TrainerProgram))
            throw new UserErrorException($"The trainer is not built: '{BuildLayout.TrainerProgram}' is missing. Run 'dotnet build local'.");
        return new TrainerSupervisor(state, settings, tell);
    }

    /// <summary>Ends the trainer (SIGTERM: it hands its job back first) and the watch over it.</summary>
    public async ValueTask DisposeAsync()
    {
        await stopping.CancelAsync();
        await Completion.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        stopping.Dispose();
    }

    private async Task SuperviseAsync()
    {
        for (int quickDeaths = 0; !stopping.IsCancellationRequested;)
        {
            var clock = Stopwatch.StartNew();
            using ChildProcess trainer = ChildProcess.Start(
                BuildLayout.DotNet, [BuildLayout.TrainerProgram, "work"], settings, state.Log("trainer"));
            state.Record("trainer", trainer);
            await Task.WhenAny(trainer.Exit, Task.Delay(Timeout.Infinite, stopping.Token));
            if (stopping.IsCancellationRequested)
            {
                await trainer.StopAsync(Grace);
                return;
            }

            quickDeaths = clock.Elapsed < Quick ? quickDeaths + 1 : 0;
            string death = Describe(await trainer.Exit);
            if (quickDeaths == MaxQuickDeaths)
            {
                throw new UserErrorException(
                    $"The trainer {death} {MaxQuickDeaths} times in a row within seconds of its start. Its last words ({state.Log("trainer")}):\n"
                    + string.Join("\n", trainer.LastLines(8)));
            }

            TimeSpan delay = TimeSpan.FromSeconds(quickDeaths == 0 ? 0 : 0.5 * Math.Pow(2, quickDeaths - 1));
            tell($"the trainer {death}; starting it again" + (quickDeaths == 0 ? string.Empty : $" in {delay.TotalSeconds:0.#} s"));
            await Task.Delay(delay, stopping.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private static string Describe(int exitCode) => exitCode switch
    {
        4 => "was wedged in a step and ended itself",
        137 => "was killed (signal 9; by hand, or for want of memory)",
        > 128 => $"was ended by signal {exitCode - 128}",
        _ => $"ended with exit code {exitCode}",
    };
}
