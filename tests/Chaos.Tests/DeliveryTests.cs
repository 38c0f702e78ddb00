using System.Globalization;
using System.Text.Json;
using Azure.Storage.Queues;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>
/// A queue at its worst: the test stands between the host and the trainers, and hands on every message one to five times, late, in any order,
/// among old messages and garbage.
/// </summary>
[Collection(nameof(ChaosRuns))]
public sealed class DeliveryTests(ChaosRuns chaos)
{
    private const int Seed = 11, MostCopies = 5, LongestKept = 7000;
    private const string HostsSide = "delivery"; // the machine that the runs ask for; nobody serves its queue but this test
    private static readonly TimeSpan LongestDelay = TimeSpan.FromSeconds(1);

    /// <summary>Messages that no trainer can read, or could only come to harm by.</summary>
    private static readonly string[] Garbage =
    [
        "", "no JSON", "null", "[]", "{}", """{"v":1,"runId":"x","stage":"sft"}""", """{"v":2,"runId":"x","stage":"sft","fence":1}""",
        """{"v":1,"runId":"x","stage":"sft","fence":"one"}""", """{"v":1,"runId":"../../models","stage":"sft","fence":1}""",
        """{"v":1,"runId":"x","stage":"sft/../ppo","fence":1}""", """{"v":1,"runId":"x\u0000","stage":"sft","fence":1}""",
        $$"""{"v":1,"runId":"{{new string('x', 2000)}}","stage":"sft","fence":1}""", new('\u0001', 48 * 1024),
    ];

    [Fact]
    public async Task Every_message_delivered_one_to_five_times_in_any_order_among_garbage_has_the_effect_of_one()
    {
        string[] runs = ["ppo", "dpo"];
        ChaosStack stack = await chaos.StackAsync();
        IReadOnlyDictionary<string, string> expected = await chaos.UndisturbedAsync(runs);
        StorageAccount account = stack.Azurite.Account;
        IMessageQueue poison = account.Queue(StorageAccount.PoisonQueue), trainersSide = account.Queue(StorageAccount.JobQueue(stack.Machine));
        await account.EnsureCreatedAsync([StorageAccount.JobQueue(HostsSide)], CancellationToken.None);
        await DrainAsync(poison);

        const string raw = "<this is not even Base64>";
        await new QueueClient(stack.Azurite.ConnectionString, StorageAccount.JobQueue(stack.Machine), new(QueueClientOptions.ServiceVersion.V2026_06_06))
            .SendMessageAsync(raw);
        foreach (string text in Garbage)
            await trainersSide.SendAsync(text, CancellationToken.None);
        await trainersSide.SendAsync(Message("no-such-run", Stages.Sft, 1), CancellationToken.None);

        using var over = new CancellationTokenSource();
        Task<(int Messages, int Deliveries)> relay = RelayAsync(account.Queue(StorageAccount.JobQueue(HostsSide)), trainersSide, over.Token);
        foreach (string spec in runs)
            await stack.StartRunAsync(spec, $"{spec}-delivered", body => body["trainer"]!["machine"] = HostsSide);
        foreach (string spec in runs)
        {
            RunReport report = await stack.ReportAsync($"{spec}-delivered");
            Assert.Equal(expected[spec], RunFingerprint.Of(report));
            await RunChecks.AssertOneResultAsync(stack, report);
            await RunChecks.AssertUntouchedAsync(stack, report);
        }

        await over.CancelAsync();
        (int messages, int deliveries) = await relay;
        Assert.True(messages > 2 * runs.Length && deliveries > 2 * messages, $"{deliveries} deliveries of {messages} messages prove little");

        // Nothing is left over: what could be read was dropped, the rest set aside, each with its reason.
        for (DateTime limit = DateTime.UtcNow + ChaosStack.Patience; await stack.WaitingJobsAsync() > 0; await Task.Delay(100))
            Assert.True(DateTime.UtcNow < limit, "messages are left in the queue");
        var setAside = new List<(string Reason, string Message)>();
        foreach (string text in await DrainAsync(poison))
        {
            JsonElement record = JsonDocument.Parse(text).RootElement;
            setAside.Add((record.GetProperty("reason").GetString()!, record.GetProperty("message").GetString()!));
        }

        IEnumerable<string> sent = Garbage.Append(raw)
            .Select(text => text.Length <= LongestKept ? text : $"{text[..LongestKept]} ... ({text.Length} characters)");
        Assert.Equal(sent.Order(StringComparer.Ordinal), setAside.Select(record => record.Message).Order(StringComparer.Ordinal));
        Assert.All(setAside, record => Assert.NotEmpty(record.Reason));
        Assert.All(stack.Trainers, trainer => Assert.False(trainer.HasExited, trainer.Tail));
        Figures.Report(string.Create(
            CultureInfo.InvariantCulture,
            $"{messages} job messages in {deliveries} deliveries to {ChaosRuns.Trainers} trainers (seed {Seed}), {setAside.Count} of garbage beside them: every job done once"));
    }

    /// <summary>Hands on what the host sends, until told to stop and then until every copy is delivered.</summary>
    private static async Task<(int Messages, int Deliveries)> RelayAsync(IMessageQueue from, IMessageQueue to, CancellationToken over)
    {
        var random = new Random(Seed);
        var seen = new List<string>();
        var underWay = new List<Task>();
        while (!over.IsCancellationRequested)
        {
            if (await from.ReceiveAsync(TimeSpan.FromMinutes(5), CancellationToken.None) is not { } delivery)
            {
                await Task.Delay(20, CancellationToken.None);
                continue;
            }

            await from.DeleteAsync(delivery, CancellationToken.None);
            seen.Add(delivery.Text);
            for (int copies = random.Next(1, MostCopies + 1); copies > 0; copies--)
                underWay.Add(DeliverAsync(delivery.Text, LongestDelay * random.NextDouble()));
            // Of jobs that have gone on, and of fences that have been passed.
            for (int old = random.Next(3); old > 0; old--)
                underWay.Add(DeliverAsync(seen[random.Next(seen.Count)], 2 * LongestDelay * random.NextDouble()));
        }

        await Task.WhenAll(underWay);
        return (seen.Count, underWay.Count);

        async Task DeliverAsync(string text, TimeSpan delay)
        {
            await Task.Delay(delay, CancellationToken.None);
            await to.SendAsync(text, CancellationToken.None);
        }
    }

    private static string Message(string runId, string stage, int fence) =>
        CasDocument.Serialize(new JobMessage(1, runId, stage, fence)).ToString();

    private static async Task<List<string>> DrainAsync(IMessageQueue queue)
    {
        var texts = new List<string>();
        while (await queue.ReceiveAsync(TimeSpan.FromMinutes(5), CancellationToken.None) is { } delivery)
        {
            texts.Add(delivery.Text);
            await queue.DeleteAsync(delivery, CancellationToken.None);
        }

        return texts;
    }
}
