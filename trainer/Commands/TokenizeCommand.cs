using System.CommandLine;
using System.Text.Json;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Trainer.Commands;

/// <summary>Prints the token ids of texts.</summary>
internal static class TokenizeCommand
{
    public static Command Create()
    {
        var tokenizer = new Option<DirectoryInfo>("--tokenizer")
        {
            Required = true,
            Description = "A folder with tokenizer.json, or vocab.json and merges.txt.",
            HelpName = "DIR",
        };
        Option<FileInfo> file = Options.File("A JSON array of strings.");
        var special =
            new Option<bool>("--allow-special") { Description = "Read control tokens such as <|endoftext|> as such, not as text." };
        var command = new Command("tokenize", "Print a JSON array with the ids of each string.") { tokenizer, file, special };
        command.SetAction(arguments =>
            Run(arguments.GetRequiredValue(tokenizer), arguments.GetRequiredValue(file), arguments.GetValue(special)));
        return command;
    }

    private static void Run(DirectoryInfo folder, FileInfo file, bool allowSpecial)
    {
        if (!folder.Exists) throw new CommandException($"{folder.FullName}: no such folder.");
        if (!file.Exists) throw new CommandException($"{file.FullName}: no such file.");
        string[] texts;
        try
        {
            texts = JsonSerializer.Deserialize<string[]>(File.ReadAllBytes(file.FullName)) ?? [];
        }
        catch (JsonException e)
        {
            throw new CommandException($"{file.FullName}: a JSON array of strings is expected: {e.Message}");
        }

        if (Array.IndexOf(texts, null) is >= 0 and int missing)
            throw new CommandException($"{file.FullName}: element {missing} is null, not a string.");
        ITokenizer tokenizer = TokenizerFolder.Load(folder.FullName);
        JsonOutput.Write(json => JsonOutput.WriteIds(json, texts.Select(t => tokenizer.Encode(t, allowSpecial))));
    }
}
