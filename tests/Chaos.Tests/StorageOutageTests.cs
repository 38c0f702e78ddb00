using Rlhf.Report;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>
/// Storage that goes away under host and trainers. A trainer counts as lost after two silent seconds in these runs; the outages are longer,
/// and still nobody is lost, since storage that cannot be reached says nothing about a trainer.
/// </summary>
[Collection(nameof(ChaosRuns))]
public sealed class StorageOutageTests(ChaosRuns chaos)
{
    [Fact]
    public async Task Storage_that_stops_and_comes_back_costs_no_attempt()
    {
        const string run = "ppo-outage";
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync("ppo");
        int[] trainers = [.. stack.Trainers.Select(trainer => trainer.Id)];
        await stack.StartRunAsync("ppo", run);

        // Ended in good order and started again on the same data: connections are refused meanwhile.
        (TrainerProcess training, _) = await stack.AtStepAsync(run, Stages.Sft, 6);
        await stack.Azurite.StopAsync();
        await Task.Delay(TimeSpan.FromSeconds(6));
        Assert.Equal($"{run}/{Stages.Sft}", training.Present?.Job);
        await stack.Azurite.StartAsync();

        // Stopped where it stands: connections are taken, and nothing is answered.
        (training, _) = await stack.AtStepAsync(run, Stages.Ppo, 2);
        await stack.Azurite.FreezeAsync();
        await Task.Delay(TimeSpan.FromSeconds(10));
        Assert.Equal($"{run}/{Stages.Ppo}", training.Present?.Job);
        await stack.Azurite.ThawAsync();

        RunReport report = await stack.ReportAsync(run);
        Assert.Equal(expected["ppo"], RunFingerprint.Of(report));
        await RunChecks.AssertOneResultAsync(stack, report);
        await RunChecks.AssertUntouchedAsync(stack, report);
        Assert.Equal(trainers, stack.Trainers.Select(trainer => trainer.Id));
        Assert.All(stack.Trainers, trainer => Assert.False(trainer.HasExited, trainer.Tail));
        Assert.False(stack.Host.HasExited, stack.Host.Output);
    }
}
