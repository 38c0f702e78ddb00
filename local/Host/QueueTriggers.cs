using System.Globalization;
using Azure;
using Azure.Storage.Queues;
using Azure.Storage.Queues.Models;
using Microsoft.Azure.Functions.Worker;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Logging;

namespace Rlhf.Local.Host;

/// <summary>
/// Polls storage queues as the Functions host does: Base64 messages unless host.json says otherwise, deleted after success, tried again
/// after a failure, set aside in {queue}-poison after maxDequeueCount deliveries. The pause between polls doubles up to maxPollingInterval.
/// </summary>
internal sealed class QueueTriggers
{
    private const int BatchSize = 16;
    private static readonly TimeSpan ShortestPause = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan Invisibility = TimeSpan.FromMinutes(10);

    private readonly List<(Function Function, string Queue, string Connection)> _queues = [];
    private readonly FunctionInvoker _invoker;
    private readonly TimeProvider _clock;
    private readonly ILogger<QueueTriggers> _logger;
    private readonly TimeSpan _longestPause;
    private readonly int _maxDequeues;
    private readonly QueueMessageEncoding _encoding;

    /// <exception cref="HostConfigurationException">a connection is not set, or host.json's queues section is wrong.</exception>
    public QueueTriggers(
        FunctionCatalog catalog, FunctionInvoker invoker, IConfiguration configuration, TimeProvider clock, ILogger<QueueTriggers> logger)
    {
        (_invoker, _clock, _logger) = (invoker, clock, logger);
        _longestPause = configuration.Extension(
            "queues:maxPollingInterval", TimeSpan.FromMinutes(1), text => TimeSpan.Parse(text, CultureInfo.InvariantCulture));
        _maxDequeues = configuration.Extension("queues:maxDequeueCount", 5, text => int.Parse(text, CultureInfo.InvariantCulture));
        _encoding = configuration.Extension(
            "queues:messageEncoding", QueueMessageEncoding.Base64, text => Enum.Parse<QueueMessageEncoding>(text, ignoreCase: true));
        foreach ((Function function, QueueTriggerAttribute trigger) in catalog.With<QueueTriggerAttribute>())
        {
            if (function.TriggerParameter.ParameterType != typeof(string))
                throw new HostConfigurationException($"Queue function '{function.Name}' must take the message as a string.");
            string setting = trigger.Connection ?? "AzureWebJobsStorage";
            if (configuration[setting] is not { Length: > 0 } connection)
            {
                throw new HostConfigurationException(
                    $"Queue function '{function.Name}' needs a storage connection string in the setting '{setting}', and it is not set.");
            }
            _queues.Add((function, configuration.Resolve(trigger.QueueName, function.Name), connection));
        }
    }

    public Task RunAsync(CancellationToken stopping) =>
        Task.WhenAll(_queues.Select(queue => ListenAsync(queue.Function, queue.Queue, queue.Connection, stopping)));

    private async Task ListenAsync(Function function, string name, string connection, CancellationToken stopping)
    {
        // A service version that Azurite knows; each SDK release asks for a newer one than the emulator has.
        const QueueClientOptions.ServiceVersion version = QueueClientOptions.ServiceVersion.V2026_06_06;
        var asItIs = new QueueClient(connection, $"{name}-poison", new QueueClientOptions(version));
        var options = new QueueClientOptions(version) { MessageEncoding = _encoding };
        options.MessageDecodingFailed += args => SetAsideAsync(args.Queue, asItIs, args.ReceivedMessage!, args.CancellationToken);
        var queue = new QueueClient(connection, name, options);
        var poison = new QueueClient(connection, $"{name}-poison", options);

        TimeSpan pause = ShortestPause;
        while (true)
        {
            try
            {
                QueueMessage[] messages = await queue.ReceiveMessagesAsync(BatchSize, Invisibility, stopping);
                await Task.WhenAll(messages.Select(message => HandleAsync(function, queue, poison, message, stopping)));
                pause = messages.Length > 0 ? ShortestPause : Longer(pause);
            }
            catch (RequestFailedException missing) when (missing.ErrorCode == QueueErrorCode.QueueNotFound)
            {
                pause = Longer(pause);
            }
            catch (Exception error) when (!stopping.IsCancellationRequested)
            {
                _logger.LogWarning("Queue {Queue} cannot be read: {Reason}", name, error.Message);
                pause = _longestPause;
            }
            await Task.Delay(pause, _clock, stopping);
        }
    }

    private async Task HandleAsync(
        Function function, QueueClient queue, QueueClient poison, QueueMessage message, CancellationToken stopping)
    {
        try
        {
            await _invoker.InvokeAsync(function, message.Body.ToString(), FunctionInvoker.NoData, stopping);
        }
        catch (Exception error) when (!stopping.IsCancellationRequested)
        {
            _logger.LogError(error, "Function {Function} failed on message {Message}, delivery {Count} of {Max}",
                function.Name, message.MessageId, message.DequeueCount, _maxDequeues);
            if (message.DequeueCount < _maxDequeues)
                await queue.UpdateMessageAsync(message.MessageId, message.PopReceipt, (string?)null, TimeSpan.Zero, stopping);
            else
                await SetAsideAsync(queue, poison, message, stopping);
            return;
        }
        await queue.DeleteMessageAsync(message.MessageId, message.PopReceipt, stopping);
    }

    private async Task SetAsideAsync(QueueClient queue, QueueClient poison, QueueMessage message, CancellationToken stopping)
    {
        _logger.LogError("Message {Message} is set aside in the queue {Poison}", message.MessageId, poison.Name);
        await poison.CreateIfNotExistsAsync(cancellationToken: stopping);
        await poison.SendMessageAsync(message.Body, cancellationToken: stopping);
        await queue.DeleteMessageAsync(message.MessageId, message.PopReceipt, stopping);
    }

    private TimeSpan Longer(TimeSpan pause) => pause * 2 < _longestPause ? pause * 2 : _longestPause;
}
