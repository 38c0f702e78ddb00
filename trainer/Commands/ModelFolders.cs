using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Commands;

/// <summary>What <c>--model</c> and <c>--adapter</c> name, loaded.</summary>
internal static class ModelFolders
{
    /// <summary>A model, its adapter merged where there is one.</summary>
    public static Transformer LoadModel(DirectoryInfo folder, DirectoryInfo? adapter) =>
        Merged(HuggingFaceFolder.LoadModel(folder.FullName), adapter);

    /// <summary>A model with its tokenizer, its adapter merged where there is one.</summary>
    public static LoadedModel Load(DirectoryInfo folder, DirectoryInfo? adapter)
    {
        LoadedModel loaded = HuggingFaceFolder.Load(folder.FullName);
        Transformer model = Merged(loaded.Model, adapter);
        return new LoadedModel(model, loaded.Tokenizer, model.Config);
    }

    private static Transformer Merged(Transformer model, DirectoryInfo? adapter)
    {
        if (adapter is null) return model;
        using Transformer trunk = model;
        using Transformer adapted = PeftFolder.Load(adapter.FullName, trunk);
        return adapted.Clone();
    }
}
