using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Storage;
using Xunit;

namespace Rlhf.Chaos.Tests;

/// <summary>What must hold of every finished run, whatever happened to it.</summary>
internal static class RunChecks
{
    /// <summary>Every stage ended once: one result in its job, fences without a gap, a sealed head that its last attempt moved.</summary>
    /// <param name="stack">The stack.</param>
    /// <param name="report">The run's report.</param>
    /// <param name="forgetful">The stage whose metric rows the storage has forgotten some of; null where it kept all.</param>
    public static async Task AssertOneResultAsync(ChaosStack stack, RunReport report, string? forgetful = null)
    {
        foreach (StageReport stage in report.Stages.Where(stage => stage.Name is not (Stages.Data or Stages.Promote)))
        {
            JobDocument job = (await stack.JobAsync(report.RunId, stage.Name))!;
            Assert.Equal(JobState.Succeeded, job.State);
            Assert.Equal(Enumerable.Range(1, job.Fence - 1), job.History.Select(record => record.Fence));
            Assert.DoesNotContain(job.History, record => record.Outcome == "succeeded");
            Head head = (await stack.HeadAsync(report.RunId, stage.Name))!;
            Assert.Equal(job.Result!.TotalSteps, head.Step);
            Assert.Equal(job.Fence, head.SealedBy);
            int[] rows = [.. (await stack.MetricRowsAsync(report.RunId, stage.Name)).Select(row => row.Step)];
            int[] all = [.. Enumerable.Range(1, job.Result.TotalSteps)];
            Assert.Equal(stage.Name == forgetful ? all.Intersect(rows) : all, rows); // none twice, none out of order
        }

        var versions = new List<string>();
        await foreach (BlobEntry entry in stack.Blobs.ListAsync(BlobLayout.ModelVersion(report.Spec.Name, report.RunId), CancellationToken.None))
            versions.Add(entry.Path);
        Assert.Single(versions);
    }

    /// <summary>A stage was done by these attempts, and no other was ever counted.</summary>
    public static async Task AssertUntouchedAsync(ChaosStack stack, RunReport report)
    {
        foreach (StageReport stage in report.Stages.Where(stage => stage.Name is not (Stages.Data or Stages.Promote)))
        {
            int slices = stage.Name == Stages.Ppo ? report.Spec.Ppo.Iterations / report.Spec.Ppo.IterationsPerSlice : 1;
            JobDocument job = (await stack.JobAsync(report.RunId, stage.Name))!;
            Assert.Equal(slices, job.Fence);
            Assert.All(job.History, record => Assert.Equal("sliceDone", record.Outcome));
            Assert.Equal(slices, stage.Attempts);
            AttemptLine[] claims = [.. stack.Ledger.Where(line => line.IsClaim && line.Job == $"{report.RunId}/{stage.Name}")];
            Assert.Equal(Enumerable.Range(1, slices), claims.Select(claim => claim.Fence).Order());
        }
    }

    /// <summary>The attempt was given up; nothing that it did afterwards shows anywhere.</summary>
    /// <param name="stack">The stack.</param>
    /// <param name="lost">The attempt.</param>
    public static async Task AssertNothingPublishedAsync(ChaosStack stack, AttemptLine lost)
    {
        (string runId, string stage) = (lost.Job.Split('/')[0], lost.Job.Split('/')[1]);
        JobDocument job = (await stack.JobAsync(runId, stage))!;
        AttemptRecord record = Assert.Single(job.History, record => record.Fence == lost.Fence);
        Assert.Equal("lost", record.Outcome);
        string path = BlobLayout.Attempt(runId, stage, lost.Fence, record.AttemptId!);
        Assert.Null(await stack.Blobs.ReadAsync(BlobLayout.Result(path), CancellationToken.None));

        AttemptLine[] next = [.. stack.Ledger.Where(line => line.Job == lost.Job && line.Fence > lost.Fence)];
        int from = next.Select(line => line.TakenUpAt).FirstOrDefault(step => step is not null) ?? 0;
        Head head = (await stack.HeadAsync(runId, stage))!;
        Assert.True(head.Fence > lost.Fence && head.SealedBy > lost.Fence, $"the head is of attempt {head.Fence}, sealed by {head.SealedBy}");
        for (string? manifest = head.Manifest; manifest is not null;)
        {
            if (await stack.Blobs.ReadJsonAsync<CheckpointManifest>(manifest, CancellationToken.None) is not { } checkpoint)
                break; // old ones are deleted
            Assert.True(checkpoint.Fence != lost.Fence || checkpoint.Step <= from, $"{manifest} was published after attempt {lost.Fence} was given up");
            manifest = checkpoint.Parent;
        }

        HashSet<string> own = [.. (await stack.MetricRowsAsync(path)).Select(row => row.Line)];
        Assert.DoesNotContain(await stack.MetricRowsAsync(runId, stage), row => row.Step > from && own.Contains(row.Line));
    }
}
