using Azure.Core;
using Azure.Identity;
using Azure.Storage.Blobs;
using Azure.Storage.Queues;

namespace Rlhf.Storage;

/// <summary>
/// The storage account that function app and trainer share: one container and a few queues. Reached by connection string
/// (<c>AzureWebJobsStorage</c>, Azurite included) or by managed identity (<c>AzureWebJobsStorage__accountName</c>, with
/// <c>AzureWebJobsStorage__clientId</c> for a user-assigned one), as the Functions host itself reads these settings.
/// </summary>
public sealed class StorageAccount
{
    /// <summary>The container that holds everything of this product.</summary>
    public const string ContainerName = "rlhf";

    /// <summary>The queue of hints from trainer to orchestrator.</summary>
    public const string EventsQueue = "rlhf-events";

    /// <summary>Where poison job messages go, with their reason.</summary>
    public const string PoisonQueue = "rlhf-jobs-poison";

    private readonly BlobServiceClient blobs;
    private readonly QueueServiceClient queues;

    private StorageAccount(BlobServiceClient blobs, QueueServiceClient queues)
    {
        this.blobs = blobs;
        this.queues = queues;
        Blobs = new AzureBlobStore(blobs.GetBlobContainerClient(ContainerName));
    }

    /// <summary>The container's blobs.</summary>
    public IBlobStore Blobs { get; }

    /// <summary>Opens the account that the settings name.</summary>
    /// <param name="setting">Reads one setting; names with <c>__</c> as environment variables have them.</param>
    /// <exception cref="InvalidOperationException">Neither setting is there.</exception>
    public static StorageAccount FromSettings(Func<string, string?> setting)
    {
        // Azurite answers 400 to service versions newer than itself; this one is the newest that 3.37 knows.
        var blobOptions = new BlobClientOptions(BlobClientOptions.ServiceVersion.V2026_06_06);
        var queueOptions = new QueueClientOptions(QueueClientOptions.ServiceVersion.V2026_06_06);

        if (setting("AzureWebJobsStorage") is { Length: > 0 } connection)
            return new StorageAccount(new BlobServiceClient(connection, blobOptions), new QueueServiceClient(connection, queueOptions));

        if (setting("AzureWebJobsStorage__accountName") is { Length: > 0 } account)
        {
            TokenCredential credential = setting("AzureWebJobsStorage__clientId") is { Length: > 0 } client
                ? new ManagedIdentityCredential(ManagedIdentityId.FromUserAssignedClientId(client))
                : new DefaultAzureCredential();
            return new StorageAccount(
                new BlobServiceClient(new Uri($"https://{account}.blob.core.windows.net"), credential, blobOptions),
                new QueueServiceClient(new Uri($"https://{account}.queue.core.windows.net"), credential, queueOptions));
        }

        throw new InvalidOperationException(
            "No storage account: set AzureWebJobsStorage to a connection string (Azurite: UseDevelopmentStorage=true), "
            + "or AzureWebJobsStorage__accountName to use a managed identity.");
    }

    /// <summary>The name of the job queue of one kind of machine, such as <c>rlhf-jobs-local</c>.</summary>
    public static string JobQueue(string machine) => $"rlhf-jobs-{machine}";

    /// <summary>A queue of the account.</summary>
    public IMessageQueue Queue(string name) => new AzureMessageQueue(queues.GetQueueClient(name));

    /// <summary>Creates the container and the named queues where they are missing.</summary>
    public async Task EnsureCreatedAsync(IEnumerable<string> queueNames, CancellationToken cancellation)
    {
        await blobs.GetBlobContainerClient(ContainerName).CreateIfNotExistsAsync(cancellationToken: cancellation);
        foreach (string name in queueNames)
            await queues.GetQueueClient(name).CreateIfNotExistsAsync(cancellationToken: cancellation);
    }
}
