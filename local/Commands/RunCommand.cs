using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Rlhf.Local.Stack;
using Rlhf.Spec;
using Spectre.Console;

namespace Rlhf.Local.Commands;

/// <summary>One run from spec to report, on a stack of its own: what a person does with the API, done once for them.</summary>
/// <param name="Spec">The spec's file.</param>
/// <param name="Data">What the spec's data files are relative to; null means the spec's folder.</param>
/// <param name="Out">Where the result folder goes.</param>
/// <param name="State">The stack's state folder.</param>
/// <param name="RunId">The run's id; null takes the spec's, that of an unfinished run of this spec, or a new one.</param>
/// <param name="Port">The API's port.</param>
/// <param name="Verbose">Host log lines on standard error.</param>
internal sealed record RunCommand(string Spec, string? Data, string Out, string State, string? RunId, int Port, bool Verbose)
{
    private static readonly TimeSpan Poll = TimeSpan.FromSeconds(0.5);
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    /// <summary>Runs it.</summary>
    /// <returns>0 only if the run succeeded.</returns>
    /// <exception cref="UserErrorException">The input is bad, the stack cannot start, or a part of it failed.</exception>
    public async Task<int> ExecuteAsync(IAnsiConsole console, CancellationToken cancellation)
    {
        RunSpec written = ReadSpec();
        string specFolder = Path.GetDirectoryName(Path.GetFullPath(Spec))!;
        LocalInputs inputs = await LocalInputs.CheckAsync(written, Path.GetFullPath(Data ?? specFolder), specFolder, cancellation);
        ResultFolder.RequireWritable(Out);
        IRunDisplay display = console.Profile.Capabilities.Interactive && !Console.IsOutputRedirected && !Verbose
            ? new LiveDisplay(console)
            : new PlainDisplay(Console.Out);

        await using DevStack stack = await DevStack.StartAsync(
            new StackOptions(State, IPAddress.Loopback, Port, written.Trainer.Machine, Verbose), display.Note, cancellation);
        using var client = new RunClient(stack.BaseUrl, stack.FunctionsKey);
        RunSpec spec = await inputs.UploadAsync(stack.Storage.Blobs, cancellation);
        spec = spec with { RunId = await ChooseRunIdAsync(spec, stack.State, client, cancellation) };
        bool isNew = await client.StartAsync(spec, cancellation);
        display.Note($"run {spec.RunId}: {(isNew ? "started" : "carried on")}, {stack.BaseUrl}api/runs/{spec.RunId}");

        RunView end;
        try
        {
            end = await display.WhileAsync(() => FollowAsync(client, spec.RunId!, stack, display, cancellation));
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            display.Note($"stopping; the run is kept. Carry on with: {CarryOn(spec.RunId!)}");
            throw;
        }

        (Report.RunReport Report, string Folder)? result =
            await new ResultFolder(client, stack.Storage.Blobs, Path.GetFullPath(Out)).FetchAsync(spec.RunId!, cancellation);
        if (result is { } found)
            Summary.Print(console, found.Report, Path.GetRelativePath(Environment.CurrentDirectory, found.Folder));
        if (end.State == RunStates.Succeeded)
            return 0;
        await Console.Error.WriteLineAsync(end.Error is null ? $"error: run {end.RunId} {end.State}" : $"error: {end.Error}");
        return 1;
    }

    private RunSpec ReadSpec()
    {
        if (!File.Exists(Spec))
            throw new UserErrorException($"There is no spec file '{Spec}'. Give one with --spec; samples lie in '{BuildLayout.Samples}'.");
        try
        {
            RunSpec spec = SpecReader.Read(File.ReadAllText(Spec));
            return RunId is null ? spec : SpecReader.Read(JsonSerializer.Serialize(spec with { RunId = RunId }, RlhfJson.Compact));
        }
        catch (InvalidSpecException e)
        {
            throw new UserErrorException($"{Spec}: {e.Message}", e);
        }
    }

    /// <summary>An id that was asked for; else that of an unfinished run of the very same spec; else a new one.</summary>
    private static async Task<string> ChooseRunIdAsync(RunSpec spec, StateFolder state, RunClient client, CancellationToken cancellation)
    {
        if (spec.RunId is { } given)
            return given;

        string sum = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(JsonSerializer.Serialize(spec, RlhfJson.Compact))));
        if (state.ReadLastRun() is { } last && last.SpecSha256 == sum
            && await client.GetAsync(last.RunId, cancellation) is { } run && !RunStates.IsFinal(run.State))
        {
            return last.RunId;
        }

        string stamp = DateTime.Now.ToString("yyyyMMdd-HHmmss", CultureInfo.InvariantCulture);
        string id = $"{spec.Name[..Math.Min(spec.Name.Length, 48 - stamp.Length - 1)].TrimEnd('-')}-{stamp}";
        state.WriteLastRun(new LastRun(id, sum));
        return id;
    }

    private static async Task<RunView> FollowAsync(
        RunClient client, string runId, DevStack stack, IRunDisplay display, CancellationToken cancellation)
    {
        var silence = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                if (await client.GetAsync(runId, cancellation) is { } run)
                {
                    silence.Restart();
                    display.Show(run);
                    if (RunStates.IsFinal(run.State))
                        return run;
                }
            }
            catch (Exception e) when (e is HttpRequestException or TaskCanceledException
                && !cancellation.IsCancellationRequested && silence.Elapsed < Patience)
            {
                // The run goes on without anybody looking; a machine out of breath is no reason to stop it.
                display.Note($"no answer from the API: {e.Message}");
            }

            if (await Task.WhenAny(stack.Completion, Task.Delay(Poll, cancellation)) == stack.Completion)
                await stack.Completion;
            cancellation.ThrowIfCancellationRequested();
        }
    }

    private string CarryOn(string runId)
    {
        var command = new StringBuilder($"dotnet run --project local -- run --spec {Spec} --run-id {runId}");
        if (Data is not null)
            command.Append(CultureInfo.InvariantCulture, $" --data {Data}");
        if (State != Defaults.State)
            command.Append(CultureInfo.InvariantCulture, $" --state {State}");
        if (Out != Defaults.Out)
            command.Append(CultureInfo.InvariantCulture, $" --out {Out}");
        return command.ToString();
    }
}
