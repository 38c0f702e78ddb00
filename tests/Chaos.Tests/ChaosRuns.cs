using System.Diagnostics;
using System.Globalization;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>
/// One stack for all tests that hurt it, and the runs that nobody hurt, which the others are compared with. A test leaves the stack as it
/// likes: whoever is next gets it whole again.
/// </summary>
[CollectionDefinition(nameof(ChaosRuns))]
public sealed class ChaosRuns : IAsyncLifetime, ICollectionFixture<ChaosRuns>
{
    /// <summary>How many trainers serve the queue.</summary>
    public const int Trainers = 3;

    private readonly Dictionary<string, string> undisturbed = [];
    private ChaosStack? stack;

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        if (stack is not null)
            await stack.DisposeAsync();
    }

    /// <summary>The stack, with all its parts alive.</summary>
    internal async Task<ChaosStack> StackAsync()
    {
        if (stack is null)
            stack = await ChaosStack.StartAsync(Trainers);
        else
            await stack.MendAsync();
        return stack;
    }

    /// <summary>The fingerprints of these specs' undisturbed runs.</summary>
    internal async Task<IReadOnlyDictionary<string, string>> UndisturbedAsync(params IEnumerable<string> specs)
    {
        string[] missing = [.. specs.Where(spec => !undisturbed.ContainsKey(spec))];
        var clock = Stopwatch.StartNew();
        foreach (string spec in missing)
            await stack!.StartRunAsync(spec, $"{spec}-undisturbed");
        foreach (string spec in missing)
            undisturbed[spec] = RunFingerprint.Of(await stack!.ReportAsync($"{spec}-undisturbed"));
        if (missing.Length > 0)
        {
            Figures.Report(string.Create(
                CultureInfo.InvariantCulture, $"undisturbed runs ({string.Join(", ", missing)}): {clock.Elapsed.TotalSeconds:0.0} s"));
        }

        return undisturbed;
    }
}
