using System.Text.Json.Nodes;
using Rlhf.Jobs;
using Rlhf.Report;
using Rlhf.Spec;
using Rlhf.Tests;
using Rlhf.Trainer.Models;
using TorchSharp;
using Xunit;

namespace Rlhf.Trainer.Tests.Work;

[Collection(nameof(StorageTests))]
public sealed class StageRunnerTests(AzuriteFixture azurite)
{
    [Fact]
    public async Task SftJobLeavesModelMetricsAndCheckpoint()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite);

        JobResult result = await run.RunAsync(Stages.Sft, run.Job(JobKind.Sft));

        Assert.Equal(JobState.Succeeded, result.Outcome);
        Assert.Equal((6, 6), (result.Step, result.TotalSteps));
        Assert.True(result.Metrics["val/loss"] > 0);
        Assert.Contains("sft", result.Models);
        Assert.Contains("events.out.tfevents.sft", result.Artifacts);
        Head head = (await run.Blobs.ReadJsonAsync<Head>(BlobLayout.Head(run.RunId, Stages.Sft), TestContext.Current.CancellationToken))!;
        Assert.Equal((1, 6), (head.Fence, head.Step));
        Assert.True(result.PeakMemoryBytes > 50_000_000, $"the process took {result.PeakMemoryBytes} bytes");
        Assert.Contains("/sft takes at most about ", run.Output.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task ModelThatCannotFitIsRefusedBeforeItIsMade()
    {
        // 550 billion weights: 8 TB of weights, gradients and moments.
        var scratch = new ScratchSpec { Layers = 128, HiddenSize = 16_384, Heads = 128, KeyValueHeads = 128, IntermediateSize = 65_536 };
        JobTestRun run = await JobTestRun.CreateAsync(azurite, spec => spec with { Model = spec.Model with { Base = null, Scratch = scratch } });
        await run.EnqueueAsync(Stages.Pretrain, 1, run.Job(JobKind.Pretrain));

        await run.RunAsync(await run.ClaimAsync(), CancellationToken.None);

        JobError error = (await run.JobAsync(Stages.Pretrain)).Result!.Error!;
        Assert.Equal(JobErrorKind.OutOfMemory, error.Kind);
        Assert.Contains("no micro-batch is small enough", error.Message, StringComparison.Ordinal);
        Assert.Contains("larger machine", error.Remedy, StringComparison.Ordinal);
    }

    [Fact]
    public async Task StagesHandModelsOnFromSftToTheEvaluation()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite);
        run.Use(await run.RunAsync(Stages.Sft, run.Job(JobKind.Sft)));

        JobResult reward = await run.RunAsync(Stages.Reward, run.Job(JobKind.Reward));
        run.Use(reward);
        JobResult first = await run.RunAsync(Stages.Ppo, run.Job(JobKind.Ppo, untilStep: 2));
        JobResult second = await run.RunAsync(Stages.Ppo, run.Job(JobKind.Ppo, untilStep: 4), fence: 2);

        Assert.InRange(reward.Metrics[DecisionMetrics.RewardAccuracy], 0, 1);
        Assert.Equal((JobState.SliceDone, 2, 4), (first.Outcome, first.Step, first.TotalSteps));
        Assert.Equal((JobState.Succeeded, 4), (second.Outcome, second.Step));
        Assert.Contains(DecisionMetrics.Kl, first.Metrics);
        Assert.Contains(DecisionMetrics.ProxyReward + DecisionMetrics.Ci95, first.Metrics);
        Assert.NotEqual(first.Models[ModelRoles.Ppo].Sha256, second.Models[ModelRoles.Ppo].Sha256);

        run.Use(second);
        JobResult evaluated = await run.RunAsync(Stages.Evaluate, run.Job(JobKind.Evaluate));
        ContentFile artifact = evaluated.Artifacts[ArtifactNames.Evaluation];
        EvaluationReport report = (await run.Blobs.ReadJsonAsync<EvaluationReport>(
            BlobLayout.Content(artifact.Sha256), TestContext.Current.CancellationToken))!;
        Assert.Equal(
            ["base", "base_greedy", "base_few_shot", "base_few_shot_greedy", "sft", "sft_greedy", "best_of_2", "ppo", "ppo_greedy"],
            report.Table.Select(row => row.Model).Distinct());
        Assert.All(report.Table.Where(row => row.Metric == "proxy_reward"), row => Assert.Equal(8, row.N));
        Assert.DoesNotContain(report.Table, row => row.Metric == "gold_reward");
        Assert.Equal(["all", "long", "short"], report.RewardModel.Where(row => row.Metric == "accuracy").Select(row => row.Subset));
        Assert.Equal(2, report.Samples.Count);
        Assert.Equal(["sft", "best of 2", "ppo"], report.BestOfN.Select(point => point.Label));
    }

    [Fact]
    public async Task AdaptersArePublishedBesideTheModelsThatHaveThemMerged()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite, spec => spec with
        {
            Lora = new LoraSpec { Rank = 2, Alpha = 8, Targets = ["q_proj", "down_proj"] },
            Sft = spec.Sft with { LearningRate = 0.05 },
        });
        run.Use(await run.RunAsync(Stages.Sft, run.Job(JobKind.Sft)));
        run.Use(await run.RunAsync(Stages.Reward, run.Job(JobKind.Reward)));
        await run.RunAsync(Stages.Ppo, run.Job(JobKind.Ppo, untilStep: 2));
        run.Use(await run.RunAsync(Stages.Ppo, run.Job(JobKind.Ppo, untilStep: 4), fence: 2)); // resumed from the first slice's checkpoint
        JobResult evaluated = await run.RunAsync(Stages.Evaluate, run.Job(JobKind.Evaluate));
        Assert.Contains(ArtifactNames.Evaluation, evaluated.Artifacts);

        using var folder = new TemporaryFolder();
        foreach ((string role, string baseRole) in new[] { ("sft", "base"), ("reward", "sft"), ("ppo", "sft") })
        {
            string adapter = await FetchAsync(ModelRoles.Adapter(role));
            JsonNode config = JsonNode.Parse(await File.ReadAllTextAsync(
                Path.Combine(adapter, "adapter_config.json"), TestContext.Current.CancellationToken))!;
            Assert.Equal($"../{baseRole}", config["base_model_name_or_path"]!.GetValue<string>());
            Assert.Equal("""["down_proj","q_proj"]""", config["target_modules"]!.ToJsonString());

            // The base with the adapter is the model, weight by weight.
            using DisposeScope scope = torch.NewDisposeScope();
            using Transformer trunk = HuggingFaceFolder.LoadModel(await FetchAsync(baseRole));
            using Transformer adapted = PeftFolder.Load(adapter, trunk);
            using Transformer model = HuggingFaceFolder.LoadModel(await FetchAsync(role));
            foreach (((string name, var expected), (_, var actual)) in adapted.MergedWeights().Zip(model.NamedWeights()))
                Assert.True(expected.bytes.SequenceEqual(actual.bytes), $"{role}: {name} differs");
            Assert.True(role == "ppo" || (model.NamedWeights()[1].Value - trunk.NamedWeights()[1].Value).abs().max().item<float>() > 0);
        }

        Head head = (await run.Blobs.ReadJsonAsync<Head>(BlobLayout.Head(run.RunId, Stages.Sft), TestContext.Current.CancellationToken))!;
        CheckpointManifest manifest = (await run.Blobs.ReadJsonAsync<CheckpointManifest>(
            head.Manifest!, TestContext.Current.CancellationToken))!;
        Assert.InRange(manifest.Parts.Sum(part => part.Length), 1, 16_000); // the model alone has 77,000 bytes

        async Task<string> FetchAsync(string role)
        {
            CancellationToken stop = TestContext.Current.CancellationToken;
            string place = Directory.CreateDirectory(Path.Combine(folder.Path, role)).FullName;
            FolderManifest files = (await run.Blobs.ReadJsonAsync<FolderManifest>(run.Model(role).Manifest, stop))!;
            foreach (ContentFile file in files.Files)
            {
                await using Stream source = await run.Blobs.OpenReadAsync(BlobLayout.Content(file.Sha256), stop);
                await using FileStream target = File.Create(Path.Combine(place, file.Name));
                await source.CopyToAsync(target, stop);
            }

            return place;
        }
    }

    [Fact]
    public async Task AnUnknownLoraTargetIsTheSpecsFaultAndNamed()
    {
        JobTestRun run = await JobTestRun.CreateAsync(azurite, spec => spec with { Lora = new LoraSpec { Targets = ["c_attn"] } });
        await run.EnqueueAsync(Stages.Sft, 1, run.Job(JobKind.Sft));
        Assert.Equal(JobState.Failed, await run.RunAsync(await run.ClaimAsync(), TestContext.Current.CancellationToken));
        JobError error = (await run.JobAsync(Stages.Sft)).Result!.Error!;
        Assert.Equal(JobErrorKind.Input, error.Kind);
        Assert.Contains("'c_attn' is no linear module of the model. Its modules are self_attn.q_proj", error.Message, StringComparison.Ordinal);
        Assert.Contains("lora.targets", error.Remedy, StringComparison.Ordinal);
    }
}

/// <summary>Tests that share one storage emulator; they run one after the other.</summary>
[CollectionDefinition(nameof(StorageTests))]
public sealed class StorageTests : ICollectionFixture<AzuriteFixture>;
