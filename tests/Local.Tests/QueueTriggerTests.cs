using Azure.Storage.Queues;
using Azure.Storage.Queues.Models;
using Microsoft.Extensions.DependencyInjection;
using Rlhf.Local.Stack;
using Xunit;

namespace Rlhf.Local.Tests;

/// <summary>The queue trigger against a real Azurite.</summary>
public sealed class QueueTriggerTests : IAsyncLifetime
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rlhf-queue-").FullName;
    private StateFolder _state = null!;
    private ChildProcess _azurite = null!;
    private string _connection = "";

    public async ValueTask InitializeAsync()
    {
        _state = StateFolder.Open(_folder);
        StoragePorts ports = _state.TakePorts();
        _azurite = await Azurite.StartAsync(_state, ports, _ => { }, TestContext.Current.CancellationToken);
        _connection = ports.ConnectionString;
    }

    public async ValueTask DisposeAsync()
    {
        await _azurite.StopAsync(TimeSpan.FromSeconds(10));
        _state.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public async Task Messages_reach_the_function_once_and_poison_is_set_aside_without_blocking_the_others()
    {
        await using TestHost host = await TestHost.StartAsync(new()
        {
            ["AzureWebJobsStorage"] = _connection,
            ["AzureFunctionsJobHost:extensions:queues:maxPollingInterval"] = "00:00:00.2",
        });
        await Task.Delay(300); // it polls a queue that is not there yet
        QueueClient queue = Client("probe-messages", QueueMessageEncoding.Base64);
        await queue.CreateAsync();
        await Client("probe-messages", QueueMessageEncoding.None).SendMessageAsync("not Base64!");
        await queue.SendMessageAsync("poison");
        for (int i = 0; i < 20; i++) await queue.SendMessageAsync($"{{\"n\":{i}}}");

        var seen = host.Host.Services.GetRequiredService<TriggerProbe>().Messages;
        QueueClient setAside = Client("probe-messages-poison", QueueMessageEncoding.None);
        List<string> poison = [];
        for (int i = 0; i < 1000 && (poison.Count < 2 || seen.Count < 25); i++)
        {
            await Task.Delay(20);
            if (!await setAside.ExistsAsync()) continue;
            poison.AddRange((await setAside.ReceiveMessagesAsync(16)).Value.Select(message => message.Body.ToString()));
        }
        Assert.Equal([.. Enumerable.Range(0, 20).Select(i => $"{{\"n\":{i}}}").Order()], seen.Where(m => m != "poison").Order());
        Assert.Equal(5, seen.Count(message => message == "poison")); // maxDequeueCount
        Assert.Equal(["cG9pc29u", "not Base64!"], poison.Order()); // "poison" as Base64, and the other as it came
        QueueProperties left = await queue.GetPropertiesAsync();
        Assert.Equal(0, left.ApproximateMessagesCount);
    }

    private QueueClient Client(string name, QueueMessageEncoding encoding) => new(
        _connection, name, new QueueClientOptions(QueueClientOptions.ServiceVersion.V2026_06_06) { MessageEncoding = encoding });
}
