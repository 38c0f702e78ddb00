using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.DurableTask.Converters;
using Rlhf.Local.Engine;
using Rlhf.Local.Host;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Functions.Tests;

/// <summary>
/// Runs that a released version began must be carried on by the next one. The corpus, <c>histories/{version}/{scenario}/</c>, holds what
/// real runs of each released version of the orchestrators left behind; the present code must still replay all of it. Code that cannot
/// needs another <c>defaultVersion</c> in host.json and a branch for the old one, or runs that are finished before it is deployed.
/// <para><c>dotnet run --project tests/Functions.Tests -- -class Rlhf.Functions.Tests.ReplayCorpusTests -explicit only</c> records them.</para>
/// </summary>
public sealed class ReplayCorpusTests(FunctionApp app)
{
    private static readonly string Corpus = Path.Combine(RoomsTests.Repository, "tests", "Functions.Tests", "histories");
    private static readonly FunctionCatalog Code = new([typeof(RlhfServices).Assembly], _ => false);
    private static readonly PayloadSerializer Payloads = new(JsonDataConverter.Default, new EngineOptions());

    public static TheoryData<string> Files =>
        [.. Directory.GetFiles(Corpus, "*.json", SearchOption.AllDirectories).Order(StringComparer.Ordinal).Select(file => Path.GetRelativePath(Corpus, file))];

    [Theory]
    [MemberData(nameof(Files))]
    public void What_a_released_version_began_still_replays(string file) => Replay(Read(file));

    [Fact]
    public void The_corpus_knows_the_present_version_and_each_of_its_orchestrators()
    {
        string version = JsonNode.Parse(File.ReadAllText(Path.Combine(RoomsTests.Repository, "host.json")))!
            ["extensions"]!["durableTask"]!["defaultVersion"]!.GetValue<string>();
        string[] recorded = [.. Files.Select(row => row.Data).Where(file => file.StartsWith($"{version}/", StringComparison.Ordinal))
            .Select(file => Read(file).Events.OfType<ExecutionStarted>().First().Name).Distinct().Order(StringComparer.Ordinal)];
        string[] present =
        [
            .. Code.With<Microsoft.Azure.Functions.Worker.OrchestrationTriggerAttribute>().Select(function => function.Function.Name)
                .Order(StringComparer.Ordinal),
        ];
        Assert.Equal(present, recorded);
    }

    [Fact]
    public void Every_change_of_what_was_asked_for_is_detected()
    {
        var tried = new SortedDictionary<string, int>(StringComparer.Ordinal);
        foreach (string file in Files.Select(row => row.Data))
        {
            HistoryFile history = Read(file);
            foreach ((string mutation, HistoryFile mutant) in Mutants(history))
            {
                tried[mutation] = tried.GetValueOrDefault(mutation) + 1;
                Assert.True(IsDetected(mutant), $"{file}: '{mutation}' was not noticed");
            }
        }

        Assert.Equal(
            ["actions reordered", "activity added", "activity dropped", "child renamed", "input changed", "renamed", "timer changed",
             "value in the input changed"],
            tried.Keys);
        Figures.Report(
            $"replay: {Files.Count} histories replay; {tried.Values.Sum()} mutations detected of {tried.Values.Sum()} "
            + $"({string.Join(", ", tried.Select(pair => $"{pair.Key} {pair.Value}"))})");
    }

    [Theory(Explicit = true)]
    [InlineData("succeeded")]
    [InlineData("cancelled")]
    [InlineData("paused-and-resumed")]
    [InlineData("approved")]
    [InlineData("trainer-lost")]
    [InlineData("waiting-for-a-trainer")]
    [InlineData("data-refused")]
    public async Task The_corpus_is_recorded_from_real_runs(string scenario)
    {
        TestSpec spec = await TestSpec.CreateAsync(app);
        switch (scenario)
        {
            case "succeeded":
                await using (app.Trainer(spec))
                {
                    await app.StartAsync(spec);
                    await app.EndAsync(spec.RunId);
                }

                break;
            case "cancelled":
                await using (app.Trainer(spec, _ => new FakeBehaviour { Steps = 100_000 }))
                {
                    await app.StartAsync(spec);
                    await app.UntilAsync(spec.RunId, view => view.Progress?.Step > 1);
                    await app.PostAsync($"api/runs/{spec.RunId}/cancel");
                    await app.EndAsync(spec.RunId);
                }

                break;
            case "paused-and-resumed":
                await using (app.Trainer(spec, attempt => new FakeBehaviour { Steps = attempt is { Stage: Stages.Sft, Fence: 1 } ? 100_000 : 3 }))
                {
                    await app.StartAsync(spec);
                    await app.UntilAsync(spec.RunId, view => view.Progress?.Step > 1);
                    await app.PostAsync($"api/runs/{spec.RunId}/pause");
                    await app.UntilAsync(spec.RunId, view => view.State == RunStates.Paused);
                    await app.PostAsync($"api/runs/{spec.RunId}/resume");
                    await app.EndAsync(spec.RunId);
                }

                break;
            case "approved":
                await using (app.Trainer(spec.With("promotion.requireApproval", true)))
                {
                    await app.StartAsync(spec);
                    await app.UntilAsync(spec.RunId, view => view.State == RunStates.WaitingForApproval);
                    await app.PostAsync($"api/runs/{spec.RunId}/approval", """{"approved":true,"by":"a person"}""");
                    await app.EndAsync(spec.RunId);
                }

                break;
            case "trainer-lost":
                spec = spec.With("trainer.lostAfterSeconds", 2);
                await using (app.Trainer(spec, attempt => new FakeBehaviour { DieAt = attempt is { Stage: Stages.Ppo, Fence: 2 } ? 3 : null }))
                {
                    await app.StartAsync(spec);
                    await app.EndAsync(spec.RunId);
                }

                break;
            case "waiting-for-a-trainer":
                await app.StartAsync(spec);
                await app.UntilAsync(
                    spec.RunId, view => view.Activity?.Contains("waiting for a trainer", StringComparison.Ordinal) == true);
                break;
            case "data-refused":
                await app.UploadAsync($"tests/{spec.RunId}/preferences.jsonl", "no row at all\n");
                await app.StartAsync(spec);
                await app.EndAsync(spec.RunId);
                break;
        }

        var store = app.Service<InstanceStore>();
        string folder = Path.Combine(Corpus, "1.0", scenario);
        Directory.CreateDirectory(folder);
        string[] instances = [.. store.List(string.Empty, spec.RunId, int.MaxValue).Select(row => row.Id)];
        foreach (string id in instances)
        {
            string name = id == spec.RunId ? "run" : id[(spec.RunId.Length + 1)..].Replace(':', '.');
            await File.WriteAllTextAsync(Path.Combine(folder, name + ".json"), new HistoryFile(id, store.History(id)).ToJson()
                .Replace(RoomsTests.Repository + Path.DirectorySeparatorChar, string.Empty, StringComparison.Ordinal)); // stack traces name files
        }

        await app.PostAsync($"api/runs/{spec.RunId}/cancel");
    }

    private static HistoryFile Read(string file) => HistoryFile.FromJson(File.ReadAllText(Path.Combine(Corpus, file)));

    private static void Replay(HistoryFile history) => history.Replay(Payloads, name => DurableFunctions.FindOrchestrator(Code, name));

    private static bool IsDetected(HistoryFile mutant)
    {
        try
        {
            Replay(mutant);
            return false;
        }
        catch (NonDeterminismException)
        {
            return true;
        }
    }

    /// <summary>
    /// Histories as other code would have left them: that this code does not replay them is the same as that one not replaying this one's.
    /// </summary>
    private static IEnumerable<(string Mutation, HistoryFile Mutant)> Mutants(HistoryFile history)
    {
        for (int i = 0; i < history.Events.Count; i++)
        {
            switch (history.Events[i])
            {
                case TaskScheduled task:
                    yield return ("renamed", With(task with { Name = task.Name + "2" }));
                    yield return ("input changed", With(task with { Input = Changed(task.Input) }));
                    if (WithAnotherLeaf(task.Input) is { } input)
                        yield return ("value in the input changed", With(task with { Input = input }));
                    yield return ("activity dropped", Without(task.Id));
                    yield return ("activity added", WithBefore(new TaskScheduled(task.Id, "Added", "1")));
                    break;
                case TimerCreated timer:
                    yield return ("timer changed", With(timer with { FireAt = timer.FireAt.AddSeconds(1) }));
                    break;
                case SubOrchestrationCreated child:
                    yield return ("child renamed", With(child with { InstanceId = child.InstanceId + "2" }));
                    break;
            }

            if (history.Events[i] is ScheduledAction first && history.Events.Skip(i + 1).OfType<ScheduledAction>().FirstOrDefault() is { } second)
                yield return ("actions reordered", Swapped(first, second));

            HistoryFile With(HistoryEvent changed) => history with { Events = [.. history.Events.Take(i), changed, .. history.Events.Skip(i + 1)] };

            HistoryFile WithBefore(ScheduledAction added) => history with
            {
                Events = [.. history.Events.Take(i), added, .. history.Events.Skip(i).Select(e => Shifted(e, added.Id, 1))],
            };
        }

        HistoryFile Without(int id) => history with
        {
            Events =
            [
                .. history.Events.Where(e => e is not (ScheduledAction or ActionOutcome) || IdOf(e) != id).Select(e => Shifted(e, id, -1)),
            ],
        };

        HistoryFile Swapped(ScheduledAction first, ScheduledAction second) => history with
        {
            Events =
            [
                .. history.Events.Select(e => e == first ? second with { Id = first.Id } : e == second ? first with { Id = second.Id } : e),
            ],
        };
    }

    /// <summary>Numbers at and after one move, as they do when an action is added or dropped there.</summary>
    private static HistoryEvent Shifted(HistoryEvent e, int from, int by) => e switch
    {
        ScheduledAction action when action.Id >= from => action with { Id = action.Id + by },
        ActionOutcome outcome when outcome.Id >= from => outcome with { Id = outcome.Id + by },
        _ => e,
    };

    private static int IdOf(HistoryEvent e) => e is ScheduledAction action ? action.Id : ((ActionOutcome)e).Id;

    /// <summary>The input with its last text or number changed, however deep; null where it has none.</summary>
    private static string? WithAnotherLeaf(string? input)
    {
        JsonNode? root = input is null ? null : JsonNode.Parse(input);
        JsonValue? last = Leaves(root).LastOrDefault(leaf => leaf.Parent is not null);
        if (last is null)
            return null;
        last.ReplaceWith(last.GetValueKind() == JsonValueKind.String ? JsonValue.Create(last + "2") : JsonValue.Create(987_654));
        return root!.ToJsonString();
    }

    private static IEnumerable<JsonValue> Leaves(JsonNode? node) => node switch
    {
        JsonObject members => members.SelectMany(member => Leaves(member.Value)),
        JsonArray elements => elements.SelectMany(Leaves),
        JsonValue value when value.GetValueKind() is JsonValueKind.String or JsonValueKind.Number => [value],
        _ => [],
    };

    [Fact]
    public void A_field_that_a_later_version_adds_to_an_input_does_not_park_what_is_in_flight()
    {
        foreach (string file in Files.Select(row => row.Data))
        {
            HistoryFile history = Read(file);
            Replay(history with { Events = [.. history.Events.Select(e => e is TaskScheduled task ? task with { Input = WithoutOneMember(task.Input) } : e)] });
        }
    }

    private static string? WithoutOneMember(string? input)
    {
        if (input is null || JsonNode.Parse(input) is not JsonObject { Count: > 1 } members)
            return input;
        members.RemoveAt(members.Count - 1);
        return members.ToJsonString();
    }

    private static string Changed(string? input) => JsonSerializer.Serialize(new { was = input });
}
