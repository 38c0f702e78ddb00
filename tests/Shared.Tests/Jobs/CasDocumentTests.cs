using System.Text;
using System.Text.Json.Nodes;
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

    [Fact]
    public void Every_flipped_bit_of_a_sealed_document_is_noticed()
    {
        var head = new Head { Fence = 3, Step = 20, Manifest = "runs/r/stages/sft/attempts/000003-a/ckpt/000000020/manifest.json", ManifestSha256 = new string('a', 64), SealedBy = 2 };
        byte[] intact = CasDocument.Serialize(head).ToArray();
        Assert.Equal(head, CasDocument.Parse<Head>(path, new BinaryData(intact)));
        for (int bit = 0; bit < intact.Length * 8; bit++)
        {
            byte[] damaged = [.. intact];
            damaged[bit / 8] ^= (byte)(1 << (bit % 8));
            Assert.Throws<CorruptBlobException>(() => CasDocument.Parse<Head>(path, new BinaryData(damaged)));
        }

        for (int length = 0; length < intact.Length; length++)
            Assert.Throws<CorruptBlobException>(() => CasDocument.Parse<Head>(path, new BinaryData(intact[..length])));
        Assert.Throws<CorruptBlobException>(() => CasDocument.Parse<Head>(path, new BinaryData((byte[])[.. intact, (byte)' '])));
    }

    [Fact]
    public void A_sealed_document_is_plain_json_and_one_that_was_edited_by_hand_is_refused()
    {
        string text = CasDocument.Serialize(new Head { Fence = 3, Step = 20 }).ToString();
        Assert.Equal(3, JsonNode.Parse(text)!["fence"]!.GetValue<int>());
        Assert.Equal(64, JsonNode.Parse(text)!["seal"]!.GetValue<string>().Length);
        CorruptBlobException edited = Assert.Throws<CorruptBlobException>(
            () => CasDocument.Parse<Head>(path, Text(text.Replace("20", "10", StringComparison.Ordinal))));
        Assert.Contains("SHA-256", edited.Message, StringComparison.Ordinal);
        Assert.Throws<CorruptBlobException>(() => CasDocument.Parse<Head>(path, Text("""{"fence":3,"step":20,"sealedBy":0}""")));
    }

    [Fact]
    public async Task A_damaged_document_is_rebuilt_only_by_who_knows_how_and_only_once()
    {
        await Blobs.WriteAsync(path, Text("{"), TestJob.Cancellation);
        await Assert.ThrowsAsync<CorruptBlobException>(() => Blobs.UpdateJsonAsync<Head>(path, head => head, TestJob.Cancellation));

        Head? first = await Blobs.UpdateJsonAsync<Head>(
            path, head => head, TestJob.Cancellation, rebuild: () => new Head { Fence = 1, Step = 1 });
        Head? second = await Blobs.UpdateJsonAsync<Head>(
            path, head => head, TestJob.Cancellation, rebuild: () => new Head { Fence = 2, Step = 2 });

        Assert.Equal((1, 1), (first!.Fence, second!.Fence));
    }

    private static BinaryData Text(string text) => BinaryData.FromString(text);

    private sealed record Counter(int Value);
}
