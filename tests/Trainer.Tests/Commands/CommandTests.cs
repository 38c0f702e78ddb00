using System.Diagnostics;
using System.Text.Json;
using Rlhf.Trainer.Models;
using Rlhf.Trainer.Tests.Models;
using Rlhf.Trainer.Tokenizers;
using Xunit;

namespace Rlhf.Trainer.Tests.Commands;

/// <summary>The commands as a user runs them: a process, its standard output and its exit code.</summary>
public sealed class CommandTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    [Fact]
    public async Task Logits_prints_batch_time_vocabulary()
    {
        JsonElement sample = ModelFixture.Open("llama_gqa").Numbers.GetProperty("cases").GetProperty("left_padded");
        JsonElement logits =
            (await Json("logits", "--model", ModelFixture.FolderOf("llama_gqa"), "--file", Input(sample))).GetProperty("logits");
        float[] expected = Numbers(sample.GetProperty("logits_fp32")[2][8]), actual = Numbers(logits[2][8]);
        Assert.Equal(3, logits.GetArrayLength());
        Assert.Equal(9, logits[0].GetArrayLength());
        Assert.Equal(expected.Length, actual.Length);
        for (int v = 0; v < expected.Length; v++) Assert.Equal(expected[v], actual[v], 5e-5f);
    }

    [Fact]
    public async Task Generate_prints_the_new_tokens_of_each_row()
    {
        JsonElement sample = ModelFixture.Open("gpt_neox").Numbers.GetProperty("generation").GetProperty("left_padded");
        string file = Path.Combine(folder.Path, "prompts.json");
        File.WriteAllText(
            file, $$"""{"input_ids": {{sample.GetProperty("prompt")}}, "attention_mask": {{sample.GetProperty("attention_mask")}}}""");
        JsonElement output =
            await Json("generate", "--model", ModelFixture.FolderOf("gpt_neox"), "--file", file, "--max-new", "16", "--temperature", "0");
        Assert.True(JsonElement.DeepEquals(sample.GetProperty("new_tokens"), output.GetProperty("ids")), output.ToString());
    }

    [Fact]
    public async Task Generate_repeats_itself_for_a_seed()
    {
        string file = Input("[[1,2,3],[4,5,6]]");
        string[] arguments =
            ["generate", "--model", ModelFixture.FolderOf("llama_gqa"), "--file", file, "--max-new", "8", "--temperature", "1.0", "--seed"];
        (_, string first, _) = await Run([.. arguments, "4"]);
        Assert.Equal(first, (await Run([.. arguments, "4"])).Output);
        Assert.NotEqual(first, (await Run([.. arguments, "5"])).Output);
    }

    [Fact]
    public async Task Score_prints_one_reward_a_row_less_the_bias()
    {
        ModelFixture fixture = ModelFixture.Open("llama_reward");
        using (Transformer model = fixture.Load())
        using (Transformer biased = model.WithConfig(model.Config with { RewardBias = 0.5 }))
            HuggingFaceFolder.Save(folder.Path, biased, null);
        foreach (string padding in (string[])["right_padded", "left_padded"])
        {
            JsonElement sample = fixture.Numbers.GetProperty("cases").GetProperty(padding);
            float[] expected = Numbers(sample.GetProperty("reward_fp32"));
            float[] plain = Numbers((await Json("score", "--model", fixture.Folder, "--file", Input(sample))).GetProperty("rewards"));
            float[] shifted = Numbers((await Json("score", "--model", folder.Path, "--file", Input(sample))).GetProperty("rewards"));
            for (int row = 0; row < expected.Length; row++)
            {
                Assert.Equal(expected[row], plain[row], 5e-5f);
                Assert.Equal(expected[row] - 0.5f, shifted[row], 5e-5f);
            }
        }
    }

    [Fact]
    public async Task An_adapter_counts_as_if_it_were_merged()
    {
        ModelFixture fixture = ModelFixture.Open("gpt2");
        string adapter = Path.Combine(folder.Path, "adapter"), merged = Path.Combine(folder.Path, "merged");
        using (Transformer trunk = fixture.Load())
        using (Transformer adapted = LoraTests.Learned(trunk, new LoraOptions(4, 8, ["c_attn", "c_fc"])))
        {
            PeftFolder.Save(adapter, adapted, "../base");
            HuggingFaceFolder.Save(merged, adapted, null);
        }

        string file = Input("[[1,2,3],[4,5,6]]");
        JsonElement plain = await Json("logits", "--model", fixture.Folder, "--file", file);
        JsonElement expected = await Json("logits", "--model", merged, "--file", file);
        JsonElement actual = await Json("logits", "--model", fixture.Folder, "--adapter", adapter, "--file", file);
        Assert.Equal(expected.GetRawText(), actual.GetRawText());
        Assert.NotEqual(plain.GetRawText(), actual.GetRawText());

        (int code, string output, string error) =
            await Run(["logits", "--model", fixture.Folder, "--adapter", fixture.Folder, "--file", file]);
        Assert.Equal((1, ""), (code, output));
        Assert.Contains("adapter_config.json is missing", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Tokenize_prints_an_array_of_id_arrays()
    {
        string tokenizer = Path.Combine(AppContext.BaseDirectory, "fixtures", "tokenizer");
        string file = Path.Combine(folder.Path, "texts.json");
        File.WriteAllText(file, """["Hello, world!", "", " é"]""");
        JsonElement output = await Json("tokenize", "--tokenizer", tokenizer, "--file", file);
        Assert.StartsWith("[[39,449,78,11,426,312,0],[],[", output.GetRawText(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Text_goes_in_and_out_of_generate_and_chat()
    {
        string model = TextModel();
        (int code, string output, string errors) = await Run(["generate", "--model", model, "--prompt", "abc", "--max-new", "5"]);
        Assert.Equal((0, ""), (code, errors));
        Assert.EndsWith("\n", output, StringComparison.Ordinal);
        foreach (string template in (string[])["plain", "dialogue"])
        {
            (code, output, errors) = await Run(["chat", "--model", model, "--template", template, "--max-new", "5"], "ab ab\n\nagain\n");
            Assert.Equal((0, ""), (code, errors));
            Assert.True(output.Count(c => c == '\n') >= 2, output);
        }
    }

    [Fact]
    public async Task Bad_input_ends_in_one_line_on_standard_error()
    {
        string llama = ModelFixture.FolderOf("llama_gqa"), good = Input("[[1,2]]");
        string model = TextModel();
        await Refused("no such folder", "logits", "--model", "/no/such", "--file", good);
        await Refused("config.json is missing", "logits", "--model", folder.Path, "--file", good);
        await Refused("no such file", "logits", "--model", llama, "--file", "/no/such.json");
        await Refused("Option '--model' is required", "logits", "--file", good);
        await Refused("not valid JSON", "logits", "--model", llama, "--file", Raw("{"));
        await Refused("an object with 'input_ids' is expected", "logits", "--model", llama, "--file", Raw("[1]"));
        await Refused("array of arrays of integers", "logits", "--model", llama, "--file", Input("[[1.5]]"));
        await Refused("'input_ids' has no rows", "logits", "--model", llama, "--file", Input("[]"));
        await Refused("input_ids[0][1] is 97; the vocabulary has 97", "logits", "--model", llama, "--file", Input("[[1,97]]"));
        await Refused("pad the rows", "logits", "--model", llama, "--file", Input("[[1,2],[1]]"));
        await Refused(
            "shape of 'input_ids'", "logits", "--model", llama, "--file", Raw("""{"input_ids":[[1,2]],"attention_mask":[[1]]}"""));
        await Refused("gives no rewards", "score", "--model", llama, "--file", good);
        await Refused("has no logits", "logits", "--model", ModelFixture.FolderOf("llama_reward"), "--file", good);
        await Refused("exceed the model's 64 positions", "generate", "--model", llama, "--file", good, "--max-new", "63");
        await Refused("either --file or --prompt", "generate", "--model", llama, "--max-new", "3");
        await Refused("--prompt is empty", "generate", "--model", model, "--prompt", "", "--max-new", "3");
        await Refused("holds no tokenizer", "generate", "--model", llama, "--prompt", "x", "--max-new", "3");
        await Refused("has no token '<|im_start|>'", input: "hello\n", ["chat", "--model", model, "--template", "chatml"]);
        await Refused("array of strings", "tokenize", "--tokenizer", model, "--file", Raw("[1]"));
        await Refused("element 1 is null", "tokenize", "--tokenizer", model, "--file", Raw("""["a", null]"""));
    }

    public void Dispose() => folder.Dispose();

    private string TextModel()
    {
        string directory = Path.Combine(folder.Path, "text");
        ByteLevelBpe tokenizer = ByteLevelBpe.Train(["ab ab ab again again"], 270, ["<|endoftext|>", "<|pad|>"]);
        using var model = new Transformer(ModelConfig.Llama(tokenizer.VocabularySize, 16, 1, 2, 2, 32, 64));
        model.InitialiseWeights(1);
        HuggingFaceFolder.Save(directory, model, tokenizer);
        return directory;
    }

    private string Input(JsonElement sample) =>
        Raw($$"""{"input_ids": {{sample.GetProperty("input_ids")}}, "attention_mask": {{sample.GetProperty("attention_mask")}}}""");

    private string Input(string ids) => Raw($$"""{"input_ids": {{ids}}}""");

    private string Raw(string content)
    {
        string file = Path.Combine(folder.Path, Path.GetRandomFileName());
        File.WriteAllText(file, content);
        return file;
    }

    private static async Task<JsonElement> Json(params string[] arguments)
    {
        (int code, string output, string errors) = await Run(arguments);
        Assert.Equal((0, ""), (code, errors));
        return JsonDocument.Parse(output).RootElement;
    }

    private static Task Refused(string reason, params string[] arguments) => Refused(reason, input: "", arguments);

    private static async Task Refused(string reason, string input, string[] arguments)
    {
        (int code, string output, string errors) = await Run(arguments, input);
        Assert.Equal((1, ""), (code, output));
        Assert.StartsWith("error: ", errors, StringComparison.Ordinal);
        Assert.Contains(reason, errors, StringComparison.Ordinal);
        Assert.Equal(1, errors.Count(c => c == '\n'));
    }

    private static async Task<(int Code, string Output, string Errors)> Run(string[] arguments, string input = "")
    {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "Rlhf.Trainer.dll"), .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        Task<string> output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        Task<string> errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.StandardInput.WriteAsync(input);
        process.StandardInput.Close();
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        return (process.ExitCode, await output, await errors);
    }

    private static float[] Numbers(JsonElement array) => [.. array.EnumerateArray().Select(v => v.GetSingle())];
}
