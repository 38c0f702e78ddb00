using System.Text;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Trainer.Tests.Tokenizers;

/// <summary>
/// SentencePiece's BPE in the plainest way: look at all neighbours, merge the best pair, start again. Written from the description of the
/// algorithm, without a line of the tokenizer's; also writes tokenizer.model files.
/// </summary>
internal sealed record PlainSentencePiece(
    IReadOnlyList<(string Text, float Score, PieceType Type)> Pieces, bool ByteFallback = true, bool DummyPrefix = true, bool RemoveExtra = false)
{
    public int[] Encode(string text, bool continuation = false)
    {
        string normalised = Normalise(text, DummyPrefix && !continuation);
        List<(string Text, bool Frozen)> symbols = [];
        for (int at = 0; at < normalised.Length;)
        {
            string rest = normalised[at..];
            string? user = Pieces.Where(p => p.Type == PieceType.UserDefined && rest.StartsWith(p.Text, StringComparison.Ordinal))
                .Select(p => p.Text).MaxBy(t => t.Length);
            symbols.Add((user ?? rest.EnumerateRunes().First().ToString(), user is not null));
            at += symbols[^1].Text.Length;
        }

        Dictionary<string, (string Left, string Right)> unusedParts = [];
        while (true)
        {
            (int At, float Score) best = (-1, float.NegativeInfinity);
            for (int i = 0; i + 1 < symbols.Count; i++)
            {
                if (symbols[i].Frozen || symbols[i + 1].Frozen || Mergeable(symbols[i].Text + symbols[i + 1].Text) is not { } id)
                    continue;
                if (Pieces[id].Type == PieceType.Unused)
                    unusedParts[Pieces[id].Text] = (symbols[i].Text, symbols[i + 1].Text);
                if (Pieces[id].Score > best.Score) // of equals the leftmost
                    best = (i, Pieces[id].Score);
            }

            if (best.At < 0)
                break;
            symbols[best.At] = (symbols[best.At].Text + symbols[best.At + 1].Text, false);
            symbols.RemoveAt(best.At + 1);
        }

        List<int> ids = [];
        bool afterUnknown = false;
        foreach ((string symbol, _) in symbols)
            Emit(symbol);
        return [.. ids];

        void Emit(string symbol)
        {
            if (unusedParts.TryGetValue(symbol, out (string Left, string Right) parts))
            {
                Emit(parts.Left);
                Emit(parts.Right);
                return;
            }

            int? id = Mergeable(symbol);
            if (id is null && ByteFallback)
                ids.AddRange(Encoding.UTF8.GetBytes(symbol).Select(b => Find($"<0x{b:X2}>")));
            else if (id is not null || !afterUnknown)
                ids.Add(id ?? Find("<unk>"));
            afterUnknown = id is null && !ByteFallback;
        }
    }

    /// <summary>Writes the model as a tokenizer.model file (sentencepiece_model.proto).</summary>
    public void Write(string file)
    {
        using var model = new MemoryStream();
        foreach ((string text, float score, PieceType type) in Pieces)
        {
            using var piece = new MemoryStream();
            Bytes(piece, 1, Encoding.UTF8.GetBytes(text));
            Varint(piece, (2 << 3) | 5);
            piece.Write(BitConverter.GetBytes(score));
            Number(piece, 3, (ulong)type);
            Bytes(model, 1, piece.ToArray());
        }

        using var trainer = new MemoryStream();
        Number(trainer, 3, 2); // BPE
        Number(trainer, 35, ByteFallback ? 1UL : 0);
        Number(trainer, 43, ulong.MaxValue); // pad_id -1, in ten bytes
        Bytes(model, 2, trainer.ToArray());
        using var normaliser = new MemoryStream();
        Bytes(normaliser, 1, "identity"u8.ToArray());
        Number(normaliser, 3, DummyPrefix ? 1UL : 0);
        Number(normaliser, 4, RemoveExtra ? 1UL : 0);
        Number(normaliser, 5, 1);
        Bytes(model, 3, normaliser.ToArray());
        File.WriteAllBytes(file, model.ToArray());
    }

    private string Normalise(string text, bool prefix)
    {
        if (RemoveExtra)
        {
            while (text.Contains("  ", StringComparison.Ordinal))
                text = text.Replace("  ", " ", StringComparison.Ordinal);
            text = text.Trim(' ');
        }

        return text.Length == 0 ? "" : ((prefix ? " " : "") + text).Replace(' ', '\u2581');
    }

    private int? Mergeable(string text)
    {
        int id = Pieces.Index().FirstOrDefault(
            p => p.Item.Text == text && p.Item.Type is (PieceType.Normal or PieceType.UserDefined or PieceType.Unused), (-1, default)).Index;
        return id < 0 ? null : id;
    }

    private int Find(string text) => Pieces.Index().First(p => p.Item.Text == text).Index;

    private static void Varint(Stream stream, ulong value)
    {
        for (; value > 127; value >>= 7)
            stream.WriteByte((byte)(value | 128));
        stream.WriteByte((byte)value);
    }

    private static void Bytes(Stream stream, int field, byte[] content)
    {
        Varint(stream, (ulong)((field << 3) | 2));
        Varint(stream, (ulong)content.Length);
        stream.Write(content);
    }

    private static void Number(Stream stream, int field, ulong value)
    {
        Varint(stream, (ulong)(field << 3));
        Varint(stream, value);
    }
}
