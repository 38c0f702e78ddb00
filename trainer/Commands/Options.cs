using System.CommandLine;

namespace Rlhf.Trainer.Commands;

/// <summary>Options that several commands share.</summary>
internal static class Options
{
    public static Option<DirectoryInfo> Model() =>
        new("--model") { Required = true, Description = "A model folder in Hugging Face's format.", HelpName = "DIR" };

    public static Option<DirectoryInfo?> Adapter() => new("--adapter")
    {
        Description = "A LoRA adapter for the model, in the layout of Hugging Face's PEFT.",
        HelpName = "DIR",
    };

    public static Option<FileInfo> File(string description) =>
        new("--file") { Required = true, Description = description, HelpName = "FILE" };

    public static Option<double> Temperature(double standard) =>
        new("--temperature") { Description = "Divides the logits; 0 takes the most likely token.", DefaultValueFactory = _ => standard };

    public static Option<ulong> Seed() => new("--seed") { Description = "Decides every draw.", DefaultValueFactory = _ => 0 };
}
