using System.Globalization;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text;

namespace Rlhf.Report;

/// <summary>Finished markup. It is only made by <see cref="Of"/>, which escapes every hole that is not markup itself.</summary>
internal readonly struct Html
{
    private readonly string? text;

    private Html(string text) => this.text = text;

    /// <summary>Nothing.</summary>
    public static Html Empty => default;

    /// <summary>Markup from an interpolated string: literals as they stand, holes escaped, numbers in invariant culture.</summary>
    public static Html Of(Builder markup) => new(markup.ToString());

    /// <summary>Text of our own that holds no escapes, such as the style sheet.</summary>
    public static Html Trusted(string text) => new(text);

    /// <inheritdoc/>
    public override string ToString() => text ?? string.Empty;

    /// <summary>Collects an interpolated string's literals and holes.</summary>
    [InterpolatedStringHandler]
    public readonly struct Builder(int literalLength, int holes)
    {
        private readonly StringBuilder text = new(literalLength + (16 * holes));

        public void AppendLiteral(string literal) => text.Append(literal);

        public void AppendFormatted(Html markup) => text.Append(markup.text);

        public void AppendFormatted(IEnumerable<Html> pieces)
        {
            foreach (Html piece in pieces)
                text.Append(piece.text);
        }

        public void AppendFormatted(string? content) => text.Append(WebUtility.HtmlEncode(content));

        public void AppendFormatted(int number) => text.Append(number.ToString(CultureInfo.InvariantCulture));

        /// <summary>A coordinate or a figure: at most two decimals unless a format says otherwise.</summary>
        public void AppendFormatted(double number, string format = "0.##") =>
            text.Append(number.ToString(format, CultureInfo.InvariantCulture));

        public override string ToString() => text.ToString();
    }
}
