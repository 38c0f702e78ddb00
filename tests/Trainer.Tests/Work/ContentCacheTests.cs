using Rlhf.Jobs;
using Rlhf.Tests;
using Rlhf.Trainer.Work;
using Xunit;

namespace Rlhf.Trainer.Tests.Work;

/// <summary>What storage says is no reason to write anywhere but into the cache.</summary>
public sealed class ContentCacheTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly MemoryBlobs _blobs = new();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private string Directory => Path.Combine(_folder.Path, "deep", "cache");

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("../../escaped")]
    [InlineData("/tmp/escaped")]
    [InlineData("a/escaped")]
    [InlineData("..\\escaped")]
    [InlineData("c:escaped")]
    [InlineData("..")]
    [InlineData("")]
    public async Task A_folder_whose_manifest_names_a_place_outside_is_corrupt(string name)
    {
        ModelRef model = await StoreAsync(name);
        var error = await Assert.ThrowsAsync<CorruptBlobException>(() => Cache().FolderAsync(model, Cancellation));
        Assert.Contains($"it names the file '{name}'", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(Written(), file => !file.StartsWith(Path.Combine(Directory, "files"), StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_plain_name_is_fetched()
    {
        string folder = await Cache().FolderAsync(await StoreAsync("config.json"), Cancellation);
        Assert.Equal("content", await File.ReadAllTextAsync(Path.Combine(folder, "config.json"), Cancellation));
    }

    [Theory]
    [InlineData("../../escaped")]
    [InlineData("..")]
    [InlineData("/tmp/escaped")]
    public async Task A_sum_that_is_a_path_is_corrupt_and_nothing_is_fetched(string sum)
    {
        await _blobs.WriteAsync("data.jsonl", BinaryData.FromString("content"), Cancellation);
        await Assert.ThrowsAsync<CorruptBlobException>(() => Cache().FileAsync("data.jsonl", sum, Cancellation));
        await Assert.ThrowsAsync<CorruptBlobException>(() => Cache().FolderAsync(new ModelRef($"cas/{sum}", sum), Cancellation));
        Assert.Empty(Written());
    }

    private async Task<ModelRef> StoreAsync(string name)
    {
        var content = BinaryData.FromString("content");
        string sum = CasDocument.Sha256(content);
        BinaryData manifest = CasDocument.Serialize(new FolderManifest([new ContentFile(name, sum, 7)]));
        string manifestSum = CasDocument.Sha256(manifest);
        await _blobs.WriteAsync(BlobLayout.Content(sum), content, Cancellation);
        await _blobs.WriteAsync(BlobLayout.Content(manifestSum), manifest, Cancellation);
        return new ModelRef(BlobLayout.Content(manifestSum), sum);
    }

    private ContentCache Cache() => new(_blobs, new Patience(new WorkerLog(TextWriter.Null)), Directory);

    private string[] Written() => System.IO.Directory.GetFiles(_folder.Path, "*", SearchOption.AllDirectories);
}
