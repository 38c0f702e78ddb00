using System.Text.Json;
using Azure.Storage.Queues;
using Azure.Storage.Queues.Models;
using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Shared.Tests.Jobs;

/// <summary>The trainer's end of the queue: what is claimed, dropped or set aside.</summary>
[Collection(AzuriteTests.Name)]
public sealed class JobInboxTests(AzuriteFixture azurite)
{
    private readonly TestJob job = new(azurite);

    [Fact]
    public async Task A_claimed_message_is_gone_from_the_queue()
    {
        await job.EnqueueAsync(1);
        await job.ClaimAsync();

        Assert.Equal(0, (await Client().GetPropertiesAsync(TestJob.Cancellation)).Value.ApproximateMessagesCount);
    }

    [Theory]
    [InlineData("not json", "it is no job message")]
    [InlineData("null", "a field is missing")]
    [InlineData("{}", "it has version 0")]
    [InlineData("""{"v":1,"runId":"r","stage":"","fence":1}""", "a field is missing")]
    [InlineData("""{"v":1,"runId":"r","stage":"s","fence":0}""", "a field is missing")]
    [InlineData("""{"v":2,"runId":"r","stage":"s","fence":1}""", "it has version 2, this trainer reads 1")]
    [InlineData("""{"v":1,"runId":"r","stage":"s","fence":1,"more":1}""", "it is no job message")]
    [InlineData("""{"v":1,"runId":"../../models","stage":"sft","fence":1}""", "is no run id or stage")]
    [InlineData("""{"v":1,"runId":"r","stage":"sft/../ppo","fence":1}""", "is no run id or stage")]
    [InlineData("""{"v":1,"runId":"r\u0000","stage":"sft","fence":1}""", "is no run id or stage")]
    [InlineData("", "it is no job message")]
    public async Task A_message_that_cannot_be_read_is_set_aside_with_its_reason_and_blocks_nothing(string text, string reason)
    {
        await job.Queue.SendAsync(text, TestJob.Cancellation);
        await job.EnqueueAsync(1);

        Assert.Null(await job.Inbox.TryTakeAsync(TestJob.Cancellation));
        Assert.Equal(1, (await job.ClaimAsync()).Fence);
        Assert.Contains(reason, await PoisonedAsync(text), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_message_whose_names_are_too_long_for_any_blob_is_set_aside()
    {
        string text = CasDocument.Serialize(new JobMessage(1, new string('r', 2000), TestJob.Stage, 1)).ToString();
        await job.Queue.SendAsync(text, TestJob.Cancellation);

        Assert.Null(await job.Inbox.TryTakeAsync(TestJob.Cancellation));
        Assert.Contains("is no run id or stage", await PoisonedAsync(text), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_largest_message_there_can_be_is_set_aside_shortened()
    {
        string text = new('\u0001', 48 * 1024); // as Base64 the 64 KiB that a message may have; in JSON six times as long
        await job.Queue.SendAsync(text, TestJob.Cancellation);

        Assert.Null(await job.Inbox.TryTakeAsync(TestJob.Cancellation));
        Assert.Contains("it is no job message", await PoisonedAsync(text[..7000] + " ... (49152 characters)"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("<job/>")]
    [InlineData("////")]
    public async Task A_message_that_is_not_encoded_as_it_should_be_is_set_aside_and_blocks_nothing(string raw)
    {
        await job.Queue.SendAsync("{}", TestJob.Cancellation); // creates the queue
        Assert.Null(await job.Inbox.TryTakeAsync(TestJob.Cancellation));
        await PoisonedAsync("{}");
        QueueClient unencoded = new(azurite.ConnectionString, job.QueueName, new QueueClientOptions(QueueClientOptions.ServiceVersion.V2026_06_06));
        await unencoded.SendMessageAsync(raw, TestJob.Cancellation);
        await job.EnqueueAsync(1);

        Assert.Null(await job.Inbox.TryTakeAsync(TestJob.Cancellation));
        Assert.Equal(1, (await job.ClaimAsync()).Fence);
        Assert.NotEmpty(await PoisonedAsync(raw));
    }

    [Fact]
    public async Task A_message_that_was_delivered_five_times_without_a_claim_is_set_aside()
    {
        await job.EnqueueAsync(1);
        QueueClient queue = Client();
        for (int delivery = 1; delivery <= 5; delivery++)
        {
            // A trainer that dies right after it received the message: it becomes visible again.
            QueueMessage message = (await queue.ReceiveMessageAsync(TimeSpan.FromSeconds(30), TestJob.Cancellation)).Value;
            await queue.UpdateMessageAsync(message.MessageId, message.PopReceipt, message.Body, TimeSpan.Zero, TestJob.Cancellation);
        }

        Assert.Null(await job.Inbox.TryTakeAsync(TestJob.Cancellation));
        Assert.Contains("delivered 6 times", await PoisonedAsync(CasDocument.Serialize(TestJob.Message(job, 1)).ToString()), StringComparison.Ordinal);
        Assert.Equal(JobState.Queued, (await job.ReadAsync()).State); // the orchestrator's start timeout sends another
    }

    [Fact]
    public async Task The_last_delivery_before_the_limit_still_claims()
    {
        await job.EnqueueAsync(1);
        QueueClient queue = Client();
        for (int delivery = 1; delivery <= 4; delivery++)
        {
            QueueMessage message = (await queue.ReceiveMessageAsync(TimeSpan.FromSeconds(30), TestJob.Cancellation)).Value;
            await queue.UpdateMessageAsync(message.MessageId, message.PopReceipt, message.Body, TimeSpan.Zero, TestJob.Cancellation);
        }

        Assert.NotNull(await job.Inbox.TryTakeAsync(TestJob.Cancellation));
    }

    /// <summary>The one poisoned message's reason.</summary>
    private async Task<string> PoisonedAsync(string text)
    {
        QueueDelivery delivery = (await azurite.Account.Queue(job.PoisonQueueName).ReceiveAsync(TimeSpan.FromSeconds(30), TestJob.Cancellation))!;
        using var poison = JsonDocument.Parse(delivery.Text);
        Assert.Equal(text, poison.RootElement.GetProperty("message").GetString());
        return poison.RootElement.GetProperty("reason").GetString()!;
    }

    private QueueClient Client() => new(
        azurite.ConnectionString, job.QueueName,
        new QueueClientOptions(QueueClientOptions.ServiceVersion.V2026_06_06) { MessageEncoding = QueueMessageEncoding.Base64 });
}
