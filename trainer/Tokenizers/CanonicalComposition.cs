using System.Globalization;
using System.Text;

namespace Rlhf.Trainer.Tokenizers;

/// <summary>
/// Unicode normalisation form C (UAX #15), which Qwen's tokenizers apply. .NET's own works through ICU, which invariant globalisation,
/// and a bare container, do without: then it leaves every text as it is, without a word.
/// </summary>
internal static class CanonicalComposition
{
    private const int HangulBase = 0xAC00, LeadBase = 0x1100, VowelBase = 0x1161, TailBase = 0x11A7;
    private const int Leads = 19, Vowels = 21, Tails = 28;

    /// <summary>No character below this changes, or combines with the one before it.</summary>
    private const char FirstCombining = '\u0300';

    private static readonly Dictionary<int, byte> Classes = [];
    private static readonly Dictionary<int, int[]> Decompositions = [];
    private static readonly Dictionary<(int First, int Second), int> Compositions = [];

    static CanonicalComposition()
    {
        using Stream data = typeof(CanonicalComposition).Assembly.GetManifestResourceStream("canonical.txt")!;
        using var lines = new StreamReader(data);
        while (lines.ReadLine() is { } line)
        {
            int mark = line.IndexOfAny([':', '=', '>', '#']);
            string[] points = line[(mark + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (line[mark] == ':')
            {
                foreach (string range in points)
                {
                    string[] ends = range.Split('-');
                    for (int point = Point(ends[0]); point <= Point(ends[^1]); point++)
                        Classes[point] = byte.Parse(line.AsSpan(0, mark), CultureInfo.InvariantCulture);
                }
            }
            else if (line[mark] != '#')
            {
                int[] parts = [.. points.Select(Point)];
                Decompositions[Point(line[..mark])] = parts;
                if (line[mark] == '=')
                    Compositions[(parts[0], parts[1])] = Point(line[..mark]);
            }
        }

        static int Point(string hex) => int.Parse(hex, NumberStyles.HexNumber, CultureInfo.InvariantCulture);
    }

    /// <summary>The text with every character composed as far as it goes. Half a surrogate pair becomes U+FFFD.</summary>
    public static string Of(string text)
    {
        if (text.AsSpan().IndexOfAnyInRange(FirstCombining, char.MaxValue) < 0)
            return text;
        List<int> points = Decompose(text);
        Compose(points);
        var composed = new StringBuilder(text.Length);
        foreach (int point in points)
            composed.Append(new Rune(point).ToString());
        return composed.ToString();
    }

    /// <summary>The full decomposition, marks in the order of their classes.</summary>
    private static List<int> Decompose(string text)
    {
        var points = new List<int>(text.Length);
        foreach (Rune rune in text.EnumerateRunes())
            Add(rune.Value);
        return points;

        void Add(int point)
        {
            if (Decompositions.TryGetValue(point, out int[]? parts))
            {
                foreach (int part in parts)
                    Add(part);
            }
            else if (point - HangulBase is >= 0 and < Leads * Vowels * Tails and int syllable)
            {
                points.Add(LeadBase + (syllable / (Vowels * Tails)));
                points.Add(VowelBase + (syllable / Tails % Vowels));
                if (syllable % Tails > 0)
                    points.Add(TailBase + (syllable % Tails));
            }
            else
            {
                int at = points.Count;
                for (int marks = ClassOf(point); marks > 0 && at > 0 && ClassOf(points[at - 1]) > marks;)
                    at--;
                points.Insert(at, point);
            }
        }
    }

    /// <summary>Joins each character with the last starter before it, unless another mark of its class or a starter stands between.</summary>
    private static void Compose(List<int> points)
    {
        int starter = -1, length = 0, before = 0; // of the composed text: its last starter, its length, the class of its last character
        foreach (int point in points.ToArray())
        {
            int marks = ClassOf(point);
            bool free = starter >= 0 && (starter == length - 1 || before < marks);
            if (free && Join(points[starter], point) is { } joined)
            {
                points[starter] = joined;
                continue;
            }

            if (marks == 0)
                starter = length;
            before = marks;
            points[length++] = point;
        }

        points.RemoveRange(length, points.Count - length);
    }

    private static int? Join(int first, int second)
    {
        if (first - LeadBase is >= 0 and < Leads and int lead && second - VowelBase is >= 0 and < Vowels and int vowel)
            return HangulBase + (((lead * Vowels) + vowel) * Tails);
        if (first - HangulBase is >= 0 and < Leads * Vowels * Tails and int syllable && syllable % Tails == 0
            && second - TailBase is > 0 and < Tails and int tail)
            return first + tail;
        return Compositions.TryGetValue((first, second), out int joined) ? joined : null;
    }

    private static int ClassOf(int point) => Classes.GetValueOrDefault(point);
}
