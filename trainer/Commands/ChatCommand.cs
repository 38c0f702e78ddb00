using System.CommandLine;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Generation;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Native;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Trainer.Commands;

/// <summary>A conversation with a model in the terminal. An empty line starts over, the end of the input ends it.</summary>
internal static class ChatCommand
{
    public static Command Create()
    {
        Option<DirectoryInfo> model = Options.Model();
        Option<DirectoryInfo?> adapter = Options.Adapter();
        var template = new Option<ChatTemplateName>("--template")
        {
            Description = "How turns become text: dialogue (hh-rlhf), chatml, llama3, plain (each line is a prompt of its own).",
            DefaultValueFactory = _ => ChatTemplateName.Plain,
        };
        var maximum = new Option<int>("--max-new") { Description = "Most tokens of an answer.", DefaultValueFactory = _ => 200 };
        Option<double> temperature = Options.Temperature(0.7);
        Option<ulong> seed = Options.Seed();
        var command = new Command("chat", "Talk to a model in the terminal.") { model, adapter, template, maximum, temperature, seed };
        command.SetAction(arguments =>
        {
            var options = new SamplingOptions
            {
                MaxNewTokens = arguments.GetValue(maximum),
                Temperature = arguments.GetValue(temperature),
                Seed = arguments.GetValue(seed),
                EosId = -1,
            };
            Run(arguments.GetRequiredValue(model), arguments.GetValue(adapter), arguments.GetValue(template), options);
        });
        return command;
    }

    private static void Run(DirectoryInfo folder, DirectoryInfo? adapter, ChatTemplateName template, SamplingOptions options)
    {
        TorchNative.Require();
        using LoadedModel loaded = ModelFolders.Load(folder, adapter);
        if (loaded.Config.Head != HeadKind.LanguageModel)
            throw new CommandException($"{folder.FullName}: a reward model does not write; give a language model.");
        ITokenizer tokenizer = loaded.Tokenizer;
        List<int> endIds = [tokenizer.EosId, .. loaded.Config.EosIds];
        // The last of a template's control tokens ends a turn.
        if (ChatTemplate.SpecialTokens(template) is { Count: > 0 } control && tokenizer.IdOf(control[^1]) is { } endOfTurn)
            endIds.Add(endOfTurn);

        var dialogue = new List<Turn>();
        for (long turn = 0; Prompt() is { } line; turn++)
        {
            if (line.Length == 0 || template == ChatTemplateName.Plain) dialogue.Clear();
            if (line.Length == 0) continue;
            dialogue.Add(new Turn("user", line));
            int[] prompt = ChatTemplate.Encode(dialogue, template, tokenizer);
            int room = loaded.Config.MaxPositions - 1;
            if (prompt.Length > room) prompt = prompt[^room..]; // the oldest part goes
            int[] answer = Sampler.Generate(loaded.Model, [prompt], options with { FurtherEndIds = endIds, RowIds = [turn] })[0];
            if (answer.Length > 0 && endIds.Contains(answer[^1])) answer = answer[..^1];
            string text = tokenizer.Decode(answer).Trim();
            // A model that goes on with the other's turn has ended its own.
            foreach (string next in ChatTemplate.NextTurn) text = text.Split(next)[0];
            dialogue.Add(new Turn("assistant", text));
            Console.WriteLine(text);
        }
    }

    private static string? Prompt()
    {
        if (!Console.IsInputRedirected) Console.Write("> ");
        return Console.ReadLine();
    }
}
