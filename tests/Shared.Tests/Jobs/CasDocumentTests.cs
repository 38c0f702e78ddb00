using System.Text;
using Rlhf.Jobs;
using Rlhf.Storage;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Shared.Tests.Jobs;

/// <summary>The conditional writes that the protocol rests on, as the real store has them.</summary>
[Collection(AzuriteTests.Name)]
public sealed class CasDocumentTests(AzuriteFixture azurite)
{
    private readonly string path = $"tests/{Guid.NewGuid():N}";

    private IBlobStore Blobs => azurite.Account.Blobs;

    [Fact]
    public async Task No_update_is_lost_however_many_write_at_once()
    {
        await Task.WhenAll(Enumerable.Range(0, 20).Select(_ => Blobs.UpdateJsonAsync<Counter>(
            path, counter => new Counter((counter?.Value ?? 0) + 1), TestJob.Cancellation)));

        Assert.Equal(new Counter(20), await Blobs.ReadJsonAsync<Counter>(path, TestJob.Cancellation));
    }

    [Fact]
    public async Task A_change_that_returns_its_argument_or_null_writes_nothing()
    {
        Assert.Null(await Blobs.UpdateJsonAsync<Counter>(path, _ => null, TestJob.Cancellation));
        Assert.Null(await Blobs.ReadAsync(path, TestJob.Cancellation));

        await Blobs.UpdateJsonAsync<Counter>(path, _ => new Counter(1), TestJob.Cancellation);
        string etag = (await Blobs.ReadAsync(path, TestJob.Cancellation))!.ETag;
        Assert.Equal(new Counter(1), await Blobs.UpdateJsonAsync<Counter>(path, counter => counter, TestJob.Cancellation));
        Assert.Equal(etag, (await Blobs.ReadAsync(path, TestJob.Cancellation))!.ETag);
    }

    [Fact]
    public async Task Creation_happens_once_and_a_replacement_needs_the_tag_it_read()
    {
        Assert.True(await Blobs.TryCreateAsync(path, Text("a"), TestJob.Cancellation));
        Assert.False(await Blobs.TryCreateAsync(path, new MemoryStream("b"u8.ToArray()), TestJob.Cancellation));
        StoredBlob first = (await Blobs.ReadAsync(path, TestJob.Cancellation))!;

        Assert.True(await Blobs.TryReplaceAsync(path, Text("c"), first.ETag, TestJob.Cancellation));
        Assert.False(await Blobs.TryReplaceAsync(path, Text("d"), first.ETag, TestJob.Cancellation));
        Assert.Equal("c", (await Blobs.ReadAsync(path, TestJob.Cancellation))!.Content.ToString());

        await Blobs.DeleteAsync(path, TestJob.Cancellation);
        await Blobs.DeleteAsync(path, TestJob.Cancellation);
        Assert.False(await Blobs.TryReplaceAsync(path, Text("e"), first.ETag, TestJob.Cancellation));
        Assert.Null(await Blobs.ReadAsync(path, TestJob.Cancellation));
    }

    [Fact]
    public async Task Appending_needs_the_right_offset()
    {
        Assert.False(await Blobs.TryAppendAsync(path, Text("x"), 3, TestJob.Cancellation));
        Assert.True(await Blobs.TryAppendAsync(path, Text("one"), 0, TestJob.Cancellation));
        Assert.False(await Blobs.TryAppendAsync(path, Text("one"), 0, TestJob.Cancellation));
        Assert.True(await Blobs.TryAppendAsync(path, Text("two"), 3, TestJob.Cancellation));
        Assert.Equal("onetwo", (await Blobs.ReadAsync(path, TestJob.Cancellation))!.Content.ToString());
    }

    [Fact]
    public async Task Lists_are_in_the_order_of_names_and_a_missing_blob_is_named()
    {
        foreach (string name in new[] { "b", "a/2", "a/10", "c" })
            await Blobs.WriteAsync($"{path}/{name}", Text(name), TestJob.Cancellation);

        Assert.Equal(
            ["a/10", "a/2", "b", "c"],
            (await Blobs.ListAsync(path + "/", TestJob.Cancellation).ToListAsync(TestJob.Cancellation)).Select(entry => entry.Path[(path.Length + 1)..]));
        using var reader = new StreamReader(await Blobs.OpenReadAsync($"{path}/a/10", TestJob.Cancellation), Encoding.UTF8);
        Assert.Equal("a/10", await reader.ReadToEndAsync(TestJob.Cancellation));
        Assert.Contains(path, (await Assert.ThrowsAsync<FileNotFoundException>(() => Blobs.OpenReadAsync(path, TestJob.Cancellation))).Message, StringComparison.Ordinal);
    }

    private static BinaryData Text(string text) => BinaryData.FromString(text);

    private sealed record Counter(int Value);
}
