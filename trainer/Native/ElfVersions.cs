using System.Text;
using static System.Buffers.Binary.BinaryPrimitives;

namespace Rlhf.Trainer.Native;

/// <summary>The symbol versions a shared library needs: section <c>.gnu.version_r</c> of a 64-bit little-endian ELF file.</summary>
/// <remarks>
/// Layout: System V ABI (ELF header, section headers) and the Linux Standard Base, "Symbol Versioning" (Verneed, Vernaux).
/// </remarks>
internal static class ElfVersions
{
    private const uint VersionNeedSection = 0x6ffffffe; // SHT_GNU_verneed
    private const ushort Weak = 2; // VER_FLG_WEAK

    /// <summary>
    /// Marks the need for <paramref name="version"/> as weak, so that the loader no longer refuses the library where the version is
    /// missing. Sound only if no symbol is bound to that version.
    /// </summary>
    /// <returns>Whether the library names that version.</returns>
    public static bool MarkWeak(Span<byte> elf, string version)
    {
        bool found = false;
        byte[] wanted = Encoding.ASCII.GetBytes(version + '\0');
        int sections = (int)ReadUInt64LittleEndian(elf[0x28..]);
        int sectionSize = ReadUInt16LittleEndian(elf[0x3A..]);
        int sectionCount = ReadUInt16LittleEndian(elf[0x3C..]);
        for (int i = 0; i < sectionCount; i++)
        {
            ReadOnlySpan<byte> section = elf.Slice(sections + i * sectionSize, sectionSize);
            if (ReadUInt32LittleEndian(section[4..]) != VersionNeedSection) continue;

            int need = (int)ReadUInt64LittleEndian(section[0x18..]);
            int stringSection = sections + (int)ReadUInt32LittleEndian(section[0x28..]) * sectionSize;
            int strings = (int)ReadUInt64LittleEndian(elf[(stringSection + 0x18)..]);
            uint needCount = ReadUInt32LittleEndian(section[0x2C..]);
            for (uint n = 0; n < needCount; n++)
            {
                int versionCount = ReadUInt16LittleEndian(elf[(need + 2)..]);
                int entry = need + (int)ReadUInt32LittleEndian(elf[(need + 8)..]);
                for (int v = 0; v < versionCount; v++)
                {
                    int name = strings + (int)ReadUInt32LittleEndian(elf[(entry + 8)..]);
                    if (elf[name..].StartsWith(wanted))
                    {
                        Span<byte> flags = elf[(entry + 4)..];
                        WriteUInt16LittleEndian(flags, (ushort)(ReadUInt16LittleEndian(flags) | Weak));
                        found = true;
                    }

                    entry += (int)ReadUInt32LittleEndian(elf[(entry + 12)..]);
                }

                need += (int)ReadUInt32LittleEndian(elf[(need + 12)..]);
            }
        }

        return found;
    }
}
