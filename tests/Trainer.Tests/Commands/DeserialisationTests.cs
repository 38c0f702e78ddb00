using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;
using Rlhf.Trainer.Models;
using Xunit;

namespace Rlhf.Trainer.Tests.Commands;

/// <summary>
/// The trainer reads weights and data of others. Formats that can carry code (Python's pickle, .NET's binary formatter) or types of the
/// sender's choice are not read at all: no instruction of the assembly so much as names their readers.
/// </summary>
public sealed class DeserialisationTests
{
    private static readonly string[] ForbiddenTypes =
    [
        "BinaryFormatter", "NetDataContractSerializer", "DataContractSerializer", "SoapFormatter", "LosFormatter", "ObjectStateFormatter",
        "XmlSerializer", "PyBridge", "Unpickler", "BinaryReaderExtensions",
    ];

    private static readonly string[] ForbiddenTorchMembers = ["load", "load_py", "load_safetensors", "import_ir_module", "Load", "from_file", "LoadLibrary"];

    [Fact]
    public void Nothing_but_JSON_and_text_is_deserialised_in_the_shared_room()
    {
        using var image = new PEReader(File.OpenRead(typeof(RlhfJson).Assembly.Location));
        MetadataReader metadata = image.GetMetadataReader();
        string[] types = [.. metadata.TypeReferences.Select(metadata.GetTypeReference).Select(type => metadata.GetString(type.Name))];
        Assert.Contains("JsonDocument", types);
        Assert.Empty(types.Intersect(ForbiddenTypes));
    }

    [Fact]
    public void Nothing_but_JSON_and_safetensors_is_deserialised()
    {
        using var image = new PEReader(File.OpenRead(typeof(Safetensors).Assembly.Location));
        MetadataReader metadata = image.GetMetadataReader();
        string[] types = [.. metadata.TypeReferences.Select(metadata.GetTypeReference).Select(type => metadata.GetString(type.Name))];
        Assert.Contains("JsonDocument", types);
        Assert.Empty(types.Intersect(ForbiddenTypes));

        string[] torch =
        [
            .. metadata.MemberReferences.Select(metadata.GetMemberReference)
                .Where(member => member.Parent.Kind == HandleKind.TypeReference
                    && IsTorch(metadata, (TypeReferenceHandle)member.Parent))
                .Select(member => metadata.GetString(member.Name)),
        ];
        Assert.Contains("empty", torch);
        Assert.Empty(torch.Intersect(ForbiddenTorchMembers));
    }

    [Fact]
    public void A_folder_with_pickled_weights_is_refused_unread()
    {
        using var folder = new TemporaryFolder();
        File.WriteAllText(Path.Combine(folder.Path, "config.json"), File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "fixtures/models/gpt2/config.json")));
        File.WriteAllBytes(Path.Combine(folder.Path, "pytorch_model.bin"), [0x80, 0x02, 0x63]);
        var error = Assert.Throws<ModelFormatException>(() => HuggingFaceFolder.LoadModel(folder.Path));
        Assert.Contains("pytorch_model.bin, which is not read", error.Message, StringComparison.Ordinal);
    }

    private static bool IsTorch(MetadataReader metadata, TypeReferenceHandle handle)
    {
        TypeReference type = metadata.GetTypeReference(handle);
        return type.ResolutionScope.Kind == HandleKind.TypeReference
            ? IsTorch(metadata, (TypeReferenceHandle)type.ResolutionScope)
            : metadata.GetString(type.Namespace).StartsWith("TorchSharp", StringComparison.Ordinal);
    }
}
