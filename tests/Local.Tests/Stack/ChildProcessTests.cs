using Rlhf.Local.Stack;
using Xunit;

namespace Rlhf.Local.Tests.Stack;

public sealed class ChildProcessTests : IDisposable
{
    private static readonly Dictionary<string, string> NoSettings = [];
    private readonly string folder = Directory.CreateTempSubdirectory("rlhf-child-").FullName;

    private string Log => Path.Combine(folder, "child.log");

    [Fact]
    public async Task Output_and_settings_arrive_and_the_exit_code_is_told()
    {
        using ChildProcess child = ChildProcess.Start(
            "/bin/sh", ["-c", "echo out $COLOUR; echo err >&2; exit 3"], new Dictionary<string, string> { ["COLOUR"] = "blue" }, Log);

        Assert.Equal(3, await child.Exit.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken));
        Assert.Equal(["out blue", "err"], child.LastLines(5));
        Assert.Equal(["err"], child.LastLines(1));
    }

    [Fact]
    public async Task Stop_asks_first_and_the_process_may_finish_its_work()
    {
        using ChildProcess child = ChildProcess.Start(
            "/bin/sh", ["-c", "trap 'echo done; exit 0' TERM; echo ready; while true; do sleep 0.05; done"], NoSettings, Log);
        await ReadyAsync(child);

        await child.StopAsync(TimeSpan.FromSeconds(30));

        Assert.Equal(0, await child.Exit);
        Assert.Equal("done", child.LastLines(1).Single());
    }

    [Fact]
    public async Task Stop_ends_a_process_that_does_not_heed_it()
    {
        using ChildProcess child = ChildProcess.Start(
            "/bin/sh", ["-c", "trap '' TERM; echo ready; while true; do sleep 0.05; done"], NoSettings, Log);
        await ReadyAsync(child);

        await child.StopAsync(TimeSpan.FromSeconds(0.3));

        Assert.Equal(137, await child.Exit);
    }

    [Fact]
    public async Task Leftover_is_ended_only_if_its_id_still_means_the_same_process()
    {
        using ChildProcess child = ChildProcess.Start("/bin/sleep", ["60"], NoSettings, Log);

        Assert.False(await ChildProcess.StopLeftoverAsync(child.Id, child.Started.AddSeconds(-30), TimeSpan.FromSeconds(5)));
        Assert.False(child.Exit.IsCompleted);
        Assert.True(await ChildProcess.StopLeftoverAsync(child.Id, child.Started, TimeSpan.FromSeconds(5)));
        await child.Exit.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);
        Assert.False(await ChildProcess.StopLeftoverAsync(child.Id, child.Started, TimeSpan.FromSeconds(5)));
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);

    private static async Task ReadyAsync(ChildProcess child)
    {
        while (child.LastLines(1) is not ["ready"])
            await Task.Delay(20, TestContext.Current.CancellationToken);
    }
}
