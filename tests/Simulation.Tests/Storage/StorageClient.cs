using Azure;
using Rlhf.Simulation.Core;
using Rlhf.Simulation.Parts;

namespace Rlhf.Simulation.Storage;

/// <summary>What becomes of one request.</summary>
internal enum RequestFate
{
    Served,

    /// <summary>It fails before it has any effect: 503, 429, a connection refused.</summary>
    FailsBefore,

    /// <summary>It is done, but the caller gets an error: the reply is lost.</summary>
    ReplyLost,

    /// <summary>The SDK sends it again after a lost reply: it is done twice, and the caller sees the second answer.</summary>
    Repeated,

    /// <summary>The process dies as it sends it.</summary>
    CrashesBefore,

    /// <summary>It is done, and the process dies before it learns of it.</summary>
    CrashesAfter,
}

/// <summary>
/// A process's connection to storage. A request takes time to get there, has its effect in one instant, and takes time to come back; it
/// may arrive though its sender is dead by then.
/// </summary>
internal sealed class StorageClient(StorageService service, SimProcess process, IFaults faults)
{
    private static readonly int[] Passing = [0, 408, 429, 500, 503];

    private readonly SimWorld world = process.World;

    public StorageService Service => service;

    /// <summary>Sends a request.</summary>
    /// <param name="what">The operation and its target, for the trace and for the faults.</param>
    /// <param name="serve">What the service does.</param>
    /// <param name="cancellation">Ends the wait for the reply, not the request.</param>
    public Task<T> SendAsync<T>(string what, Func<T> serve, CancellationToken cancellation)
    {
        if (cancellation.IsCancellationRequested)
            return Task.FromCanceled<T>(cancellation);
        var reply = new TaskCompletionSource<T>();
        RequestFate fate = faults.OnRequest(process, what);
        if (fate == RequestFate.CrashesBefore)
        {
            process.Crash($"before {Stable(what)}");
            return reply.Task;
        }

        CancellationTokenRegistration registration = cancellation.Register(() => reply.TrySetCanceled(cancellation));
        world.After(world.Between(0.001, 0.02), null, () => Arrive(what, serve, fate, outcome =>
        {
            registration.Dispose();
            if (outcome.Error is { } error)
                reply.TrySetException(error);
            else
                reply.TrySetResult(outcome.Result!);
        }));
        return reply.Task;
    }

    private void Arrive<T>(string what, Func<T> serve, RequestFate fate, Action<(T? Result, Exception? Error)> answer)
    {
        TimeSpan back = world.Between(0.001, 0.02);
        if (fate == RequestFate.FailsBefore || !service.Reaches(process.Machine))
        {
            // Some faults show at once, others only as a time limit.
            TimeSpan wait = world.Happens(0.3) ? world.Between(5, 20) : back;
            world.Record(process.Machine.Name, $"{Stable(what)}: not served");
            world.After(wait, process, () => answer((default, Error())));
            return;
        }

        (T? result, Exception? error) = Serve();
        if (fate == RequestFate.Repeated)
            (result, error) = Serve();
        world.Record(process.Machine.Name, $"{Stable(what)}: {(error is null ? Describe(result) : error.GetType().Name)}");
        if (fate == RequestFate.CrashesAfter)
            process.Crash($"after {Stable(what)}");
        if (fate == RequestFate.ReplyLost)
            error = Error();
        world.After(back, process, () => answer((result, error)));

        (T?, Exception?) Serve()
        {
            service.Caller = process;
            try
            {
                return (serve(), null);
            }
            catch (FileNotFoundException missing)
            {
                return (default, missing);
            }
            finally
            {
                service.Caller = null;
            }
        }
    }

    private RequestFailedException Error() => new(Passing[world.Random.Next(Passing.Length)], "The simulated storage does not answer.");

    private static string Describe<T>(T result) => result switch
    {
        bool yes => yes ? "yes" : "no",
        null => "nothing",
        _ => "ok",
    };

    /// <summary>Attempt ids are random: they are left out, so that the same seed gives the same trace.</summary>
    private static string Stable(string what)
    {
        int attempt = what.IndexOf("/attempts/", StringComparison.Ordinal);
        if (attempt < 0)
            return what;
        int id = attempt + "/attempts/000001-".Length;
        return what.Length < id + 32 ? what : what.Remove(id, 32);
    }
}
