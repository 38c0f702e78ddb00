using System.Buffers.Binary;
using System.Text;
using System.Text.Json;
using Rlhf.Jobs;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tests.Tokenizers;
using Rlhf.Trainer.Tokenizers;
using Xunit;

namespace Rlhf.Fuzz.Tests;

/// <summary>Run specs come from whoever may call the API.</summary>
public sealed class RunSpecFuzz
{
    [Fact]
    public void Every_text_is_a_spec_or_a_list_of_faults() => Campaign.Run("run-spec", Corpus.Files("specs"), input =>
    {
        try
        {
            SpecReader.ReadStored(Encoding.UTF8.GetString(input));
            return true;
        }
        catch (InvalidSpecException e)
        {
            Assert.NotEmpty(e.Errors);
            Assert.All(e.Errors, error => Assert.True(error.Field.Length > 0 && error.Message.Length > 0));
            return false;
        }
    });
}

/// <summary>JSON lines come from data files and from <c>POST /api/feedback</c>.</summary>
public sealed class JsonLinesFuzz
{
    private const string Lines = """
        {"prompt":"a","chosen":"x","rejected":"y"}
        {"chosen":"\n\nHuman: a\n\nAssistant: x","rejected":"\n\nHuman: a\n\nAssistant: y"}
        {"prompt":"a","completions":["x","y","z"],"ranking":[2,0,1]}
        {"prompt":"a","completions":["x","y","x"],"scores":[0.5,0.9,0.5]}
        {"instruction":"a","completions":[{"response":"x","overall_score":7.5},{"response":"y","overall_score":"8"}]}
        {"query":"a","sample0":"w","sample1":"x","sample2":"y","sample3":"z","best":2}
        {"input_text":"a","candidate_0":"x","candidate_1":"y","choice":1}
        {"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}
        {"id":"x","prompt":[{"role":"user","content":"a"}],"completions":["b","c"],"ranks":[2,1],"subset":"own","labeller":"l","truth":{"k":[1]}}
        """;

    [Fact]
    public void Every_file_is_read_to_its_end_with_a_row_or_a_reason_for_each_line()
    {
        byte[] whole = Encoding.UTF8.GetBytes(Lines);
        byte[][] corpus = [whole, .. Lines.Split('\n').Select(Encoding.UTF8.GetBytes)];
        Campaign.Run("json-lines", corpus, input =>
        {
            var reader = new RowReader("rows.jsonl", new MemoryStream(input));
            int rows = 0;
            try
            {
                foreach (RowResult result in reader.ReadAsync(TestContext.Current.CancellationToken).ToBlockingEnumerable(TestContext.Current.CancellationToken))
                {
                    Assert.NotEqual(result.Row is null, result.Reason is null);
                    Assert.InRange(result.Line, 1, reader.Lines);
                    rows += result.Row is null ? 0 : 1;
                }
            }
            catch (UnreadableFileException e)
            {
                Assert.Contains("rows.jsonl", e.Message, StringComparison.Ordinal);
            }

            return rows > 0;
        });
    }
}

/// <summary>Weights come from model folders of others.</summary>
public sealed class SafetensorsFuzz : IDisposable
{
    private readonly string file = Path.GetTempFileName();

    public void Dispose() => File.Delete(file);

    [Fact]
    public void Every_file_is_opened_or_refused_by_name()
    {
        IReadOnlyList<byte[]> corpus = [.. Corpus.Files("models", "*.safetensors").OrderBy(file => file.Length).Take(2)];
        Campaign.Run("safetensors", corpus, Parse, mutator => Make(mutator, corpus));
    }

    /// <summary>Half of the inputs keep a header of the right length, so that what it says is read and not only its length.</summary>
    private static byte[] Make(Mutator mutator, IReadOnlyList<byte[]> corpus)
    {
        byte[] input = corpus[0];
        int length = (int)BinaryPrimitives.ReadUInt64LittleEndian(input);
        if (mutator.ChangeJson(input[8..(8 + length)]) is not { } header || header.Length % 2 == 0)
            return mutator.Mutate(corpus);
        byte[] prefix = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(prefix, (ulong)header.Length);
        return [.. prefix, .. header, .. input[(8 + length)..]];
    }

    private bool Parse(byte[] input)
    {
        File.WriteAllBytes(file, input);
        try
        {
            using SafetensorsFile opened = Safetensors.Open(file);
            foreach (string name in opened.Names)
                opened.Read(name).Dispose();
            return true;
        }
        catch (ModelFormatException e)
        {
            Assert.Contains(file, e.Message, StringComparison.Ordinal);
            return false;
        }
    }
}

/// <summary>Tokenizers come from model folders of others.</summary>
public sealed class TokenizerFuzz : IDisposable
{
    private readonly DirectoryInfo folder = Directory.CreateTempSubdirectory("rlhf-fuzz-");

    public void Dispose() => folder.Delete(recursive: true);

    [Fact]
    public void Every_tokenizer_json_works_or_is_refused_by_name() => Campaign.Run("tokenizer-json", Corpus.Files("tokenizer", "tokenizer.json"), input =>
    {
        File.WriteAllBytes(Path.Combine(folder.FullName, "tokenizer.json"), input);
        try
        {
            ByteLevelBpe tokenizer = ByteLevelBpe.Load(folder.FullName);
            int[] ids = tokenizer.Encode("Hello, world! 123 <|endoftext|> é€😀\n\n  x");
            Assert.All(ids, id => Assert.InRange(id, 0, tokenizer.VocabularySize - 1));
            _ = tokenizer.Decode(ids);
            return true;
        }
        catch (ModelFormatException e)
        {
            Assert.Contains(folder.FullName, e.Message, StringComparison.Ordinal);
            return false;
        }
    });
}

/// <summary>The protocol buffers of SentencePiece come from model folders of others.</summary>
public sealed class SentencePieceFuzz : IDisposable
{
    private readonly DirectoryInfo folder = Directory.CreateTempSubdirectory("rlhf-fuzz-");

    public void Dispose() => folder.Delete(recursive: true);

    [Fact]
    public void Every_tokenizer_model_works_or_is_refused_by_name()
    {
        string file = Path.Combine(folder.FullName, "tokenizer.model");
        IReadOnlyList<byte[]> corpus = [.. Models().Select(model =>
        {
            model.Write(file);
            return File.ReadAllBytes(file);
        })];
        Campaign.Run("tokenizer-model", corpus, input =>
        {
            File.WriteAllBytes(file, input);
            try
            {
                SentencePieceTokenizer tokenizer = SentencePieceTokenizer.Load(folder.FullName);
                int[] ids = tokenizer.Encode("ab abc  ccc <x> é😀日 \ud800 <s>z\n" + new string('c', 500));
                Assert.All(ids, id => Assert.InRange(id, 0, tokenizer.VocabularySize - 1));
                _ = tokenizer.Decode(ids);
                return true;
            }
            catch (ModelFormatException e)
            {
                Assert.Contains(folder.FullName, e.Message, StringComparison.Ordinal);
                return false;
            }
        });
    }

    private static IEnumerable<PlainSentencePiece> Models()
    {
        (string, float, PieceType)[] control = [("<unk>", 0, PieceType.Unknown), ("<s>", 0, PieceType.Control), ("</s>", 0, PieceType.Control)];
        (string, float, PieceType)[] bytes = [.. Enumerable.Range(0, 256).Select(value => ($"<0x{value:X2}>", 0f, PieceType.Byte))];
        (string, float, PieceType)[] words =
        [
            ("▁a", -1, PieceType.Normal), ("ab", -2, PieceType.Unused), ("abc", -3, PieceType.Normal), ("cc", -4, PieceType.Unused),
            ("ccc", -5, PieceType.Normal), ("<x>", 0, PieceType.UserDefined), ("▁", -6, PieceType.Normal), ("a", -7, PieceType.Normal),
            ("b", -8, PieceType.Normal), ("c", -9, PieceType.Normal), ("é", -10, PieceType.Normal), ("😀", -11, PieceType.Normal),
        ];
        yield return new PlainSentencePiece([.. control, .. bytes, .. words]);
        yield return new PlainSentencePiece([.. control, .. words], ByteFallback: false, DummyPrefix: false, RemoveExtra: true);
    }
}

/// <summary>A model's configuration together with weights that may not fit it.</summary>
public sealed class ModelFolderFuzz : IDisposable
{
    private readonly DirectoryInfo folder = Directory.CreateTempSubdirectory("rlhf-fuzz-");

    public void Dispose() => folder.Delete(recursive: true);

    [Theory]
    [InlineData("gpt2")]
    [InlineData("llama3_rope")]
    [InlineData("gpt_neox")]
    [InlineData("opt")]
    public void Every_config_json_loads_the_weights_or_is_refused_by_name(string model)
    {
        string corpus = Corpus.Folder("models", model);
        File.Copy(Path.Combine(corpus, "model.safetensors"), Path.Combine(folder.FullName, "model.safetensors"));
        Campaign.Run($"config-json-{model}", [File.ReadAllBytes(Path.Combine(corpus, "config.json"))], input =>
        {
            File.WriteAllBytes(Path.Combine(folder.FullName, "config.json"), input);
            try
            {
                HuggingFaceFolder.LoadModel(folder.FullName).Dispose();
                return true;
            }
            catch (ModelFormatException e)
            {
                Assert.Contains(folder.FullName, e.Message, StringComparison.Ordinal);
                return false;
            }
        }, share: 0.25);
    }
}

/// <summary>Documents of the job protocol, as a damaged store would give them.</summary>
public sealed class JobDocumentFuzz
{
    [Fact]
    public void Every_document_is_read_or_reported_as_corrupt()
    {
        var document = new JobDocument
        {
            RunId = "r",
            Stage = Stages.Sft,
            Fence = 3,
            State = JobState.Running,
            AttemptId = "a",
            Spec = new JobSpec { Kind = JobKind.Sft, RunDocument = "runs/r/run.json" },
            History = [new AttemptRecord(1, "x", "lost", null, 1.5), new AttemptRecord(2, null, "startTimeout", "nobody came", 0)],
            Result = new JobResult
            {
                Outcome = JobState.Failed,
                Error = new JobError(JobErrorKind.DiskFull, "m", "r"),
                Metrics = new Dictionary<string, double> { ["loss"] = 0.5 },
            },
        };
        Campaign.Run("job-document", [CasDocument.Serialize(document).ToArray()], input =>
        {
            try
            {
                JobDocument read = CasDocument.Parse<JobDocument>("runs/r/stages/sft/job.json", new BinaryData(input));
                _ = JsonSerializer.Serialize(read, RlhfJson.Compact);
                return true;
            }
            catch (CorruptBlobException e)
            {
                Assert.Contains("job.json", e.Message, StringComparison.Ordinal);
                return false;
            }
        }, share: 0.25);
    }
}
