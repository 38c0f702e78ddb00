using System.Globalization;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Rlhf.Functions.Activities;
using Rlhf.Functions.Http;
using Rlhf.Jobs;
using Rlhf.Simulation.Core;
using Rlhf.Simulation.Storage;
using Rlhf.Storage;

namespace Rlhf.Simulation.Parts;

/// <summary>What a simulated run came to.</summary>
/// <param name="TraceHash">Of everything that happened, in its order.</param>
/// <param name="Result">What the run published: every model, the evaluation, the production model, by their sums.</param>
/// <param name="Violations">Rules that were broken.</param>
/// <param name="Trace">What happened, if it was kept.</param>
/// <param name="Duration">Virtual time.</param>
/// <param name="Steps">Pieces of work done.</param>
internal sealed record Outcome(
    ulong TraceHash, string Result, IReadOnlyList<string> Violations, IReadOnlyList<string> Trace, TimeSpan Duration, long Steps);

/// <summary>
/// One run from POST to promotion in a world of its own: a host, two trainers, the storage between them, and faults. FoundationDB's
/// way: the real code on one thread, virtual time, a seeded order of everything, so that whatever goes wrong can be seen again.
/// </summary>
internal sealed class SimulatedRun : IDisposable
{
    private static readonly TimeSpan Horizon = TimeSpan.FromHours(12);
    private static readonly TimeSpan Aftermath = TimeSpan.FromSeconds(30);

    /// <summary>Five in vain, one to be set aside, and what crashes and lost replies add to these.</summary>
    private const int MostDeliveries = 5 + 1 + 4;

    private readonly IFaults faults;
    private readonly Rules rules;
    private string[] poison = [];
    private TimeSpan? overAt;

    /// <param name="seed">Decides everything that the faults do not.</param>
    /// <param name="faults">What goes wrong.</param>
    /// <param name="disk">A folder for the machines' disks; it is emptied afterwards.</param>
    /// <param name="isTraced">Keeps the trace.</param>
    /// <param name="blobs">The storage service, if it is to be another than the faithful one.</param>
    /// <param name="protocol">What the trainers see of the storage, if it is to be other than what is there.</param>
    /// <param name="trainers">How many trainers there are.</param>
    public SimulatedRun(
        int seed, IFaults faults, string disk, bool isTraced = false, BlobServer? blobs = null,
        Func<IBlobStore, IBlobStore>? protocol = null, int trainers = 2)
    {
        this.faults = faults;
        World = new SimWorld(seed, isTraced);
        Storage = new StorageService(World, blobs ?? new BlobServer(), faults.CopiesOf);
        RunUnderTest.Upload(Storage.Blobs);
        rules = new Rules(World, Storage);
        Ledger = new Ledger(World);
        Host = new SimHost(World, new Machine("host", Directory.CreateDirectory(Path.Combine(disk, "host")).FullName), Storage, faults);
        Trainers =
        [
            .. new[] { "trainer-a", "trainer-b" }.Take(trainers).Select(name => new SimTrainer(
                World, new Machine(name, Directory.CreateDirectory(Path.Combine(disk, name)).FullName), Storage, faults, Ledger,
                protocol ?? (store => store))),
        ];
    }

    public SimWorld World { get; }

    public StorageService Storage { get; }

    public SimHost Host { get; }

    public IReadOnlyList<SimTrainer> Trainers { get; }

    public Ledger Ledger { get; }

    /// <summary>People have asked for the run's end: it need not come to its result.</summary>
    public bool IsCancelled { get; set; }

    /// <summary>The run has ended; what goes on is only who has not heard of it.</summary>
    public bool HasEnded => overAt is not null;

    private QueueServer Jobs => Storage.Queue(StorageAccount.JobQueue(RunUnderTest.Machine));

    /// <summary>Carries the run out.</summary>
    /// <param name="expected">The result that it must come to; null when that is what is asked.</param>
    public Outcome Run(string? expected)
    {
        Host.Start();
        foreach (SimTrainer trainer in Trainers)
            trainer.Start();
        faults.Begin(this);
        Ask();
        Look();
        World.Run(() => World.Violations.Count > 0 || World.Now > Horizon || IsOver());
        if (World.Violations.Count == 0)
            CheckEnd(expected);
        return new Outcome(World.Hash, Result(), World.Violations, World.Trace, World.Now, World.Steps);
    }

    /// <summary>Ends all processes.</summary>
    public void Dispose()
    {
        foreach (SimProcess process in Trainers.Select(trainer => trainer.Process).Append(Host.Process))
        {
            process.Kill();
            process.EndThreads();
        }

        foreach (SimTrainer trainer in Trainers)
            trainer.Dispose();
        Host.Dispose();
    }

    /// <summary>Puts messages into the job queue that nobody can make sense of, and one to a job whose document is damaged.</summary>
    public void SendPoison()
    {
        Storage.Blobs.Damage(BlobLayout.Job("broken", Stages.Sft), "{"u8.ToArray());
        poison =
        [
            "no JSON", """{"v":9,"runId":"x","stage":"sft","fence":1}""",
            CasDocument.Serialize(new JobMessage(1, "broken", Stages.Sft, 1)).ToString(),
        ];
        foreach (string text in poison)
            Jobs.Send(text);
    }

    /// <summary>A person starts the run, and asks for it again until it is there.</summary>
    private void Ask()
    {
        if (overAt is not null)
            return;
        if (Host.IsUp && Host.Instances!.Find(RunUnderTest.Id) is null)
        {
            Host.Request((services, client) => services.GetRequiredService<RunStart>().StartAsync(
                client, RunUnderTest.Id, RunUnderTest.Spec, CancellationToken.None));
        }

        World.After(TimeSpan.FromSeconds(20), null, Ask);
    }

    /// <summary>Looks whether the run is over.</summary>
    private void Look()
    {
        if (Host.IsUp && Host.Instances!.Find(RunUnderTest.Id) is { IsOver: true })
            overAt ??= World.Now;
        World.After(TimeSpan.FromSeconds(1), null, Look);
    }

    /// <summary>The run is over, and whoever stood still has had the time to come back.</summary>
    private bool IsOver() =>
        overAt is { } over && World.Now > over + Aftermath && Host.IsUp && !Trainers.Any(trainer => trainer.Process.StandsStill);

    private void CheckEnd(string? expected)
    {
        if (overAt is null)
        {
            World.Violate(Rules.Ends, $"it has not ended after {World.Now.TotalHours:0.0} hours: {string.Join("; ", Instances())}");
            return;
        }

        if (IsCancelled)
            return;
        if (expected is not null && Result() != expected)
            World.Violate(Rules.SameResult, $"expected\n{expected}\nfound\n{Result()}");
        foreach ((string stage, int results) in RunUnderTest.ResultsOf)
        {
            if (rules.Results.GetValueOrDefault(stage) != results)
                World.Violate(Rules.OneResult, $"{stage} has {rules.Results.GetValueOrDefault(stage)} results, not {results}");
        }

        CheckPoison();
    }

    /// <summary>Poison is set aside with its reason; until then it has been delivered five times at most, and once more to be set aside.</summary>
    private void CheckPoison()
    {
        HashSet<string> waiting = [.. Jobs.Texts];
        HashSet<string> aside =
        [
            .. Storage.Queue(StorageAccount.PoisonQueue).Texts.Select(text => JsonNode.Parse(text)!["message"]!.GetValue<string>()),
        ];
        foreach (string text in poison)
        {
            if (!aside.Contains(text) && (!waiting.Contains(text) || Jobs.Deliveries.GetValueOrDefault(text) > MostDeliveries))
                World.Violate(Rules.Poison, $"{text}: {Jobs.Deliveries.GetValueOrDefault(text)} deliveries, not among what is set aside");
        }
    }

    private IEnumerable<string> Instances() =>
        Host.Instances?.List("", null, 100).Select(row => $"{row.Id} {row.VisibleStatus} {row.CustomStatus} {row.Stuck}") ?? [];

    /// <summary>What the run published, a line each.</summary>
    private string Result()
    {
        var lines = new List<string>();
        foreach (string stage in RunUnderTest.ResultsOf.Keys)
        {
            if (Read<JobDocument>(BlobLayout.Job(RunUnderTest.Id, stage)) is not { } job)
                continue;
            lines.Add(string.Create(CultureInfo.InvariantCulture, $"{stage} {job.State} {job.Result?.Step}"));
            lines.AddRange(job.Result?.Models.Select(model => $"  {model.Key} {model.Value.Sha256}") ?? []);
            lines.AddRange(job.Result?.Artifacts.Where(file => file.Key == ArtifactNames.Evaluation).Select(file => $"  {file.Value.Sha256}") ?? []);
        }

        string version = BlobLayout.ModelVersion(RunUnderTest.Name, RunUnderTest.Id);
        lines.Add($"registered {Read<ModelRegistration>(version)?.Models[ModelRoles.Ppo].Sha256}");
        lines.Add($"production {Read<ProductionModel>(BlobLayout.ProductionModel(RunUnderTest.Name))?.Model.Sha256}");
        lines.Add($"report {Storage.Blobs.Read(BlobLayout.Report(RunUnderTest.Id)) is not null}");
        lines.Add($"run {Host.Instances?.Find(RunUnderTest.Id)?.Output}");
        return string.Join('\n', lines);
    }

    private T? Read<T>(string path)
        where T : class =>
        Storage.Blobs.Read(path) is { } blob ? CasDocument.Parse<T>(path, BinaryData.FromBytes(blob.Content)) : null;
}
