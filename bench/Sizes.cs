using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Bench;

/// <summary>A Llama-shaped model of about so many parameters, with random weights: speed does not depend on them.</summary>
internal sealed record ModelSize(string Name, ModelConfig Config)
{
    public const int EosId = 0;
    public const int PadId = 1;

    public static readonly ModelSize[] All =
    [
        Of("1M", vocabulary: 1024, width: 128, layers: 4, heads: 4, inner: 352),
        Of("11M", vocabulary: 2048, width: 384, layers: 6, heads: 6, inner: 1024),
        Of("52M", vocabulary: 4096, width: 640, layers: 10, heads: 10, inner: 1728),
    ];

    public Transformer Create()
    {
        var model = new Transformer(Config);
        model.InitialiseWeights(seed: 1);
        return model;
    }

    /// <summary>Weights that take part in matrix products: a token costs two operations each forward, four more backward.</summary>
    public static long Multiplied(Transformer model) =>
        model.NamedWeights().Where(w => w.Value.dim() == 2).Sum(w => w.Value.numel());

    /// <summary>Texts of random tokens.</summary>
    public int[][] Rows(int count, int length)
    {
        var random = new Random(7);
        return [.. Enumerable.Range(0, count).Select(_ =>
            Enumerable.Range(0, length).Select(_ => random.Next(2, Config.VocabularySize)).ToArray())];
    }

    private static ModelSize Of(string name, int vocabulary, int width, int layers, int heads, int inner) =>
        new(name, ModelConfig.Llama(vocabulary, width, layers, heads, heads, inner, maxPositions: 256, eosId: EosId, padId: PadId));
}

/// <summary>Gives the methods their end and padding tokens; the rows are tokens already.</summary>
internal sealed class IdsOnly(int vocabularySize) : ITokenizer
{
    public int VocabularySize => vocabularySize;

    public int EosId => ModelSize.EosId;

    public int PadId => ModelSize.PadId;

    public int[] Encode(string text, bool allowSpecial = false) => throw new NotSupportedException("The rows are tokens already.");

    public string Decode(ReadOnlySpan<int> ids) => string.Join(' ', ids.ToArray());

    public int? IdOf(string token) => null;

    public void Save(string directory) => throw new NotSupportedException("There is no text to save a tokenizer for.");
}
