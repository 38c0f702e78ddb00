using System.IO.Compression;
using Rlhf.Jobs;
using Rlhf.Local.Commands;
using Rlhf.Spec;
using Rlhf.Tests;
using Xunit;

namespace Rlhf.Local.Tests;

/// <summary>What the command takes in, from files and from storage, cannot harm the machine that it runs on.</summary>
public sealed class InputTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rlhf-input-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("../../escaped")]
    [InlineData("/tmp/escaped")]
    [InlineData("a/escaped")]
    [InlineData("..")]
    public async Task A_models_manifest_that_names_a_place_outside_its_folder_is_refused(string name)
    {
        var blobs = new MemoryBlobs();
        var content = BinaryData.FromString("content");
        string sum = CasDocument.Sha256(content);
        await blobs.WriteAsync(BlobLayout.Content(sum), content, CancellationToken.None);
        BinaryData manifest = CasDocument.Serialize(
            new FolderManifest([new ContentFile("config.json", sum, 7), new ContentFile(name, sum, 7)]));
        string path = BlobLayout.Content(CasDocument.Sha256(manifest));
        await blobs.WriteAsync(path, manifest, CancellationToken.None);
        string target = Path.Combine(_folder, "out", "models", "sft");
        var error = await Assert.ThrowsAsync<CorruptBlobException>(
            () => new ResultFolder(null!, blobs, _folder).FetchModelAsync(path, target, CancellationToken.None));
        Assert.Contains($"it names '{name}'", error.Message, StringComparison.Ordinal);
        Assert.Equal([Path.Combine(target, "config.json")], Directory.GetFiles(_folder, "*", SearchOption.AllDirectories));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_data_file_that_unpacks_to_far_too_much_is_refused_before_anything_starts(bool inOneLine)
    {
        string file = Path.Combine(_folder, "bomb.jsonl.gz");
        await using (var gzip = new GZipStream(File.Create(file), CompressionLevel.SmallestSize))
        {
            byte[] part = new byte[1024 * 1024];
            Array.Fill(part, (byte)' ');
            if (!inOneLine) part[^1] = (byte)'\n';
            for (int i = 0; i < 80; i++) gzip.Write(part);
        }
        RunSpec spec = SpecReader.Read(
            """{"name":"m","data":{"preferences":[{"file":"bomb.jsonl.gz"}]},"model":{"base":"model:m"}}""");
        var refused = await Assert.ThrowsAsync<UserErrorException>(() => LocalInputs.CheckAsync(spec, _folder, _folder, CancellationToken.None));
        Assert.Contains("data.preferences[0].file", refused.Message, StringComparison.Ordinal);
        Assert.Contains("unpacks to more than 200 times its size", refused.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"a\":")]
    [InlineData("[")]
    public async Task A_line_nested_without_end_is_named(string opening)
    {
        await File.WriteAllTextAsync(
            Path.Combine(_folder, "deep.jsonl"), "{\"prompt\":\"a\"}\n" + string.Concat(Enumerable.Repeat(opening, 50_000)));
        RunSpec spec = SpecReader.Read("""{"name":"m","data":{"preferences":[{"file":"deep.jsonl"}]},"model":{"base":"model:m"}}""");
        var refused = await Assert.ThrowsAsync<UserErrorException>(() => LocalInputs.CheckAsync(spec, _folder, _folder, CancellationToken.None));
        Assert.Contains("line 2 of", refused.Message, StringComparison.Ordinal);
        Assert.Contains("is not valid JSON", refused.Message, StringComparison.Ordinal);
    }
}
