using System.CommandLine;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Commands;

/// <summary>Prints the rewards that a reward model gives: its score of the last real token minus its bias.</summary>
internal static class ScoreCommand
{
    public static Command Create()
    {
        Option<DirectoryInfo> model = Options.Model();
        Option<DirectoryInfo?> adapter = Options.Adapter();
        Option<FileInfo> file = Options.File("""{"input_ids": [[..]], "attention_mask": [[..]]}, the mask optional.""");
        var command = new Command("score", "Print {\"rewards\": [..]} of a sequence-classification folder with one label.")
        {
            model, adapter, file,
        };
        command.SetAction(arguments => Run(arguments.GetRequiredValue(model), arguments.GetValue(adapter), arguments.GetRequiredValue(file)));
        return command;
    }

    private static void Run(DirectoryInfo folder, DirectoryInfo? adapter, FileInfo file)
    {
        TorchNative.Require();
        using Transformer model = ModelFolders.LoadModel(folder, adapter);
        if (model.Config.Head != HeadKind.Score)
            throw new CommandException($"{folder.FullName}: a language model gives no rewards; a folder with a 'score' head does.");
        using var scope = NewDisposeScope();
        using var inference = inference_mode();
        InputFile input = InputFile.Read(file, model.Config);
        (Tensor ids, Tensor? mask) = input.Tensors();
        Tensor last = tensor(input.LastTokens(model.Config.PadId)).unsqueeze(1);
        Tensor scores = model.Scores(model.Hidden(ids, mask)).gather(1, last).squeeze(1);
        float[] rewards = [.. scores.Minus(model.Config.RewardBias).data<float>()];
        JsonOutput.Write(json =>
        {
            json.WriteStartObject();
            json.WriteStartArray("rewards");
            foreach (float reward in rewards) json.WriteNumberValue(reward);
            json.WriteEndArray();
            json.WriteEndObject();
        });
    }
}
