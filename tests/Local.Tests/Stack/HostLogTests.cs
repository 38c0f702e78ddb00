using Microsoft.Extensions.Logging;
using Rlhf.Local.Stack;
using Xunit;

namespace Rlhf.Local.Tests.Stack;

public sealed class HostLogTests : IDisposable
{
    private readonly string file = Path.GetTempFileName();

    [Fact]
    public void Requests_do_not_bury_what_the_host_says()
    {
        using (ILoggerFactory factory = LoggerFactory.Create(logging => DevStack.ConfigureLogging(logging, file, verbose: false)))
        {
            ILogger requests = factory.CreateLogger("Microsoft.AspNetCore.Hosting.Diagnostics"), run = factory.CreateLogger("RlhfRun");
#pragma warning disable CA1848, CA2254 // A test logs three lines.
            requests.LogInformation("Request finished");
            requests.LogWarning("Request failed");
            run.LogInformation("Run started");
#pragma warning restore CA1848, CA2254
        }

        string[] lines = File.ReadAllLines(file);
        Assert.Equal(2, lines.Length);
        Assert.EndsWith("Request failed", lines[0], StringComparison.Ordinal);
        Assert.EndsWith("Run started", lines[1], StringComparison.Ordinal);
    }

    public void Dispose() => File.Delete(file);
}
