namespace Rlhf.Trainer.Tokenizers;

/// <summary>
/// GPT-2's names of the 256 bytes: printable Latin-1 characters stand for themselves, the others for characters from U+0100 on, so that
/// vocabulary files hold text (openai/gpt-2, src/encoder.py, bytes_to_unicode).
/// </summary>
internal static class ByteAlphabet
{
    private static readonly char[] NameOfByte = new char[256];
    private static readonly Dictionary<char, byte> ByteOfName = [];

    static ByteAlphabet()
    {
        int next = 256;
        for (int value = 0; value < 256; value++)
        {
            bool printable = value is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF);
            char name = printable ? (char)value : (char)next++;
            NameOfByte[value] = name;
            ByteOfName[name] = (byte)value;
        }
    }

    public static char Name(byte value) => NameOfByte[value];

    /// <summary>The bytes of a token's name; null if a character of it names no byte.</summary>
    public static byte[]? Bytes(string name)
    {
        var bytes = new byte[name.Length];
        for (int i = 0; i < bytes.Length; i++)
        {
            if (!ByteOfName.TryGetValue(name[i], out bytes[i])) return null;
        }

        return bytes;
    }

    public static string Name(ReadOnlySpan<byte> bytes)
    {
        Span<char> name = bytes.Length <= 256 ? stackalloc char[bytes.Length] : new char[bytes.Length];
        for (int i = 0; i < name.Length; i++) name[i] = NameOfByte[bytes[i]];
        return new string(name);
    }
}
