using System.Buffers;
using System.Collections.Concurrent;
using System.Text;
using System.Text.Json.Nodes;

namespace Rlhf.Trainer.Tokenizers;

/// <summary>
/// Byte-level byte-pair encoding as GPT-2, Llama 3 and Qwen use it: the text is split into pieces, the UTF-8 bytes of a piece are merged
/// pair by pair in the order the merges were learnt. Every text has ids, and its ids give the text back.
/// </summary>
public sealed class ByteLevelBpe : ITokenizer
{
    /// <summary>Pieces whose ids are remembered; text repeats its words, so nearly every piece is found here.</summary>
    private const int CacheCapacity = 1 << 17;

    /// <summary>From this many bytes on, finding the best pair by looking at all of them costs more than a queue.</summary>
    private const int LongPiece = 48;

    private readonly BpeDefinition definition;
    private readonly PreTokenizer preTokenizer;
    private readonly string[] names; // by id
    private readonly byte[][] bytes; // by id
    private readonly Dictionary<string, int> ids;
    private readonly Dictionary<(int Left, int Right), (int Rank, int Id)> merges;
    private readonly int[] byteIds = new int[256];
    private readonly ConcurrentDictionary<string, int[]> cache = new();
    private readonly ConcurrentDictionary<string, int[]>.AlternateLookup<ReadOnlySpan<char>> cacheLookup;
    private readonly SearchValues<string>? addedAlways; // added tokens that are no control tokens
    private readonly SearchValues<string>? addedAll;

    internal ByteLevelBpe(BpeDefinition definition)
    {
        this.definition = definition;
        preTokenizer = definition.PreTokenizer;
        ids = new Dictionary<string, int>(definition.Vocabulary);
        foreach (AddedToken token in definition.AddedTokens) ids[token.Content] = token.Id;

        (string wrong, int wrongId) = ids.FirstOrDefault(token => token.Value is < 0 or > SpecialTokens.LargestId);
        if (wrong is not null)
            throw new Models.ModelFormatException(definition.Source, $"token '{wrong}' has the id {wrongId}; ids go from 0 to {SpecialTokens.LargestId}.");

        names = new string[ids.Values.Max() + 1];
        bytes = new byte[names.Length][];
        Array.Fill(names, "");
        Array.Fill(bytes, []);
        foreach ((string name, int id) in definition.Vocabulary)
        {
            names[id] = name;
            bytes[id] = ByteAlphabet.Bytes(name) ?? Encoding.UTF8.GetBytes(name);
        }

        foreach (AddedToken token in definition.AddedTokens)
        {
            names[token.Id] = token.Content;
            bytes[token.Id] = Encoding.UTF8.GetBytes(token.Content);
        }

        for (int value = 0; value < 256; value++)
        {
            string name = ByteAlphabet.Name((byte)value).ToString();
            byteIds[value] = ids.TryGetValue(name, out int id)
                ? id
                : throw new Models.ModelFormatException(
                    definition.Source, $"the vocabulary lacks byte {value} ('{name}'); it is not byte-level.");
        }

        merges = new Dictionary<(int, int), (int, int)>(definition.Merges.Count);
        for (int rank = 0; rank < definition.Merges.Count; rank++)
        {
            (string left, string right) = definition.Merges[rank];
            if (!ids.TryGetValue(left, out int leftId) || !ids.TryGetValue(right, out int rightId)
                || !ids.TryGetValue(left + right, out int merged))
                throw new Models.ModelFormatException(
                    definition.Source, $"merge {rank} ('{left} {right}') names tokens that are not in the vocabulary.");
            merges.TryAdd((leftId, rightId), (rank, merged));
        }

        cacheLookup = cache.GetAlternateLookup<ReadOnlySpan<char>>();
        string[] always = [.. definition.AddedTokens.Where(t => !t.Special).Select(t => t.Content)];
        addedAlways = always.Length > 0 ? SearchValues.Create(always, StringComparison.Ordinal) : null;
        string[] all = [.. definition.AddedTokens.Select(t => t.Content)];
        addedAll = all.Length > 0 ? SearchValues.Create(all, StringComparison.Ordinal) : null;
        EosId = ids[definition.Eos];
        PadId = ids[definition.Pad];
        StartId = definition.Start is { } start ? ids[start] : null;
    }

    public int VocabularySize => names.Length;

    public int EosId { get; }

    public int PadId { get; }

    public int? StartId { get; }

    public bool PadIsNew => definition.PadIsNew;

    /// <summary>
    /// Trains a tokenizer on texts with GPT-2's pre-tokenizer. The same texts give the same tokenizer, in whatever order they come.
    /// </summary>
    /// <param name="texts">The training texts.</param>
    /// <param name="vocabularySize">Tokens in all: specials, 256 bytes, merges. Fewer result if no pair occurs twice any more.</param>
    /// <param name="specials">The end token, the padding token, and further control tokens; they get the first ids.</param>
    public static ByteLevelBpe Train(IEnumerable<string> texts, int vocabularySize, string[] specials)
    {
        if (specials.Length < 2 || specials.Distinct().Count() != specials.Length)
            throw new ArgumentException(
                "At least two different special tokens are needed: the end token and the padding token.", nameof(specials));
        if (vocabularySize < specials.Length + 256)
        {
            throw new ArgumentException(
                $"A byte-level vocabulary has at least {specials.Length + 256} tokens (specials and bytes), not {vocabularySize}.",
                nameof(vocabularySize));
        }

        int firstByte = specials.Length;
        Dictionary<string, int> words = BpeTrainer.CountWords(texts, PreTokenizer.Gpt2);
        List<(int Left, int Right)> learnt = BpeTrainer.Learn(words, vocabularySize - firstByte - 256, firstByte);

        var vocabulary = new Dictionary<string, int>(vocabularySize);
        var byId = new List<string>(specials);
        for (int rank = 0; rank < 256; rank++) byId.Add(ByteAlphabet.Name(ByteOrder.At(rank)).ToString());
        foreach ((int left, int right) in learnt) byId.Add(byId[left] + byId[right]);
        for (int id = 0; id < byId.Count; id++) vocabulary[byId[id]] = id;

        return new ByteLevelBpe(new BpeDefinition
        {
            Source = "trained tokenizer",
            Vocabulary = vocabulary,
            Merges = [.. learnt.Select(m => (byId[m.Left], byId[m.Right]))],
            AddedTokens = [.. specials.Select((s, id) => new AddedToken(id, s, Special: true))],
            PreTokenizer = PreTokenizer.Gpt2,
            Eos = specials[0],
            Pad = specials[1],
        });
    }

    /// <summary>Loads <c>tokenizer.json</c>, or <c>vocab.json</c> with <c>merges.txt</c>, from a Hugging Face folder.</summary>
    /// <exception cref="Models.ModelFormatException">
    /// The folder holds no such tokenizer, or one of a kind that is not supported.
    /// </exception>
    public static ByteLevelBpe Load(string directory) => new(TokenizerFiles.Read(directory));

    /// <inheritdoc/>
    public void Save(string directory) => TokenizerFiles.Write(definition, names, directory);

    public int? IdOf(string token) => ids.TryGetValue(token, out int id) ? id : null;

    /// <inheritdoc/>
    public int[] Encode(string text, bool allowSpecial = false) => Encode(text, allowSpecial, definition.AddPrefixSpace);

    /// <inheritdoc/>
    public int[] EncodeContinuation(string text) => Encode(text, allowSpecial: false, prefix: false);

    private int[] Encode(string text, bool allowSpecial, bool prefix)
    {
        ArgumentNullException.ThrowIfNull(text);
        var result = new List<int>(text.Length / 3 + 1);
        SearchValues<string>? added = allowSpecial ? addedAll : addedAlways;
        ReadOnlySpan<char> rest = text;
        while (added is not null && rest.IndexOfAny(added) is >= 0 and int at)
        {
            AddedToken token = AddedToken.LongestAt(rest[at..], definition.AddedTokens, allowSpecial);
            EncodePlain(token.Before(rest[..at]), prefix, result);
            result.Add(token.Id);
            rest = token.Behind(rest[(at + token.Content.Length)..]);
        }

        EncodePlain(rest, prefix, result);
        return [.. result];
    }

    /// <inheritdoc/>
    public string Decode(ReadOnlySpan<int> ids)
    {
        var buffer = new ArrayBufferWriter<byte>(ids.Length * 4 + 1);
        foreach (int id in ids)
        {
            if ((uint)id >= (uint)bytes.Length)
                throw new ArgumentOutOfRangeException(nameof(ids), $"Token {id} is outside the vocabulary of {bytes.Length}.");
            buffer.Write(bytes[id]);
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    private void EncodePlain(ReadOnlySpan<char> text, bool prefix, List<int> result)
    {
        if (text.IsEmpty) return;
        if (definition.NormaliseToNfc) text = CanonicalComposition.Of(text.ToString());
        if (prefix && !char.IsWhiteSpace(text[0])) text = string.Concat(" ", text);
        while (text.Length > 0)
        {
            int length = preTokenizer.NextLength(text);
            result.AddRange(EncodePiece(text[..length]));
            text = text[length..];
        }
    }

    private int[] EncodePiece(ReadOnlySpan<char> piece)
    {
        if (cacheLookup.TryGetValue(piece, out int[]? known)) return known;
        byte[] utf8 = new byte[Encoding.UTF8.GetByteCount(piece)];
        Encoding.UTF8.GetBytes(piece, utf8);
        int[] encoded;
        if (definition.WholeWordsFirst && ids.TryGetValue(ByteAlphabet.Name(utf8), out int whole))
        {
            encoded = [whole];
        }
        else
        {
            int[] symbols = new int[utf8.Length];
            for (int i = 0; i < symbols.Length; i++) symbols[i] = byteIds[utf8[i]];
            encoded = symbols.Length < LongPiece ? MergeShort(symbols) : MergeLong(symbols);
        }

        if (cache.Count < CacheCapacity) cacheLookup[piece] = encoded;
        return encoded;
    }

    /// <summary>Merges the pair of lowest rank, the leftmost first, until none is left.</summary>
    private int[] MergeShort(int[] symbols)
    {
        int length = symbols.Length;
        while (length > 1)
        {
            int bestRank = int.MaxValue, bestAt = 0, merged = 0;
            for (int i = 0; i + 1 < length; i++)
            {
                if (merges.TryGetValue((symbols[i], symbols[i + 1]), out (int Rank, int Id) merge) && merge.Rank < bestRank)
                    (bestRank, bestAt, merged) = (merge.Rank, i, merge.Id);
            }

            if (bestRank == int.MaxValue) break;
            symbols[bestAt] = merged;
            Array.Copy(symbols, bestAt + 2, symbols, bestAt + 1, length - bestAt - 2);
            length--;
        }

        return symbols[..length];
    }

    /// <summary>The same result in O(n log n): candidates wait in a queue, the symbols in a linked list.</summary>
    private int[] MergeLong(int[] symbols)
    {
        int count = symbols.Length;
        int[] next = new int[count], previous = new int[count];
        var queue = new PriorityQueue<(int At, int Left, int Right, int Merged), (int Rank, int At)>();
        for (int i = 0; i < count; i++) (previous[i], next[i]) = (i - 1, i + 1);
        for (int i = 0; i + 1 < count; i++) Offer(i);

        while (queue.TryDequeue(out var candidate, out _))
        {
            (int at, int left, int right, int merged) = candidate;
            int second = next[at];
            if (symbols[at] != left || second >= count || symbols[second] != right) continue; // merged away meanwhile
            symbols[at] = merged;
            symbols[second] = -1;
            next[at] = next[second];
            if (next[at] < count) previous[next[at]] = at;
            if (previous[at] >= 0) Offer(previous[at]);
            Offer(at);
        }

        return [.. symbols.Where(s => s >= 0)];

        void Offer(int at)
        {
            if (next[at] < count && merges.TryGetValue((symbols[at], symbols[next[at]]), out (int Rank, int Id) merge))
                queue.Enqueue((at, symbols[at], symbols[next[at]], merge.Id), (merge.Rank, at));
        }
    }
}

/// <summary>What the tokenizer files say.</summary>
internal sealed record BpeDefinition
{
    /// <summary>The file to name in messages.</summary>
    public required string Source { get; init; }

    public required IReadOnlyDictionary<string, int> Vocabulary { get; init; }
    public required IReadOnlyList<(string Left, string Right)> Merges { get; init; }
    public required IReadOnlyList<AddedToken> AddedTokens { get; init; }
    public required PreTokenizer PreTokenizer { get; init; }
    public required string Eos { get; init; }
    public required string Pad { get; init; }

    /// <summary>The files had no padding token but the end token.</summary>
    public bool PadIsNew { get; init; }

    /// <summary>The token before a text; null where the model takes none.</summary>
    public string? Start { get; init; }

    /// <summary>A space is put before a text that does not start with one.</summary>
    public bool AddPrefixSpace { get; init; }

    public bool NormaliseToNfc { get; init; }

    /// <summary>A piece that is a token itself is not merged from its bytes ("ignore_merges", Llama 3).</summary>
    public bool WholeWordsFirst { get; init; }

    /// <summary>Parts of tokenizer.json and tokenizer_config.json that are passed on as they are (templates, decoders).</summary>
    public JsonObject TokenizerFile { get; init; } = [];

    public JsonObject ConfigFile { get; init; } = [];
}
