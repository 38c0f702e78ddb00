using System.Diagnostics;
using Microsoft.DurableTask.Client;
using Microsoft.Extensions.DependencyInjection;
using Rlhf.Local.Engine;
using Rlhf.Local.Host;
using Xunit;

namespace Rlhf.Local.Tests;

/// <summary>A real host process is killed (SIGKILL) at random times and started again on its hub; everything ends as it should.</summary>
public sealed class CrashTests(ITestOutputHelper output) : IDisposable
{
    private static readonly TimeSpan Promise = TimeSpan.FromSeconds(5); // from a restart to progress
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(120); // on a machine that is busy with other things

    private readonly string _folder = Directory.CreateTempSubdirectory("rlhf-crash-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task Every_orchestration_ends_once_however_often_its_host_is_killed()
    {
        const int kills = 5, activitiesAtOnce = 20, activitiesOfEach = 3 * (4 + 8 + 2);
        CrashHost.Marks = Path.Combine(_folder, "marks.txt");
        var random = new Random(7);
        for (int kill = 0; kill < kills; kill++)
        {
            using Process host = CrashHost.Start(_folder);
            Assert.Equal("ready", await host.StandardOutput.ReadLineAsync());
            int before = CountMarks();
            var sinceStart = Stopwatch.StartNew();
            TimeSpan limit = kill == 0 ? Patience : Promise;
            while (CountMarks() == before && sinceStart.Elapsed < limit) await Task.Delay(5);
            Assert.NotEqual(before, CountMarks());
            output.WriteLine($"start {kill + 1}: progress after {sinceStart.ElapsedMilliseconds} ms");
            await Task.Delay(random.Next(10, 150));
            host.Kill();
            await host.WaitForExitAsync();
        }
        Assert.True(CountMarks() < CrashHost.Instances * activitiesOfEach, "the kills came too late to prove anything");

        await using EmbeddedHost last = await EmbeddedHost.CreateAsync(CrashHost.Options(_folder));
        using var patience = new CancellationTokenSource(Patience);
        for (int i = 0; i < CrashHost.Instances; i++)
        {
            OrchestrationMetadata done = await last.Client.WaitForInstanceCompletionAsync(
                $"s{i}", getInputsAndOutputs: true, patience.Token);
            Assert.Equal((OrchestrationRuntimeStatus.Completed, 2), (done.RuntimeStatus, done.ReadOutputAs<int>()));
        }

        var store = last.Services.GetRequiredService<InstanceStore>();
        Assert.Empty(store.Activities());
        Assert.Empty(store.Timers(DateTime.MaxValue).Due);
        await foreach (OrchestrationMetadata instance in last.Client.GetAllInstancesAsync())
        {
            List<HistoryEvent> history = store.History(instance.InstanceId);
            Assert.Single(history.OfType<ExecutionCompleted>());
            Assert.Equal(
                history.OfType<ScheduledAction>().Select(action => action.Id).Order(),
                history.OfType<ActionOutcome>().Select(outcome => outcome.Id).Order()); // each answered, and once
        }
        string[] marks = await File.ReadAllLinesAsync(CrashHost.Marks);
        int distinct = marks.Distinct().Count();
        output.WriteLine($"{distinct} activities, {marks.Length - distinct} of them repeated");
        Assert.Equal(CrashHost.Instances * activitiesOfEach, distinct);
        Assert.InRange(marks.Length - distinct, 0, kills * activitiesAtOnce);
    }

    private static int CountMarks() => File.Exists(CrashHost.Marks) ? File.ReadAllLines(CrashHost.Marks).Length : 0;
}
