using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Evaluation;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using Rlhf.Trainer.Tokenizers;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Work;

/// <summary>Loads and verifies a job's models and data, and builds the method that works on them.</summary>
internal sealed class StageInputs(
    ContentCache cache, JobSpec job, RunSpec spec, string scratchDirectory, WorkerLog log, CancellationToken cancellation)
{
    private const string TokenizerPart = "tokenizer";

    /// <summary>The longest answer that any stage samples, end token included: prompts leave room for it.</summary>
    private int MaxNewTokens => Math.Max(spec.Answers().MaxNewTokens, spec.Evaluate.MaxNewTokens);

    /// <summary>Builds the job's method.</summary>
    /// <param name="resume">The checkpoint that will be loaded into it; null on a first start.</param>
    /// <exception cref="JobInputException">The job's input is bad.</exception>
    /// <exception cref="CorruptBlobException">A model or data set is not what the job names.</exception>
    public StageWork Build(ICheckpointReader? resume) => job.Kind switch
    {
        JobKind.Pretrain => Pretrain(resume),
        JobKind.Sft => Sft(),
        JobKind.Reward => Reward(ModelRoles.Reward, "train"),
        JobKind.HeldOutReward => Reward(ModelRoles.HeldOutReward, DatasetNames.HeldOutReward),
        JobKind.Ppo => Ppo(),
        JobKind.Dpo => Dpo(),
        JobKind.Rloo => Rloo(),
        JobKind.Grpo => Grpo(),
        JobKind.Evaluate => Evaluate(),
        _ => throw new JobInputException($"This trainer knows no job of kind {job.Kind}.", "Take a trainer of the run's version."),
    };

    private StageWork Pretrain(ICheckpointReader? resume)
    {
        ScratchSpec scratch = spec.Model.Scratch
            ?? throw new JobInputException("The spec has no model.scratch to pretrain.", "Give model.scratch, or model.base.");
        IReadOnlyList<string> train = Texts("train");
        if (train.Count == 0)
            throw new JobInputException("There is no text to pretrain on.", "Give data.text or data.demonstrations.");

        ByteLevelBpe tokenizer = resume is null ? TrainTokenizer(train, scratch) : RestoreTokenizer(resume);
        PretrainSpec pretrain = spec.Pretrain ?? new PretrainSpec();
        ModelConfig config = ModelConfig.Llama(
            tokenizer.VocabularySize, scratch.HiddenSize, scratch.Layers, scratch.Heads, scratch.KeyValueHeads,
            scratch.IntermediateSize, scratch.ContextLength, scratch.TieEmbeddings, eosId: tokenizer.EosId, padId: tokenizer.PadId);
        RequireMemory(new MemoryPlan
        {
            Trained = [config],
            Sequences = PerPass(pretrain.BatchSize),
            Tokens = pretrain.SequenceLength,
            Predicted = pretrain.SequenceLength,
            Read = RowCount(DatasetNames.Text, "validation"),
        });
        Transformer model = new(config, Device());
        Configure(model);
        model.InitialiseWeights(Seeds.For(spec.Seed, Stages.Pretrain, 0, "weights"));
        return new StageWork
        {
            Method = new Pretrain(
                model, pretrain, [.. train.Select(text => tokenizer.Encode(text))],
                [.. Texts("validation").Select(text => tokenizer.Encode(text))], tokenizer, spec.Seed,
                spec.Trainer.MicroBatchSize),
            Model = new FinishedModel(ModelRoles.Base, folder => HuggingFaceFolder.Save(folder, model, tokenizer)),
            SaveInputs = checkpoint => SaveTokenizer(checkpoint, tokenizer),
            Owned = [model],
        };
    }

    private StageWork Sft()
    {
        RequireMemory(new MemoryPlan
        {
            Frozen = Lora(LoraStage.Sft) is null ? [] : [Config(ModelRoles.Base)],
            Trained = [Config(ModelRoles.Base)],
            Adapter = Lora(LoraStage.Sft),
            Sequences = PerPass(spec.Sft.BatchSize),
            Tokens = spec.Model.MaxPromptTokens + spec.Model.MaxCompletionTokens,
            Predicted = spec.Model.MaxCompletionTokens,
            Read = RowCount(DatasetNames.Demonstrations, "validation"),
            Samples = true,
        });
        LoadedModel start = Model(ModelRoles.Base);
        RowTokenizer rows = RowTokenizer(start);
        LoraOptions? lora = Lora(LoraStage.Sft);
        Transformer model = lora is null ? start.Model : start.Model.WithAdapter(lora, Seeds.For(spec.Seed, Stages.Sft, 0, "adapter"));
        return new StageWork
        {
            Method = new Sft(
                model, spec.Sft, [.. Rows(DatasetNames.Demonstrations, "train").Select(rows.Demonstration)],
                [.. OptionalRows(DatasetNames.Demonstrations, "validation").Select(rows.Demonstration)],
                start.Tokenizer, spec.Answers().MaxNewTokens, spec.Seed, spec.Trainer.MicroBatchSize),
            Model = new FinishedModel(
                ModelRoles.Sft, folder => HuggingFaceFolder.Save(folder, model, start.Tokenizer), Adapter(model, ModelRoles.Base)),
            Owned = lora is null ? [start] : [model, start],
        };
    }

    /// <summary>A reward model from one split of the rankings.</summary>
    private StageWork Reward(string role, string split)
    {
        IReadOnlyList<Row> train = Rows(DatasetNames.Preferences, split);
        int completions = train.Max(row => row.Completions.Count);
        ModelConfig config = Config(ModelRoles.Sft);
        RequireMemory(new MemoryPlan
        {
            Frozen = [config],
            Trained = [config with { Head = HeadKind.Score }],
            Adapter = Lora(LoraStage.Reward),
            Sequences = PerPass(spec.Reward.BatchSize) * completions,
            Tokens = spec.Model.MaxPromptTokens + spec.Model.MaxCompletionTokens,
            Predicted = 0,
            Read = RowCount(DatasetNames.Preferences, "validation") * completions + RowCount(DatasetNames.Demonstrations, "train"),
        });
        LoadedModel sft = Model(ModelRoles.Sft);
        RowTokenizer rows = RowTokenizer(sft);
        IReadOnlyList<Row> validation = OptionalRows(DatasetNames.Preferences, "validation");
        var method = new RewardModel(
            sft.Model, spec.Reward, [.. train.Select(rows.Preference)],
            [.. validation.Select(rows.Preference)],
            [.. OptionalRows(DatasetNames.Demonstrations, "train").Select(rows.Demonstration)], sft.Tokenizer, spec.Seed,
            spec.Trainer.MicroBatchSize, Lora(LoraStage.Reward));
        return new StageWork
        {
            Method = method,
            Model = new FinishedModel(
                role,
                folder =>
                {
                    using Transformer calibrated = method.Export();
                    HuggingFaceFolder.Save(folder, calibrated, sft.Tokenizer);
                },
                Adapter(method.Model, ModelRoles.Sft)),
            Validate = () => Validation.OfReward(method, sft, validation, rows, spec),
            Owned = [sft],
        };
    }

    private StageWork Ppo() => Align((sft, reward, rows, rewards) => new Ppo(
        sft.Model, reward.Model, spec.Ppo, RolloutPrompts(rows),
        [.. (spec.Ppo.PtxCoefficient > 0 ? Rows(DatasetNames.Demonstrations, "train") : []).Select(rows.Demonstration)],
        sft.Tokenizer, spec.Seed, spec.Trainer.MicroBatchSize, rewards,
        Lora(LoraStage.Policy)));

    private StageWork Rloo() => Align((sft, reward, rows, rewards) => new Rloo(
        sft.Model, reward.Model, spec.Rloo ?? new RlooSpec(), RolloutPrompts(rows),
        sft.Tokenizer, spec.Seed, spec.Trainer.MicroBatchSize, rewards,
        Lora(LoraStage.Policy)));

    private StageWork Grpo() => Align((sft, reward, rows, rewards) => new Grpo(
        sft.Model, reward.Model, spec.Grpo ?? new GrpoSpec(), RolloutPrompts(rows),
        sft.Tokenizer, spec.Seed, spec.Trainer.MicroBatchSize, rewards,
        Lora(LoraStage.Policy)));

    private StageWork Dpo() => Align((sft, reward, rows, rewards) => new Dpo(
        sft.Model, reward.Model, spec.Dpo ?? new DpoSpec(), spec.Answers(),
        [.. Rows(DatasetNames.Preferences, "train").Select(rows.Preference)],
        [.. OptionalRows(DatasetNames.Preferences, "validation").Select(rows.Preference)],
        sft.Tokenizer, spec.Seed, spec.Trainer.MicroBatchSize, rewards,
        Lora(LoraStage.Policy)));

    /// <summary>A preference method with what is the same around all of them: where it starts, what it makes, how it is validated.</summary>
    private StageWork Align(Func<LoadedModel, LoadedModel, RowTokenizer, RewardFunction, IPolicyMethod> build)
    {
        RequireMemory(PolicyPlan());
        LoadedModel sft = Model(ModelRoles.Sft), reward = Model(ModelRoles.Reward);
        RowTokenizer rows = RowTokenizer(sft);
        IReadOnlyList<Row> validation = Evenly.Take(OptionalRows(DatasetNames.Prompts, "validation"), spec.Answers().ValidationPrompts);
        RewardFunction rewards = Rewards(() => reward.Model);
        IPolicyMethod method = build(sft, reward, rows, rewards);
        return new StageWork
        {
            Method = method,
            Rewards = rewards,
            Model = new FinishedModel(
                Stages.Of(spec.Method), folder => HuggingFaceFolder.Save(folder, method.Policy, sft.Tokenizer),
                Adapter(method.Policy, ModelRoles.Sft)),
            Validate = () => Validation.OfPolicy(method, validation, rows),
            Owned = [sft, reward],
        };
    }

    private MemoryPlan PolicyPlan()
    {
        ModelConfig policy = Config(ModelRoles.Sft), scoring = Config(ModelRoles.Reward);
        bool ppo = spec.Method == PreferenceMethod.Ppo, mixes = ppo && spec.Ppo.PtxCoefficient > 0, offline = spec.Online() is null;
        int longest = Math.Max(spec.Answers().MaxNewTokens, mixes || offline ? spec.Model.MaxCompletionTokens : 0);
        return new MemoryPlan
        {
            Frozen = [policy, scoring],
            Trained = ppo ? [policy, scoring] : [policy],
            Adapter = Lora(LoraStage.Policy),
            Sequences = spec.Online() is { } online
                // PPO's language-modelling term brings as many demonstrations into a pass as there are episodes.
                ? PerPass(online.MinibatchSize) * (mixes ? 2 : 1)
                : PerPass((spec.Dpo ?? new DpoSpec()).BatchSize)
                    * Rows(DatasetNames.Preferences, "train").Max(row => row.Completions.Count),
            Tokens = spec.Model.MaxPromptTokens + longest,
            Predicted = longest,
            Read = Math.Max(spec.Answers().ValidationPrompts, spec.Online()?.Episodes ?? 0),
            Samples = true,
        };
    }

    private TokenizedPrompt[] RolloutPrompts(RowTokenizer rows) => [.. Rows(DatasetNames.Prompts, "train").Select(rows.PromptOnly)];

    private StageWork Evaluate()
    {
        int longest = Math.Max(spec.Evaluate.MaxNewTokens, spec.Model.MaxCompletionTokens);
        RequireMemory(new MemoryPlan
        {
            // The adapters beside them are not loaded: the models have them merged.
            Frozen = [.. job.Models.Keys.Except(job.Models.Keys.Select(ModelRoles.Adapter)).Select(Config)],
            Tokens = spec.Model.MaxPromptTokens + longest,
            Predicted = longest,
            Read = spec.Evaluate.MaxPrompts,
            Samples = true,
        });
        var method = new EvaluationJob(
            spec.Evaluate, spec.Method, [.. job.Models.Keys],
            new EvaluationData
            {
                Prompts = Rows(DatasetNames.Evaluation, "test"),
                Examples = OptionalRows(DatasetNames.FewShot, "train"),
                Preferences = OptionalRows(DatasetNames.Preferences, "test"),
                TrainingPreferences = [.. OptionalRows(DatasetNames.Preferences, "train").Take(spec.Reward.MaxRows ?? int.MaxValue)],
                ValidationPreferences = OptionalRows(DatasetNames.Preferences, "validation"),
                UnseenLabellers = OptionalRows(DatasetNames.Preferences, DatasetNames.UnseenLabellers),
                Comparisons = OptionalRows(DatasetNames.Comparisons, "test"),
                Safety = OptionalRows(DatasetNames.Safety, "test"),
                Demonstrations = OptionalRows(DatasetNames.Demonstrations, "validation"),
            },
            RowTokenizer, Model, spec.Seed, Rewards);
        return new StageWork
        {
            Method = method,
            Rewards = method.Scoring,
            WriteFiles = folder => File.WriteAllBytes(
                Path.Combine(folder, ArtifactNames.Evaluation), JsonSerializer.SerializeToUtf8Bytes(method.Report(), RlhfJson.Indented)),
        };
    }

    /// <summary>The adapter that a stage trains; null where it trains all weights.</summary>
    private LoraOptions? Lora(LoraStage stage) =>
        spec.Lora is { } lora && lora.Stages.Contains(stage) ? new LoraOptions(lora.Rank, lora.Alpha, lora.Targets) : null;

    /// <summary>How to write a model's adapter, if it has one; models lie side by side in a run's results.</summary>
    private static Action<string>? Adapter(Transformer model, string baseRole) =>
        model.Adapter is null ? null : folder => PeftFolder.Save(folder, model, $"../{baseRole}");

    /// <summary>Pretraining documents as they will be seen later; where the run has no text, its demonstrations.</summary>
    private IReadOnlyList<string> Texts(string split)
    {
        IReadOnlyList<Row> rows = OptionalRows(DatasetNames.Text, split);
        if (rows.Count == 0)
            rows = OptionalRows(DatasetNames.Demonstrations, split);
        ChatTemplateName template = spec.Model.ChatTemplate;
        return
        [
            .. rows.Select(row => row.Prompt.Count == 0
                ? row.Completions[0]
                : ChatTemplate.Render(row.Prompt, template) + ChatTemplate.Continuation(row.Completions[0], template)),
        ];
    }

    private ByteLevelBpe TrainTokenizer(IReadOnlyList<string> texts, ScratchSpec scratch)
    {
        string[] specials = ["<|endoftext|>", "<|pad|>", .. ChatTemplate.SpecialTokens(spec.Model.ChatTemplate)];
        ByteLevelBpe tokenizer = ByteLevelBpe.Train(texts, scratch.VocabularySize, specials);
        log.Line($"trained a tokenizer of {tokenizer.VocabularySize} tokens on {texts.Count} texts");
        return tokenizer;
    }

    private void SaveTokenizer(ICheckpointWriter checkpoint, ByteLevelBpe tokenizer)
    {
        string folder = Path.Combine(scratchDirectory, "tokenizer-save");
        Directory.CreateDirectory(folder);
        tokenizer.Save(folder);
        checkpoint.WriteState(TokenizerPart, new SortedDictionary<string, string>(
            Directory.GetFiles(folder).ToDictionary(file => Path.GetFileName(file), File.ReadAllText), StringComparer.Ordinal));
    }

    private ByteLevelBpe RestoreTokenizer(ICheckpointReader checkpoint)
    {
        string folder = Path.Combine(scratchDirectory, "tokenizer");
        Directory.CreateDirectory(folder);
        foreach ((string name, string content) in checkpoint.ReadState<SortedDictionary<string, string>>(TokenizerPart))
            File.WriteAllText(Path.Combine(folder, Path.GetFileName(name)), content);
        return ByteLevelBpe.Load(folder);
    }

    private string Folder(string role)
    {
        if (!job.Models.TryGetValue(role, out ModelRef? model))
            throw new JobInputException($"The job names no model '{role}'.", "The stage before must have made it; start the run again.");
        return cache.FolderAsync(model, cancellation).GetAwaiter().GetResult();
    }

    private ModelConfig Config(string role) => HuggingFaceFolder.ReadConfig(Folder(role));

    private LoadedModel Model(string role)
    {
        LoadedModel loaded = HuggingFaceFolder.Load(Folder(role), Device());
        if (loaded.Tokenizer.PadIsNew)
        {
            log.Line(
                $"model '{role}' has no padding token apart from its end token: a token {loaded.Tokenizer.PadId} was added for it, "
                + "with the mean of the embedding's rows");
        }

        Configure(loaded.Model);
        return loaded;
    }

    private void Configure(Transformer model)
    {
        model.Precision = spec.Trainer.Precision;
        model.GradientCheckpointing = spec.Trainer.GradientCheckpointing;
    }

    private RewardFunction Rewards(Func<Transformer> model) =>
        RewardFunction.Create(spec.Rewards, model, spec.RunId!, Environment.GetEnvironmentVariable);

    private int RowCount(string dataset, string split) =>
        job.Datasets.TryGetValue(DatasetNames.Split(dataset, split), out DatasetRef? reference) ? (int)reference.Rows : 0;

    /// <summary>Rows of a forward and backward pass where steps are of so many.</summary>
    private int PerPass(int batchSize) => Math.Min(spec.Trainer.MicroBatchSize ?? batchSize, batchSize);

    /// <summary>Says what the job will take, before anything of it is loaded, and warns where that is more than there is.</summary>
    /// <exception cref="InsufficientMemoryException">Not even weights, gradients and optimizer fit.</exception>
    private void RequireMemory(MemoryPlan plan)
    {
        MemoryEstimate estimate = MemoryEstimate.Of(plan, spec.Trainer);
        string name = $"{spec.RunId}/{job.Kind.ToString().ToLowerInvariant()}";
        if (Available() is not { } available)
        {
            log.Line($"{name} takes at most about {estimate}");
            return;
        }

        log.Line($"{name} takes at most about {estimate}; {MemoryEstimate.Text(available)} are available");
        if (estimate.Fixed > available)
        {
            throw new InsufficientMemoryException(
                $"weights, gradients and optimizer take {MemoryEstimate.Text(estimate.Fixed)} and {MemoryEstimate.Text(available)} are "
                + "available: no micro-batch is small enough.");
        }

        if (estimate.Total > available)
        {
            log.Line($"{name} may run out of memory: lower trainer.microBatchSize, set trainer.gradientCheckpointing, or lower "
                + "model.maxPromptTokens and maxCompletionTokens");
        }
    }

    private long? Available() => spec.Trainer.Device == ComputeDevice.Cuda ? CudaMemory.Read()?.Free : ProcessMemory.AvailableBytes();

    private RowTokenizer RowTokenizer(LoadedModel model) => new(model.Tokenizer, spec.Model, model.Config.MaxPositions, MaxNewTokens);

    private IReadOnlyList<Row> Rows(string dataset, string split)
    {
        IReadOnlyList<Row> rows = OptionalRows(dataset, split);
        return rows.Count > 0
            ? rows
            : throw new JobInputException(
                $"The data set '{DatasetNames.Split(dataset, split)}' has no rows.", $"Give data.{dataset} in the spec.");
    }

    private IReadOnlyList<Row> OptionalRows(string dataset, string split)
    {
        string name = DatasetNames.Split(dataset, split);
        if (!job.Datasets.TryGetValue(name, out DatasetRef? reference) || reference.Rows == 0)
            return [];
        string file = cache.FileAsync(reference.Path, reference.Sha256, cancellation).GetAwaiter().GetResult();
        return DatasetReader.Read(name, file);
    }

    private Device Device()
    {
        if (spec.Trainer.Device == ComputeDevice.Cpu)
            return CPU;
        return cuda.is_available()
            ? CUDA
            : throw new JobInputException(
                "The spec asks for trainer.device 'cuda' and this trainer has no CUDA device.",
                "Run the CUDA image on a machine with a GPU, or set trainer.device to 'cpu'.");
    }
}
