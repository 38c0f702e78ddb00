using System.Buffers.Binary;
using System.Text;
using Rlhf.Trainer.Models;

namespace Rlhf.Trainer.Tokenizers;

/// <summary>What a piece is for (sentencepiece_model.proto, SentencePiece.Type).</summary>
internal enum PieceType
{
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// <summary>A token of a SentencePiece model; the higher its score, the sooner it is merged.</summary>
internal readonly record struct Piece(string Text, float Score, PieceType Type);

/// <summary>
/// The parts of a SentencePiece <c>tokenizer.model</c> (a protocol buffer, ModelProto of google/sentencepiece) that a BPE tokenizer needs.
/// </summary>
internal sealed record SentencePieceModel
{
    private const int BpeModel = 2;
    private static readonly string[] ModelTypes = ["0", "unigram", "bpe", "word", "char"];

    /// <summary>The pieces by id.</summary>
    public required IReadOnlyList<Piece> Pieces { get; init; }

    /// <summary>Unknown characters become the pieces of their UTF-8 bytes.</summary>
    public required bool ByteFallback { get; init; }

    /// <summary>A space is put before a text.</summary>
    public required bool AddDummyPrefix { get; init; }

    /// <summary>Spaces at both ends are dropped, runs of them become one.</summary>
    public required bool RemoveExtraWhitespaces { get; init; }

    /// <summary>True for a file that begins as a SentencePiece model does; Llama 3's tokenizer.model, for one, is a text of another kind.</summary>
    public static bool IsOne(string file)
    {
        using FileStream stream = File.OpenRead(file);
        return stream.ReadByte() == ((1 << 3) | 2); // field 1, the first piece
    }

    /// <summary>Reads a model file.</summary>
    /// <exception cref="ModelFormatException">It is damaged, or a model of a kind that is not supported.</exception>
    public static SentencePieceModel Read(byte[] content, string file)
    {
        try
        {
            return Parse(content, file);
        }
        catch (Exception e) when (e is ArgumentException or IndexOutOfRangeException or OverflowException)
        {
            throw new ModelFormatException(file, "is no SentencePiece model, or breaks off.", e);
        }
    }

    private static SentencePieceModel Parse(byte[] content, string file)
    {
        var pieces = new List<Piece>();
        // The defaults of the .proto file.
        long type = 1;
        bool byteFallback = false, dummyPrefix = true, removeExtra = true, escape = true, suffix = false, charsmap = false;
        foreach (Field field in Field.All(content))
        {
            switch (field.Number)
            {
                case 1:
                    pieces.Add(ParsePiece(field.Bytes));
                    break;
                case 2: // TrainerSpec
                    foreach (Field setting in Field.All(field.Bytes))
                    {
                        type = setting.Number == 3 ? setting.Value : type;
                        suffix = setting.Number == 24 ? setting.Value != 0 : suffix;
                        byteFallback = setting.Number == 35 ? setting.Value != 0 : byteFallback;
                    }

                    break;
                case 3: // NormalizerSpec
                    foreach (Field setting in Field.All(field.Bytes))
                    {
                        charsmap |= setting.Number == 2 && setting.Bytes.Length > 0;
                        dummyPrefix = setting.Number == 3 ? setting.Value != 0 : dummyPrefix;
                        removeExtra = setting.Number == 4 ? setting.Value != 0 : removeExtra;
                        escape = setting.Number == 5 ? setting.Value != 0 : escape;
                    }

                    break;
            }
        }

        if (pieces.Count == 0)
            throw new ModelFormatException(file, "has no pieces; it is no SentencePiece model.");
        if (type != BpeModel)
        {
            string name = type >= 0 && type < ModelTypes.Length ? ModelTypes[type] : $"{type}";
            throw new ModelFormatException(file, $"is a SentencePiece model of type '{name}'; 'bpe' is supported (Llama 2, Mistral).");
        }

        if (charsmap || !escape || suffix)
        {
            throw new ModelFormatException(
                file, "normalises text by a table, or marks spaces in another way than Llama 2 and Mistral do; that is not supported.");
        }

        return new SentencePieceModel
        {
            Pieces = pieces,
            ByteFallback = byteFallback,
            AddDummyPrefix = dummyPrefix,
            RemoveExtraWhitespaces = removeExtra,
        };
    }

    private static Piece ParsePiece(ReadOnlyMemory<byte> content)
    {
        string text = "";
        float score = 0;
        var type = PieceType.Normal;
        foreach (Field field in Field.All(content))
        {
            switch (field.Number)
            {
                case 1: text = Encoding.UTF8.GetString(field.Bytes.Span); break;
                case 2: score = BitConverter.Int32BitsToSingle((int)field.Value); break;
                case 3: type = (PieceType)field.Value; break;
            }
        }

        return new Piece(text, score, type);
    }

    /// <summary>A field of a protocol buffer as it lies on the wire: a number, or bytes.</summary>
    private readonly record struct Field(int Number, long Value, ReadOnlyMemory<byte> Bytes)
    {
        public static IEnumerable<Field> All(ReadOnlyMemory<byte> message)
        {
            int at = 0;
            while (at < message.Length)
            {
                long key = Varint(message.Span, ref at);
                int number = (int)(key >> 3);
                switch (key & 7)
                {
                    case 0:
                        yield return new Field(number, Varint(message.Span, ref at), default);
                        break;
                    case 1:
                        yield return new Field(number, BinaryPrimitives.ReadInt64LittleEndian(message.Span[at..]), default);
                        at += 8;
                        break;
                    case 2:
                        int length = checked((int)Varint(message.Span, ref at));
                        yield return new Field(number, 0, message.Slice(at, length));
                        at += length;
                        break;
                    case 5:
                        yield return new Field(number, BinaryPrimitives.ReadInt32LittleEndian(message.Span[at..]), default);
                        at += 4;
                        break;
                    default:
                        throw new ArgumentException($"wire type {key & 7} at byte {at}", nameof(message));
                }
            }
        }

        private static long Varint(ReadOnlySpan<byte> message, ref int at)
        {
            long value = 0;
            for (int shift = 0; shift < 64; shift += 7)
            {
                byte next = message[at++];
                value |= (long)(next & 0x7F) << shift;
                if (next < 0x80)
                    return value;
            }

            throw new ArgumentException("a number of more than ten bytes", nameof(message));
        }
    }
}
