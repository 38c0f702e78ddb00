using Rlhf.Trainer.Data;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>A task that a model of a few thousand weights learns in seconds: say the colour of a thing.</summary>
internal static class Toy
{
    private static readonly string[] Things = ["sky", "sea", "grass", "leaf", "sun", "corn", "snow", "milk"];
    private static readonly string[] Colours = ["blue", "blue", "green", "green", "yellow", "yellow", "white", "white"];
    private static readonly string[] Asks = ["Colour of the", "What colour has the", "Say what colour is the", "Tell me the colour of the"];

    public static ITokenizer Tokenizer { get; } =
        ByteLevelBpe.Train([.. Prompts().Select(p => $"{p.Text} {p.Answer}")], vocabularySize: 320, ["<end>", "<pad>"]);

    public static Transformer Model(ulong seed = 7, int layers = 2)
    {
        var model = new Transformer(ModelConfig.Llama(
            Tokenizer.VocabularySize, hiddenSize: 32, layers, heads: 2, keyValueHeads: 1, intermediateSize: 64, maxPositions: 64,
            eosId: Tokenizer.EosId, padId: Tokenizer.PadId));
        model.InitialiseWeights(seed);
        return model;
    }

    public static IReadOnlyList<TokenizedDemonstration> Demonstrations { get; } =
        [.. Prompts().Select((p, i) => new TokenizedDemonstration($"d{i}", Tokenizer.Encode(p.Text), Completion(p.Answer)))];

    public static IReadOnlyList<TokenizedPrompt> TokenizedPrompts { get; } =
        [.. Prompts().Select((p, i) => new TokenizedPrompt($"p{i}", Tokenizer.Encode(p.Text), p.Answer))];

    /// <summary>The right colour is best, two wrong ones tie for last.</summary>
    public static IReadOnlyList<TokenizedPreference> Preferences { get; } =
    [
        .. Prompts().Select((p, i) =>
        {
            string[] wrong = [.. Colours.Distinct().Where(colour => colour != p.Answer).Take(2)];
            return new TokenizedPreference(
                $"r{i}", i % 2 == 0 ? "even" : "odd", Tokenizer.Encode(p.Text),
                [Completion(wrong[0]), Completion(p.Answer), Completion(wrong[1])], [2, 1, 2]);
        }),
    ];

    public static IReadOnlyList<int[]> Documents { get; } = [.. Prompts().Select(p => Tokenizer.Encode($"{p.Text} {p.Answer}"))];

    private static int[] Completion(string answer) => [.. Tokenizer.Encode(" " + answer), Tokenizer.EosId];

    private static IEnumerable<(string Text, string Answer)> Prompts() =>
        from ask in Asks
        from thing in Things.Index()
        select ($"{ask} {thing.Item}:", Colours[thing.Index]);
}
