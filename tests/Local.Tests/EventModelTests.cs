using FsCheck;
using FsCheck.Fluent;
using Microsoft.Azure.Functions.Worker;
using Microsoft.DurableTask;
using Rlhf.Local.Engine;
using Xunit;

namespace Rlhf.Local.Tests;

public static class EventModelFunctions
{
    /// <summary>
    /// Does what it is told: wait for an event of a name, cancel the oldest wait, continue as new, end. Its output tells which wait got
    /// which event, in the order in which they were got.
    /// </summary>
    [Function("Puppet")]
    public static async Task<string?> PuppetAsync([OrchestrationTrigger] TaskOrchestrationContext context, string log)
    {
        var waits = new List<(Task Task, CancellationTokenSource Cancel)>();
        int number = 0;
        while (true)
        {
            string told = await context.WaitForExternalEvent<string>("tell");
            switch (told)
            {
                case "cancel":
                    waits.RemoveAll(wait => wait.Task.IsCompleted);
                    if (waits.Count == 0) break;
                    waits[0].Cancel.Cancel();
                    waits.RemoveAt(0);
                    break;
                case "continue":
                    context.ContinueAsNew($"{log}|");
                    return null;
                case "end":
                    return log;
                default:
                    var cancel = new CancellationTokenSource();
                    waits.Add((WaitAsync(told, ++number, cancel.Token), cancel));
                    break;
            }
        }

        async Task WaitAsync(string name, int wait, CancellationToken cancelled)
        {
            try
            {
                int got = await context.WaitForExternalEvent<int>(name, cancelled);
                log += $" {wait}:{name}{got}";
            }
            catch (TaskCanceledException)
            {
                log += $" {wait}:none";
            }
        }
    }
}

/// <summary>
/// External events against a model: raised, waited for, cancelled, carried into the next generation, held back by a suspension, in
/// random order; the engine takes them in batches as they come, the model one by one, and both must give the same.
/// </summary>
public sealed class EventModelTests
{
    private const int ScriptsAtOnce = 10;

    private static readonly string[] Steps =
    [
        "raise a", "raise a", "raise b", "raise A", "tell a", "tell a", "tell b", "tell B", "tell cancel", "tell continue", "suspend", "resume", "pause",
    ];

    [Fact]
    public async Task Every_event_goes_to_the_wait_that_the_model_gives_it_to()
    {
        await using TestHost host = await TestHost.StartAsync();
        int samples = 0;
        Gen<string[]> script = from length in Gen.Choose(1, 40) from steps in Gen.Elements(Steps).ArrayOf(length) select steps;
        Prop.ForAll(script.ArrayOf(ScriptsAtOnce).ToArbitrary(), scripts =>
        {
            int sample = ++samples;
            string[] got = Task.WhenAll(scripts.Select((steps, i) => RunAsync(host, $"{sample}-{i}", steps))).GetAwaiter().GetResult();
            string[] expected = [.. scripts.Select(Model)];
            int wrong = Array.FindIndex([.. got.Zip(expected)], pair => pair.First != pair.Second);
            return wrong < 0
                ? true.Label("")
                : false.Label($"{string.Join("; ", scripts[wrong])}: the engine gave '{got[wrong]}', the model '{expected[wrong]}'");
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(30).WithQuietOnSuccess(true));
    }

    private static async Task<string> RunAsync(TestHost host, string id, string[] steps)
    {
        await host.BeginAsync("Puppet", "", id);
        var engine = host.Engine;
        int raised = 0;
        foreach (string step in steps.Append("resume").Append("tell end"))
        {
            switch (step.Split(' '))
            {
                case ["raise", var name]:
                    await host.Client.RaiseEventAsync(id, name, ++raised);
                    break;
                case ["tell", var what]:
                    await host.Client.RaiseEventAsync(id, "tell", what);
                    break;
                case ["suspend"]: // past the client, which refuses to suspend twice
                    await host.Store.SendAsync(id, new ExecutionSuspended(null), _ => { }, unpark: false);
                    engine.Wake(id);
                    break;
                case ["resume"]:
                    await host.Store.SendAsync(id, new ExecutionResumed(null), _ => { }, unpark: false);
                    engine.Wake(id);
                    break;
                default: // so that the next step finds a turn that is over
                    await Task.Delay(2);
                    break;
            }
        }
        return (await host.CompletionAsync(id)).ReadOutputAs<string>()!;
    }

    /// <summary>One event after the other: the newest live wait of its name gets it, else it is kept, and a new wait takes the oldest kept.</summary>
    private static string Model(string[] steps)
    {
        string log = "";
        int raised = 0, number = 0;
        var kept = new List<(char Name, int Value)>();
        var waits = new List<(char Name, string Told, int Number)>();
        foreach (string step in steps)
        {
            char name = char.ToLowerInvariant(step[^1]);
            switch (step.Split(' '))
            {
                case ["raise", _]:
                    int newest = waits.FindLastIndex(wait => wait.Name == name);
                    raised++;
                    if (newest < 0) kept.Add((name, raised));
                    else Give(newest, raised);
                    break;
                case ["tell", "cancel"] when waits.Count > 0:
                    log += $" {waits[0].Number}:none";
                    waits.RemoveAt(0);
                    break;
                case ["tell", "continue"]:
                    log += "|";
                    number = 0;
                    waits.Clear();
                    break;
                case ["tell", "a" or "b" or "B"]:
                    waits.Add((name, step[5..], ++number));
                    int oldest = kept.FindIndex(e => e.Name == name);
                    if (oldest < 0) break;
                    Give(waits.Count - 1, kept[oldest].Value);
                    kept.RemoveAt(oldest);
                    break;
            }
        }
        return log;

        void Give(int wait, int value)
        {
            log += $" {waits[wait].Number}:{waits[wait].Told}{value}";
            waits.RemoveAt(wait);
        }
    }
}
