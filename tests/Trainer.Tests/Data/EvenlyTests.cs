using Rlhf.Trainer.Data;
using Xunit;

namespace Rlhf.Trainer.Tests.Data;

public sealed class EvenlyTests
{
    [Fact]
    public void SomeOfManyRowsComeFromEveryFile()
    {
        string[] rows = [.. Enumerable.Repeat("harmless", 248), .. Enumerable.Repeat("helpful", 248)];

        IReadOnlyList<string> some = Evenly.Take(rows, 200);

        Assert.Equal(200, some.Count);
        Assert.Equal(100, some.Count(row => row == "helpful"));
    }

    [Theory]
    [InlineData(3, new[] { 0, 2, 4 })]
    [InlineData(7, new[] { 0, 1, 2, 3, 4, 5, 6 })]
    [InlineData(8, new[] { 0, 1, 2, 3, 4, 5, 6 })]
    [InlineData(0, new int[0])]
    public void RowsKeepTheirOrderAndFewAreAllTaken(int count, int[] expected) =>
        Assert.Equal(expected, Evenly.Take<int>([0, 1, 2, 3, 4, 5, 6], count));
}
