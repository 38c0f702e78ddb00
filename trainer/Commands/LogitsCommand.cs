using System.CommandLine;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Commands;

/// <summary>Prints a model's logits, to compare it with other implementations.</summary>
internal static class LogitsCommand
{
    public static Command Create()
    {
        Option<DirectoryInfo> model = Options.Model();
        Option<DirectoryInfo?> adapter = Options.Adapter();
        Option<FileInfo> file = Options.File("""{"input_ids": [[..]], "attention_mask": [[..]]}, the mask optional.""");
        var command = new Command("logits", "Print {\"logits\": [[[..]]]} (batch, time, vocabulary) of a language model.")
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
        if (model.Config.Head != HeadKind.LanguageModel)
            throw new CommandException($"{folder.FullName}: a reward model has no logits; use the command 'score'.");
        using var scope = NewDisposeScope();
        using var inference = inference_mode();
        (Tensor ids, Tensor? mask) = InputFile.Read(file, model.Config).Tensors();
        Tensor logits = model.Logits(model.Hidden(ids, mask)).contiguous();
        JsonOutput.Write(json =>
        {
            json.WriteStartObject();
            json.WriteStartArray("logits");
            for (long row = 0; row < logits.shape[0]; row++)
            {
                json.WriteStartArray();
                for (long time = 0; time < logits.shape[1]; time++)
                {
                    json.WriteStartArray();
                    using Tensor values = logits[row, time];
                    foreach (float value in values.data<float>()) json.WriteNumberValue(value);
                    json.WriteEndArray();
                }

                json.WriteEndArray();
                json.Flush();
            }

            json.WriteEndArray();
            json.WriteEndObject();
        });
    }
}
