using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Azure.Storage.Queues;
using Microsoft.Data.Sqlite;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

[assembly: Xunit.v3.Parallelization(MaxThreads = 1)]

namespace Rlhf.Chaos.Tests;

/// <summary>The whole product as processes that can be hurt one by one: Azurite, the function app's host, trainers.</summary>
internal sealed class ChaosStack : IAsyncDisposable
{
    /// <summary>How long anything may take on a machine that is busy with other things.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromMinutes(5);

    /// <summary>Each look at a run costs the host and the storage a dozen requests, which the runs then have to wait for.</summary>
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(500);

    private readonly string folder = Directory.CreateTempSubdirectory("rlhf-chaos-").FullName;
    private readonly List<TrainerProcess> everyTrainer = [];
    private HttpClient http = null!;
    private int hosts;

    private ChaosStack(string machine) => Machine = machine;

    public AzuriteFixture Azurite { get; } = new();

    /// <summary>The job queue that the trainers serve.</summary>
    public string Machine { get; }

    public FunctionHost Host { get; private set; } = null!;

    /// <summary>The trainers that are meant to live.</summary>
    public TrainerProcess[] Trainers { get; private set; } = [];

    public IBlobStore Blobs => Azurite.Account.Blobs;

    /// <summary>What all trainers did, dead ones included.</summary>
    public IReadOnlyList<AttemptLine> Ledger => [.. everyTrainer.SelectMany(trainer => trainer.Ledger)];

    /// <summary>Starts everything.</summary>
    /// <param name="trainers">How many trainers serve the queue.</param>
    /// <param name="machine">The queue.</param>
    public static async Task<ChaosStack> StartAsync(int trainers, string machine = "chaos")
    {
        var stack = new ChaosStack(machine);
        try
        {
            await stack.Azurite.InitializeAsync();
            await stack.Azurite.Account.EnsureCreatedAsync(
                [StorageAccount.JobQueue(machine), StorageAccount.EventsQueue, StorageAccount.PoisonQueue], CancellationToken.None);
            await stack.StartHostAsync();
            stack.Trainers = [.. Enumerable.Range(0, trainers).Select(_ => stack.StartTrainer())];
            return stack;
        }
        catch
        {
            await stack.DisposeAsync();
            throw;
        }
    }

    /// <summary>Starts one more trainer.</summary>
    public TrainerProcess StartTrainer(string limits = "", params IEnumerable<(string Name, string Value)> settings)
    {
        string name = string.Create(CultureInfo.InvariantCulture, $"trainer{everyTrainer.Count}");
        TrainerProcess trainer = TrainerProcess.Start(folder, name, Azurite.ConnectionString, Machine, limits, settings);
        everyTrainer.Add(trainer);
        return trainer;
    }

    /// <summary>Starts a trainer that serves another queue than the others.</summary>
    /// <param name="machine">The queue.</param>
    /// <param name="settings">Further environment variables.</param>
    public async Task<TrainerProcess> StartTrainerForAsync(string machine, params IEnumerable<(string Name, string Value)> settings)
    {
        await Azurite.Account.EnsureCreatedAsync([StorageAccount.JobQueue(machine)], CancellationToken.None);
        return StartTrainer(settings: settings.Prepend(("RLHF_MACHINE", machine)));
    }

    /// <summary>A folder that goes with the stack.</summary>
    public string NewFolder(string name) => Directory.CreateDirectory(Path.Combine(folder, name)).FullName;

    /// <summary>Sets right what a test has left stopped, frozen or dead.</summary>
    public async Task MendAsync()
    {
        if (Azurite.IsRunning)
            await Azurite.ThawAsync();
        else
            await Azurite.StartAsync();
        if (Host.HasExited)
            await StartHostAsync();
        foreach (TrainerProcess trainer in everyTrainer.Where(trainer => !trainer.HasExited))
            trainer.Thaw();
        for (int i = 0; i < Trainers.Length; i++)
        {
            if (Trainers[i].HasExited)
                Trainers[i] = StartTrainer();
        }
    }

    /// <summary>Kills one of the trainers and starts another in its place.</summary>
    public async Task ReplaceTrainerAsync(int index)
    {
        await Trainers[index].KillAsync();
        Trainers[index] = StartTrainer();
    }

    /// <summary>Kills the host and starts another on its database.</summary>
    /// <returns>The time from the kill to an orchestration's next move.</returns>
    public async Task<TimeSpan> RestartHostAsync()
    {
        var clock = Stopwatch.StartNew();
        await Host.KillAsync();
        await Host.DisposeAsync();
        await StartHostAsync();
        await Host.MovedAsync(Patience);
        return clock.Elapsed;
    }

    /// <summary>Starts a run.</summary>
    /// <param name="spec">The spec's name.</param>
    /// <param name="runId">The run's id.</param>
    /// <param name="change">Changes the spec first.</param>
    public async Task StartRunAsync(string spec, string runId, Action<JsonNode>? change = null)
    {
        JsonNode body = JsonNode.Parse(await File.ReadAllTextAsync(BuildOutput.Spec(spec)))!;
        body["runId"] = runId;
        body["trainer"]!["machine"] = Machine;
        change?.Invoke(body);
        using var content = new StringContent(body.ToJsonString(), Encoding.UTF8, "application/json");
        using HttpResponseMessage answer = await http.PostAsync("runs", content);
        Assert.True(answer.IsSuccessStatusCode, await answer.Content.ReadAsStringAsync());
    }

    /// <summary>How the run stands.</summary>
    public async Task<RunView> ViewAsync(string runId) => (await http.GetFromJsonAsync<RunView>($"runs/{runId}", RlhfJson.Compact))!;

    /// <summary>Waits for the run to come to a point.</summary>
    public async Task<RunView> WaitAsync(string runId, Func<RunView, bool> point)
    {
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(Poll))
        {
            RunView run = await ViewAsync(runId);
            if (point(run))
                return run;
            string trouble = JsonSerializer.Serialize(run, RlhfJson.Indented);
            Assert.False(RunStates.IsFinal(run.State), trouble);
            Assert.True(clock.Elapsed < Patience, trouble + "\n" + Logs());
        }
    }

    /// <summary>Looks until there is something to be seen.</summary>
    /// <param name="what">What is waited for, in words.</param>
    /// <param name="look">Gives it, or null.</param>
    public async Task<T> UntilAsync<T>(string what, Func<Task<T?>> look)
        where T : class
    {
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(20))
        {
            if (await look() is { } seen)
                return seen;
            Assert.True(clock.Elapsed < Patience, $"waited in vain for {what}\n{Logs()}");
        }
    }

    /// <summary>Waits until the job's history has such an attempt, while the document may be damaged or gone.</summary>
    public Task<AttemptRecord> EndedAsync(string runId, string stage, int fence, string outcome) => UntilAsync(
        $"attempt {fence} of {runId}/{stage} to end as {outcome}",
        async () => (await Blobs.ReadIntactJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), CancellationToken.None))?.History
            .FirstOrDefault(record => record.Fence == fence && record.Outcome == outcome));

    /// <summary>Waits until the orchestrator has seen all of a job that there is now: until a look that began after this call has ended.</summary>
    public async Task LookedAtAsync(string runId, string stage)
    {
        await using var database = new SqliteConnection($"Data Source={Path.Combine(folder, "durable.db")};Mode=ReadOnly;Pooling=False");
        await database.OpenAsync();
        await using SqliteCommand command = database.CreateCommand();
        command.CommandText = "SELECT updated_at FROM instances WHERE id = $id";
        command.Parameters.AddWithValue("$id", $"{runId}:{stage}");
        // A look takes two turns: the timer fires, the activity ends. One that is under way may have read what was there before.
        for (int turns = 0; turns < 3; turns++)
        {
            object? last = await command.ExecuteScalarAsync();
            await UntilAsync($"the orchestrator to look at {runId}/{stage}", async () =>
                await command.ExecuteScalarAsync() is { } now && !now.Equals(last) ? now : null);
        }
    }

    /// <summary>Waits for the end of a run.</summary>
    public Task<RunView> EndAsync(string runId) => WaitAsync(runId, run => RunStates.IsFinal(run.State));

    /// <summary>Waits for a run to succeed and gives its report.</summary>
    public async Task<RunReport> ReportAsync(string runId)
    {
        RunView end = await EndAsync(runId);
        Assert.True(end.State == RunStates.Succeeded, $"{runId} {end.State}: {end.Error}\n{Logs()}");
        return (await http.GetFromJsonAsync<RunReport>($"runs/{runId}/report", RlhfJson.Compact))!;
    }

    /// <summary>A stage's metric rows, as the API gives them.</summary>
    public async Task<IReadOnlyList<(int Step, string Line)>> MetricRowsAsync(string runId, string stage) =>
        Rows(await http.GetStringAsync($"runs/{runId}/metrics?stage={stage}"));

    /// <summary>The metric rows that one attempt has written.</summary>
    public async Task<IReadOnlyList<(int Step, string Line)>> MetricRowsAsync(string attemptPath) =>
        Rows((await Blobs.ReadAsync(BlobLayout.Metrics(attemptPath), CancellationToken.None))?.Content.ToString() ?? string.Empty);

    /// <summary>Asks for something of a run: pause, resume, cancel.</summary>
    public async Task AskAsync(string runId, string what)
    {
        using HttpResponseMessage answer = await http.PostAsync($"runs/{runId}/{what}", null);
        Assert.True(answer.IsSuccessStatusCode, $"{what}: {answer.StatusCode}");
    }

    /// <summary>How many messages the trainers' queue holds, those under way included.</summary>
    public async Task<int> WaitingJobsAsync()
    {
        var queue = new QueueClient(Azurite.ConnectionString, StorageAccount.JobQueue(Machine), new(QueueClientOptions.ServiceVersion.V2026_06_06));
        return (await queue.GetPropertiesAsync()).Value.ApproximateMessagesCount;
    }

    public async Task<JobDocument?> JobAsync(string runId, string stage) =>
        await Blobs.ReadJsonAsync<JobDocument>(BlobLayout.Job(runId, stage), CancellationToken.None);

    public async Task<Head?> HeadAsync(string runId, string stage) =>
        await Blobs.ReadJsonAsync<Head>(BlobLayout.Head(runId, stage), CancellationToken.None);

    /// <summary>The head of a stage whose trainer has just been stopped, once nothing of what it had sent is still to come.</summary>
    public async Task<Head?> SettledHeadAsync(string runId, string stage)
    {
        string path = BlobLayout.Head(runId, stage);
        string? tag = null;
        for (int same = 0; same < 3; await Task.Delay(20))
        {
            string? now = (await Blobs.ReadAsync(path, CancellationToken.None))?.ETag;
            (same, tag) = (now == tag ? same + 1 : 0, now);
        }

        return await HeadAsync(runId, stage);
    }

    /// <summary>The end of every process's output, for the message of a test that fails.</summary>
    public string Logs() => string.Join(
        "\n", everyTrainer.Select(trainer => trainer.Tail).Append(Host.Output));

    /// <summary>Waits until a trainer that is meant to live works on the stage and has done so many steps of it.</summary>
    /// <param name="runId">The run.</param>
    /// <param name="stage">The stage.</param>
    /// <param name="step">The step.</param>
    public async Task<(TrainerProcess Trainer, AttemptLine At)> AtStepAsync(string runId, string stage, int step)
    {
        AttemptLine at = await TrainerProcess.WaitForAsync(Trainers, line => line.Job == $"{runId}/{stage}" && line.Step >= step, Patience);
        return (Trainers.Single(trainer => trainer.Ledger.Contains(at)), at);
    }

    /// <summary>SHA-256 of every blob below the prefixes.</summary>
    public async Task<SortedDictionary<string, string>> SnapshotAsync(params IEnumerable<string> prefixes)
    {
        var sums = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (string prefix in prefixes)
        {
            await foreach (BlobEntry entry in Blobs.ListAsync(prefix, CancellationToken.None))
                sums[entry.Path] = CasDocument.Sha256((await Blobs.ReadAsync(entry.Path, CancellationToken.None))!.Content);
        }

        return sums;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (TrainerProcess trainer in everyTrainer)
            await trainer.DisposeAsync();
        if (Host is not null)
            await Host.DisposeAsync();
        http?.Dispose();
        await Azurite.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    private static IReadOnlyList<(int Step, string Line)> Rows(string lines) =>
    [
        .. lines.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => (JsonSerializer.Deserialize<MetricRow>(line, RlhfJson.Compact)!.Step, line)),
    ];

    private async Task StartHostAsync()
    {
        Host = await FunctionHost.StartAsync(folder, Azurite.ConnectionString, string.Create(CultureInfo.InvariantCulture, $"host{hosts++}"));
        http?.Dispose();
        http = new HttpClient { BaseAddress = new Uri(Host.Url, "api/") };
    }
}
