using Rlhf.Jobs;
using Xunit;

namespace Rlhf.Shared.Tests;

/// <summary>Names from outside that become part of a path.</summary>
public sealed class PlainNamesTests
{
    [Theory]
    [InlineData("a", true)]
    [InlineData("my-model-2", true)]
    [InlineData("a\n", false)] // what $ in a regular expression lets through
    [InlineData("-a", false)]
    [InlineData("a-", false)]
    [InlineData("A", false)]
    [InlineData("ä", false)]
    [InlineData("٣", false)] // a digit, but not one of ours
    [InlineData("a/b", false)]
    [InlineData("", false)]
    public void Ids_are_lower_case_letters_digits_and_hyphens(string name, bool expected) => Assert.Equal(expected, PlainNames.IsId(name));

    [Fact]
    public void Ids_have_at_most_48_characters()
    {
        Assert.True(PlainNames.IsId(new string('a', 48)));
        Assert.False(PlainNames.IsId(new string('a', 49)));
    }

    [Theory]
    [InlineData("model.safetensors", true)]
    [InlineData(".hidden", true)]
    [InlineData("名前.json", true)]
    [InlineData(".", false)]
    [InlineData("..", false)]
    [InlineData("../a", false)]
    [InlineData("a/b", false)]
    [InlineData("a\\b", false)]
    [InlineData("c:b", false)]
    [InlineData("a\0b", false)]
    [InlineData("a\n", false)]
    [InlineData("", false)]
    public void File_names_stay_in_their_folder(string name, bool expected) => Assert.Equal(expected, PlainNames.IsFileName(name));

    [Fact]
    public void A_sum_is_64_lower_case_hexadecimal_digits()
    {
        string sum = CasDocument.Sha256(BinaryData.FromString("x"));
        Assert.True(PlainNames.IsSha256(sum));
        Assert.False(PlainNames.IsSha256(sum.ToUpperInvariant()));
        Assert.False(PlainNames.IsSha256(sum[1..]));
        Assert.False(PlainNames.IsSha256("../" + sum[3..]));
    }

    [Fact]
    public void A_document_nested_without_end_is_corrupt() => Assert.Throws<CorruptBlobException>(
        () => CasDocument.Parse<JobDocument>("job.json", BinaryData.FromString(string.Concat(Enumerable.Repeat("{\"spec\":", 50_000)))));
}
