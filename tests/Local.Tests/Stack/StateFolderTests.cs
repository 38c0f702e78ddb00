using System.Net;
using System.Net.Sockets;
using Rlhf.Local.Stack;
using Xunit;

namespace Rlhf.Local.Tests.Stack;

public sealed class StateFolderTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("rlhf-state-").FullName;

    [Fact]
    public void Second_owner_is_refused_with_the_first_ones_id_until_that_lets_go()
    {
        using (StateFolder.Open(folder))
        {
            UserErrorException refusal = Assert.Throws<UserErrorException>(() => StateFolder.Open(folder));
            Assert.Contains(folder, refusal.Message, StringComparison.Ordinal);
            Assert.Contains($"process {Environment.ProcessId}", refusal.Message, StringComparison.Ordinal);
            Assert.Contains("--state", refusal.Message, StringComparison.Ordinal);
        }

        StateFolder.Open(folder).Dispose();
    }

    [Fact]
    public void Ports_stay_the_same_until_somebody_else_takes_one()
    {
        StoragePorts first = Take();
        Assert.Equal(first, Take());
        Assert.Equal(3, new HashSet<int> { first.Blob, first.Queue, first.Table }.Count);

        using var other = new TcpListener(IPAddress.Loopback, first.Queue);
        other.Start();
        Assert.False(StateFolder.IsFree(first.Queue));
        Assert.DoesNotContain(first.Queue, new[] { Take() }.SelectMany(ports => new[] { ports.Blob, ports.Queue, ports.Table }));
    }

    [Fact]
    public async Task Processes_of_a_start_that_was_killed_are_ended_by_the_next()
    {
        ChildProcess child;
        using (StateFolder killed = StateFolder.Open(folder))
        {
            child = ChildProcess.Start("/bin/sleep", ["60"], new Dictionary<string, string>(), killed.Log("sleeper"));
            killed.Record("sleeper", child);
        }

        using (child)
        using (StateFolder next = StateFolder.Open(folder))
        {
            Assert.Equal(["sleeper"], await next.StopLeftoversAsync());
            await child.Exit.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);
            Assert.Empty(await next.StopLeftoversAsync());
        }
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);

    private StoragePorts Take()
    {
        using StateFolder state = StateFolder.Open(folder);
        return state.TakePorts();
    }
}
