using System.CommandLine;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;

namespace Rlhf.Trainer.Commands;

/// <summary>Continues token rows, or a text.</summary>
internal static class GenerateCommand
{
    public static Command Create()
    {
        Option<DirectoryInfo> model = Options.Model();
        Option<DirectoryInfo?> adapter = Options.Adapter();
        var file = new Option<FileInfo?>("--file")
        {
            Description = """{"input_ids": [[..]], "attention_mask": [[..]]}, the mask optional.""",
            HelpName = "FILE",
        };
        var prompt = new Option<string?>("--prompt") { Description = "Continue this text instead, and print text." };
        var maximum = new Option<int>("--max-new") { Required = true, Description = "New tokens of each row." };
        var stop = new Option<bool>("--stop-at-end")
        {
            Description = "With --file: end a row at the model's end token (a text always ends there).",
        };
        Option<double> temperature = Options.Temperature(1);
        Option<ulong> seed = Options.Seed();
        var command = new Command("generate", "Print {\"ids\": [[..]]}, the new tokens of each row.")
        {
            model, adapter, file, prompt, maximum, temperature, seed, stop,
        };
        command.SetAction(arguments =>
        {
            var options = new SamplingOptions
            {
                MaxNewTokens = arguments.GetValue(maximum),
                Temperature = arguments.GetValue(temperature),
                Seed = arguments.GetValue(seed),
                EosId = -1,
            };
            if (options.MaxNewTokens < 0) throw new CommandException($"--max-new is {options.MaxNewTokens}; it cannot be negative.");
            if (!(options.Temperature >= 0))
                throw new CommandException($"--temperature is {options.Temperature}; it must be 0 or positive.");
            DirectoryInfo folder = arguments.GetRequiredValue(model);
            switch (arguments.GetValue(file), arguments.GetValue(prompt))
            {
                case ({ } rows, null):
                    ContinueRows(folder, arguments.GetValue(adapter), rows, options, arguments.GetValue(stop));
                    break;
                case (null, { } text):
                    ContinueText(folder, arguments.GetValue(adapter), text, options);
                    break;
                default:
                    throw new CommandException("give either --file or --prompt.");
            }
        });
        return command;
    }

    private static void ContinueRows(DirectoryInfo folder, DirectoryInfo? adapter, FileInfo file, SamplingOptions options, bool stopAtEnd)
    {
        TorchNative.Require();
        using Transformer model = LanguageModel(folder, ModelFolders.LoadModel(folder, adapter));
        int[][] prompts = InputFile.Read(file, model.Config).Unpadded();
        int longest = prompts.Max(p => p.Length);
        if (longest + options.MaxNewTokens > model.Config.MaxPositions)
        {
            throw new CommandException(
                $"{file.FullName}: {longest} tokens and --max-new {options.MaxNewTokens} "
                + $"exceed the model's {model.Config.MaxPositions} positions.");
        }

        int[][] tokens = Sampler.Generate(model, prompts, options with { FurtherEndIds = stopAtEnd ? model.Config.EosIds : [] });
        JsonOutput.Write(json =>
        {
            json.WriteStartObject();
            json.WritePropertyName("ids");
            JsonOutput.WriteIds(json, tokens);
            json.WriteEndObject();
        });
    }

    private static void ContinueText(DirectoryInfo folder, DirectoryInfo? adapter, string prompt, SamplingOptions options)
    {
        TorchNative.Require();
        using LoadedModel loaded = ModelFolders.Load(folder, adapter);
        LanguageModel(folder, loaded.Model);
        int[] ids = loaded.Tokenizer.Encode(prompt, allowSpecial: true);
        if (ids.Length == 0) throw new CommandException("--prompt is empty.");
        if (ids.Length > loaded.Config.MaxPositions)
            throw new CommandException($"--prompt has {ids.Length} tokens; the model has {loaded.Config.MaxPositions} positions.");
        options = options with { EosId = loaded.Tokenizer.EosId, FurtherEndIds = loaded.Config.EosIds };
        int[] tokens = Sampler.Generate(loaded.Model, [ids], options)[0];
        int count = tokens.Length > 0 && tokens[^1] == loaded.Tokenizer.EosId ? tokens.Length - 1 : tokens.Length;
        Console.WriteLine(loaded.Tokenizer.Decode(tokens.AsSpan(0, count)));
    }

    private static Transformer LanguageModel(DirectoryInfo folder, Transformer model) => model.Config.Head == HeadKind.LanguageModel
        ? model
        : throw new CommandException($"{folder.FullName}: a reward model does not write; give a language model.");
}
