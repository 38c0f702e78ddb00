using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Tokenizers;

/// <summary>
/// SentencePiece byte-pair encoding (Kudo and Richardson 2018) as Llama 2 and Mistral use it: spaces are written U+2581, the neighbours
/// whose concatenation has the highest score are merged first, the leftmost of equals, and what stays unknown falls back to bytes
/// (google/sentencepiece, src/bpe_model.cc and src/normalizer.cc).
/// </summary>
/// <remarks>
/// Microsoft.ML.Tokenizers 2.0.1 is not used: it merges the rightmost of equals, so that already Llama 2's "eee" has other tokens, and it
/// neither joins unknown characters nor drops spaces as the model asks. SentencePieceTokenizerTests has the cases.
/// </remarks>
public sealed class SentencePieceTokenizer : ITokenizer
{
    private const char Space = '\u2581';
    private const string ModelFile = "tokenizer.model";

    private readonly SentencePieceModel model;
    private readonly byte[] content;
    private readonly SpecialTokens special;
    private readonly string[] names; // by id
    private readonly Dictionary<string, int> ids = []; // of all tokens, for look-up by name
    private readonly Dictionary<string, int> mergeable = [];
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> mergeableLookup;
    private readonly int[] byteIds = new int[256];
    private readonly int unknownId;
    private readonly string[] userDefined; // longest first
    private readonly SearchValues<string>? addedAlways; // added tokens that are no control tokens
    private readonly SearchValues<string>? addedAll;

    private SentencePieceTokenizer(SentencePieceModel model, byte[] content, SpecialTokens special, string file)
    {
        this.model = model;
        this.content = content;
        this.special = special;
        mergeableLookup = mergeable.GetAlternateLookup<ReadOnlySpan<char>>();
        if (special.Added.FirstOrDefault(token => token.Id is < 0 or > SpecialTokens.LargestId) is { } wrong)
            throw new ModelFormatException(file, $"token '{wrong.Content}' has the id {wrong.Id}; ids go from 0 to {SpecialTokens.LargestId}.");
        names = new string[Math.Max(model.Pieces.Count, special.Added.Select(token => token.Id + 1).DefaultIfEmpty().Max())];
        Array.Fill(names, "");
        Array.Fill(byteIds, -1);
        foreach ((int id, Piece piece) in model.Pieces.Index())
        {
            names[id] = piece.Text;
            ids.TryAdd(piece.Text, id);
            if (piece.Type is PieceType.Normal or PieceType.UserDefined or PieceType.Unused)
                mergeable.TryAdd(piece.Text, id);
            if (piece.Type == PieceType.Byte)
                byteIds[ByteOf(piece.Text) ?? throw new ModelFormatException(file, $"the byte piece '{piece.Text}' names no byte.")] = id;
        }

        foreach (AddedToken token in special.Added)
        {
            names[token.Id] = token.Content;
            ids[token.Content] = token.Id;
        }

        unknownId = model.Pieces.Index().Where(piece => piece.Item.Type == PieceType.Unknown)
            .Select(piece => (int?)piece.Index).FirstOrDefault() ?? throw new ModelFormatException(file, "has no piece for the unknown.");
        if (model.ByteFallback && byteIds.Contains(-1))
            throw new ModelFormatException(file, "falls back to bytes, but lacks the pieces of some.");
        userDefined =
        [
            .. model.Pieces.Where(piece => piece.Type == PieceType.UserDefined && piece.Text.Length > 0).Select(piece => piece.Text)
                .OrderByDescending(text => text.Length),
        ];
        addedAlways = Search(special.Added.Where(token => !token.Special));
        addedAll = Search(special.Added);
        EosId = ids[special.Eos];
        PadId = ids[special.Pad];
        StartId = special.Start is { } start ? ids[start] : null;

        static SearchValues<string>? Search(IEnumerable<AddedToken> tokens)
        {
            string[] texts = [.. tokens.Select(token => token.Content).Where(text => text.Length > 0)];
            return texts.Length > 0 ? SearchValues.Create(texts, StringComparison.Ordinal) : null;
        }
    }

    public int VocabularySize => names.Length;

    public int EosId { get; }

    public int PadId { get; }

    public int? StartId { get; }

    public bool PadIsNew => special.PadIsNew;

    /// <summary>Loads <c>tokenizer.model</c> and the special tokens of the files beside it.</summary>
    /// <exception cref="ModelFormatException">The file is damaged or of a kind that is not supported, or no end token is named.</exception>
    public static SentencePieceTokenizer Load(string directory)
    {
        string file = Path.Combine(directory, ModelFile);
        byte[] content = File.ReadAllBytes(file);
        SentencePieceModel model = SentencePieceModel.Read(content, file);
        var vocabulary = new Dictionary<string, int>();
        List<AddedToken> control = [];
        foreach ((int id, Piece piece) in model.Pieces.Index())
        {
            vocabulary.TryAdd(piece.Text, id);
            if (piece.Type is PieceType.Control or PieceType.Unknown)
                control.Add(new AddedToken(id, piece.Text, Special: true));
        }

        // Llama's tokenizer class puts <s> before a text unless told otherwise.
        SpecialTokens special = SpecialTokens.Read(directory, vocabulary, control, startsByDefault: true);
        return new SentencePieceTokenizer(model, content, special, file);
    }

    /// <inheritdoc/>
    public void Save(string directory)
    {
        Directory.CreateDirectory(directory);
        File.WriteAllBytes(Path.Combine(directory, ModelFile), content);
        JsonObject config = (JsonObject)special.ConfigFile.DeepClone();
        config["tokenizer_class"] ??= "LlamaTokenizer";
        config["eos_token"] = special.Eos;
        config["pad_token"] = special.Pad;
        config["added_tokens_decoder"] = new JsonObject(special.Added.OrderBy(token => token.Id).DistinctBy(token => token.Id).Select(token =>
            KeyValuePair.Create(token.Id.ToString(CultureInfo.InvariantCulture), (JsonNode?)token.Write(withId: false))));
        TokenizerFiles.WriteConfig(config, directory);
    }

    public int? IdOf(string token) => ids.TryGetValue(token, out int id) ? id : null;

    /// <inheritdoc/>
    public int[] Encode(string text, bool allowSpecial = false) => Encode(text, allowSpecial, model.AddDummyPrefix);

    /// <inheritdoc/>
    public int[] EncodeContinuation(string text) => Encode(text, allowSpecial: false, prefix: false);

    /// <inheritdoc/>
    public string Decode(ReadOnlySpan<int> ids)
    {
        var buffer = new ArrayBufferWriter<byte>((ids.Length * 4) + 1);
        bool begun = false;
        foreach (int id in ids)
        {
            if ((uint)id >= (uint)names.Length)
                throw new ArgumentOutOfRangeException(nameof(ids), $"Token {id} is outside the vocabulary of {names.Length}.");
            PieceType? type = id < model.Pieces.Count ? model.Pieces[id].Type : null;
            if (type == PieceType.Byte)
            {
                buffer.Write([(byte)Array.IndexOf(byteIds, id)]);
            }
            else
            {
                bool isText = type is PieceType.Normal or PieceType.UserDefined or PieceType.Unused;
                string text = isText ? names[id].Replace(Space, ' ') : names[id];
                // The space that was put before the text is not part of it.
                if (isText && !begun && model.AddDummyPrefix && text.StartsWith(' '))
                    text = text[1..];
                buffer.Write(Encoding.UTF8.GetBytes(text));
                begun |= isText;
            }

            begun |= type == PieceType.Byte;
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    private static byte? ByteOf(string name) =>
        name.Length == 6 && name.StartsWith("<0x", StringComparison.Ordinal) && name[5] == '>'
        && byte.TryParse(name.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value) ? value : null;

    private int[] Encode(string text, bool allowSpecial, bool prefix)
    {
        ArgumentNullException.ThrowIfNull(text);
        var result = new List<int>((text.Length / 3) + 2);
        SearchValues<string>? added = allowSpecial ? addedAll : addedAlways;
        ReadOnlySpan<char> rest = text;
        while (added is not null && rest.IndexOfAny(added) is >= 0 and int at)
        {
            AddedToken token = special.At(rest[at..], allowSpecial);
            EncodePlain(token.Before(rest[..at]), prefix, result);
            result.Add(token.Id);
            rest = token.Behind(rest[(at + token.Content.Length)..]);
            prefix = false; // only a text's first word gets a space
        }

        EncodePlain(rest, prefix, result);
        return [.. result];
    }

    private void EncodePlain(ReadOnlySpan<char> text, bool prefix, List<int> result)
    {
        string normalised = Normalise(text, prefix);
        if (normalised.Length > 0)
            Merge(normalised, result);
    }

    private string Normalise(ReadOnlySpan<char> text, bool prefix)
    {
        var normalised = new StringBuilder(text.Length + 1);
        if (model.RemoveExtraWhitespaces)
            text = text.Trim(' ');
        if (text.IsEmpty)
            return "";
        if (prefix)
            normalised.Append(Space);
        bool afterSpace = false;
        foreach (Rune rune in text.EnumerateRunes()) // half a surrogate pair comes as U+FFFD
        {
            bool isSpace = rune.Value == ' ';
            if (!(isSpace && afterSpace && model.RemoveExtraWhitespaces))
                normalised.Append(isSpace ? Space.ToString() : rune.ToString());
            afterSpace = isSpace;
        }

        return normalised.ToString();
    }

    /// <summary>Merges neighbours by score. Symbols are stretches of the text in a linked list; candidates wait in a queue.</summary>
    private void Merge(string text, List<int> result)
    {
        List<Symbol> symbols = Split(text);
        var queue = new PriorityQueue<(int Left, int Right, int Length), (float Cost, int Left)>();
        Dictionary<int, int>? unusedParts = null; // of an unused piece, the length of its left part
        for (int i = 0; i + 1 < symbols.Count; i++)
            Offer(i, i + 1);
        while (queue.TryDequeue(out (int Left, int Right, int Length) pair, out _))
        {
            Symbol left = symbols[pair.Left], right = symbols[pair.Right];
            if (left.Length == 0 || right.Length == 0 || left.Length + right.Length != pair.Length)
                continue; // merged away meanwhile
            symbols[pair.Left] = left with { Length = pair.Length, Next = right.Next };
            symbols[pair.Right] = right with { Length = 0 };
            if (right.Next >= 0)
                symbols[right.Next] = symbols[right.Next] with { Previous = pair.Left };
            Offer(left.Previous, pair.Left);
            Offer(pair.Left, right.Next);
        }

        bool afterUnknown = false;
        foreach (Symbol symbol in symbols.Where(symbol => symbol.Length > 0))
            Emit(symbol.Start, symbol.Length);

        void Offer(int left, int right)
        {
            if (left < 0 || right < 0 || symbols[left].Frozen || symbols[right].Frozen)
                return;
            int length = symbols[left].Length + symbols[right].Length;
            if (!mergeableLookup.TryGetValue(text.AsSpan(symbols[left].Start, length), out int id))
                return;
            queue.Enqueue((left, right, length), (-model.Pieces[id].Score, left));
            if (model.Pieces[id].Type == PieceType.Unused)
                (unusedParts ??= [])[id] = symbols[left].Length;
        }

        void Emit(int start, int length)
        {
            ReadOnlySpan<char> piece = text.AsSpan(start, length);
            if (mergeableLookup.TryGetValue(piece, out int id))
            {
                if (model.Pieces[id].Type == PieceType.Unused && unusedParts is not null && unusedParts.TryGetValue(id, out int part))
                {
                    // An unused piece serves as a step to longer ones only.
                    Emit(start, part);
                    Emit(start + part, length - part);
                    return;
                }

                result.Add(id);
                afterUnknown = false;
            }
            else if (model.ByteFallback)
            {
                foreach (byte value in Encoding.UTF8.GetBytes(piece.ToString()))
                    result.Add(byteIds[value]);
            }
            else
            {
                if (!afterUnknown)
                    result.Add(unknownId);
                afterUnknown = true;
            }
        }
    }

    /// <summary>One symbol per character; user-defined pieces are found first and never merged.</summary>
    private List<Symbol> Split(string text)
    {
        var symbols = new List<Symbol>(text.Length);
        for (int at = 0; at < text.Length;)
        {
            string? whole = userDefined.FirstOrDefault(piece => text.AsSpan(at).StartsWith(piece, StringComparison.Ordinal));
            int length = whole?.Length ?? (char.IsHighSurrogate(text[at]) ? 2 : 1);
            symbols.Add(new Symbol(at, length, symbols.Count - 1, symbols.Count + 1, whole is not null));
            at += length;
        }

        symbols[^1] = symbols[^1] with { Next = -1 };
        return symbols;
    }

    private readonly record struct Symbol(int Start, int Length, int Previous, int Next, bool Frozen);
}
