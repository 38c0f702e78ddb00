using System.Text;

namespace Rlhf.Trainer.Tokenizers;

/// <summary>
/// Learns byte-pair merges (Sennrich et al. 2016) from counted words, updating only the words in which a merged pair occurs.
/// </summary>
/// <remarks>
/// The most frequent pair is merged first; among equals the one with the smaller ids, as in Hugging Face's trainer. The result depends on
/// the counts alone, not on the order of the texts.
/// </remarks>
internal static class BpeTrainer
{
    /// <summary>Counts the pieces of the texts.</summary>
    public static Dictionary<string, int> CountWords(IEnumerable<string> texts, PreTokenizer preTokenizer)
    {
        var counts = new Dictionary<string, int>();
        var lookup = counts.GetAlternateLookup<ReadOnlySpan<char>>();
        foreach (string text in texts)
        {
            for (ReadOnlySpan<char> rest = text; rest.Length > 0;)
            {
                int length = preTokenizer.NextLength(rest);
                System.Runtime.InteropServices.CollectionsMarshal.GetValueRefOrAddDefault(lookup, rest[..length], out _)++;
                rest = rest[length..];
            }
        }

        return counts;
    }

    /// <summary>
    /// Learns up to <paramref name="mergeCount"/> merges. Symbols 0 to 255 are bytes in the order of <paramref name="firstByteId"/> + byte
    /// rank; merge m makes symbol firstByteId + 256 + m. Stops early when no pair occurs twice.
    /// </summary>
    public static List<(int Left, int Right)> Learn(Dictionary<string, int> wordCounts, int mergeCount, int firstByteId)
    {
        // A fixed order of the words makes every step of what follows reproducible.
        KeyValuePair<string, int>[] sorted = [.. wordCounts.OrderBy(w => w.Key, StringComparer.Ordinal)];
        var words = new int[sorted.Length][];
        var lengths = new int[sorted.Length];
        var pairs = new Dictionary<(int, int), Pair>();
        for (int w = 0; w < sorted.Length; w++)
        {
            byte[] bytes = Encoding.UTF8.GetBytes(sorted[w].Key);
            words[w] = [.. bytes.Select(b => firstByteId + ByteOrder.Rank(b))];
            lengths[w] = bytes.Length;
            for (int i = 1; i < bytes.Length; i++) Add(words[w][i - 1], words[w][i], w, sorted[w].Value);
        }

        var queue = new PriorityQueue<(int Left, int Right, long Count), (long, int, int)>(pairs.Count);
        foreach (((int left, int right), Pair pair) in pairs) Enqueue(left, right, pair.Count);

        var merges = new List<(int, int)>(mergeCount);
        var changed = new HashSet<(int, int)>();
        while (merges.Count < mergeCount && queue.TryDequeue(out var best, out _))
        {
            if (!pairs.TryGetValue((best.Left, best.Right), out Pair? pair) || pair.Count != best.Count) continue; // an outdated entry
            if (pair.Count < 2) break;
            int merged = firstByteId + 256 + merges.Count;
            merges.Add((best.Left, best.Right));
            changed.Clear();
            foreach (int w in pair.Words) Merge(w, best.Left, best.Right, merged);
            pairs.Remove((best.Left, best.Right));
            changed.Remove((best.Left, best.Right));
            foreach ((int left, int right) in changed)
            {
                if (pairs.TryGetValue((left, right), out Pair? other) && other.Count > 0) Enqueue(left, right, other.Count);
                else pairs.Remove((left, right));
            }
        }

        return merges;

        void Add(int left, int right, int word, long count)
        {
            if (!pairs.TryGetValue((left, right), out Pair? pair)) pairs[(left, right)] = pair = new Pair();
            pair.Count += count;
            if (count > 0) pair.Words.Add(word);
        }

        void Enqueue(int left, int right, long count) => queue.Enqueue((left, right, count), (-count, left, right));

        void Merge(int w, int left, int right, int merged)
        {
            int[] word = words[w];
            int count = sorted[w].Value, length = lengths[w], write = 0;
            for (int read = 0; read < length; read++)
            {
                if (read + 1 >= length || word[read] != left || word[read + 1] != right)
                {
                    word[write++] = word[read];
                    continue;
                }

                if (write > 0)
                {
                    Change(word[write - 1], left, -count);
                    Change(word[write - 1], merged, count);
                }

                if (read + 2 < length)
                {
                    Change(right, word[read + 2], -count);
                    Change(merged, word[read + 2], count);
                }

                word[write++] = merged;
                read++;
            }

            lengths[w] = write;

            void Change(int a, int b, long by)
            {
                Add(a, b, w, by);
                changed.Add((a, b));
            }
        }
    }

    private sealed class Pair
    {
        public long Count { get; set; }

        /// <summary>Words the pair has occurred in; some may have lost it since.</summary>
        public HashSet<int> Words { get; } = [];
    }
}

/// <summary>The order in which vocabularies list the bytes: by their names in <see cref="ByteAlphabet"/>.</summary>
internal static class ByteOrder
{
    private static readonly byte[] Sorted = [.. Enumerable.Range(0, 256).Select(b => (byte)b).OrderBy(b => ByteAlphabet.Name(b))];
    private static readonly int[] Ranks = [.. Enumerable.Range(0, 256).Select(b => Array.IndexOf(Sorted, (byte)b))];

    public static int Rank(byte value) => Ranks[value];

    public static byte At(int rank) => Sorted[rank];
}
