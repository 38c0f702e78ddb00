using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Rlhf.Functions.Http;
using Rlhf.Functions.Timers;
using Rlhf.Jobs;
using Rlhf.Storage;

namespace Rlhf.Functions;

/// <summary>What the functions' constructors take; the same under the Functions host and under the embedded one.</summary>
public static class RlhfServices
{
    /// <summary>Registers storage, the job protocol and the run services.</summary>
    /// <param name="services">The app's services.</param>
    /// <param name="configuration">Settings; <c>A__B</c> of the environment is <c>A:B</c> here.</param>
    public static IServiceCollection AddRlhf(this IServiceCollection services, IConfiguration configuration)
    {
        services.TryAddSingleton(TimeProvider.System);
        services.AddSingleton(_ => StorageAccount.FromSettings(name => configuration[name.Replace("__", ":", StringComparison.Ordinal)]));
        services.AddSingleton(provider => provider.GetRequiredService<StorageAccount>().Blobs);
        services.AddSingleton(provider => new JobControl(
            provider.GetRequiredService<IBlobStore>(), provider.GetRequiredService<StorageAccount>().Queue));
        services.AddSingleton(RetrainSettings.From(configuration));
        services.AddSingleton<RunStart>();
        services.AddSingleton<RunReader>();
        services.AddHostedService<StorageSetup>();
        return services;
    }

    /// <summary>Creates the container and the fixed queues before the first function runs.</summary>
    private sealed class StorageSetup(StorageAccount account) : IHostedService
    {
        public Task StartAsync(CancellationToken cancellationToken) =>
            account.EnsureCreatedAsync([StorageAccount.EventsQueue, StorageAccount.PoisonQueue], cancellationToken);

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
