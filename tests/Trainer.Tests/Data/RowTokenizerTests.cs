using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Tokenizers;
using Xunit;

namespace Rlhf.Trainer.Tests.Data;

public sealed class RowTokenizerTests
{
    private static readonly ByteLevelBpe Tokenizer = ByteLevelBpe.Train(
        ["\n\nHuman: Colour of the sky?\n\nAssistant: It is blue.", "\n\nHuman: Colour of the sea?\n\nAssistant: It is blue."],
        320, ["<end>", "<pad>"]);

    private static RowTokenizer Rows(
        int maxPrompt = 64, int maxCompletion = 32, int positions = 128, ChatTemplateName template = ChatTemplateName.Dialogue) => new(
        Tokenizer,
        new ModelSpec { ChatTemplate = template, MaxPromptTokens = maxPrompt, MaxCompletionTokens = maxCompletion },
        positions,
        maxNewTokens: 8);

    [Fact]
    public void BoundaryLiesBetweenTokensAndPromptIsTheSameInSampling()
    {
        var row = new Row { Id = "a", Prompt = [new Turn("user", "Colour of the sky?")], Completions = ["It is blue."] };

        TokenizedDemonstration demonstration = Rows().Demonstration(row);

        Assert.Equal(Rows().PromptOnly(row).Prompt, demonstration.Prompt);
        Assert.Equal("\n\nHuman: Colour of the sky?\n\nAssistant:", Tokenizer.Decode(demonstration.Prompt));
        Assert.Equal(" It is blue.", Tokenizer.Decode(demonstration.Completion.AsSpan(..^1)));
        Assert.Equal(Tokenizer.EosId, demonstration.Completion[^1]);
    }

    [Fact]
    public void LongPromptLosesItsOldestTokens()
    {
        Turn[] prompt = [new("user", "Colour of the sea?"), new("assistant", "It is blue."), new("user", "Colour of the sky?")];
        int[] whole = Rows().Prompt(prompt);

        int[] cut = Rows(maxPrompt: 5).Prompt(prompt);

        Assert.Equal(whole[^5..], cut);
        Assert.EndsWith("Assistant:", Tokenizer.Decode(cut), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, true)] // as long as the limit
    [InlineData(1, false)] // one longer
    public void CutCompletionHasNoEndToken(int excess, bool ends)
    {
        int[] words = Tokenizer.Encode(" It is blue.");
        RowTokenizer rows = Rows(maxCompletion: words.Length - excess);

        int[] completion = rows.Completion("It is blue.");

        Assert.Equal(ends, completion[^1] == Tokenizer.EosId);
        Assert.Equal(ends, rows.Ended(completion));
        Assert.Equal(words.Length - excess + (ends ? 1 : 0), completion.Length);
        Assert.Equal(words[..(words.Length - excess)], completion[..(words.Length - excess)]);
    }

    [Fact]
    public void PromptLeavesRoomForTheAnswer()
    {
        RowTokenizer rows = Rows(maxPrompt: 100, maxCompletion: 10, positions: 32);

        Assert.Equal(21, rows.MaxPromptTokens);
    }

    [Fact]
    public void ContextTooShortForAnAnswerIsABadInput()
    {
        JobInputException error = Assert.Throws<JobInputException>(() => Rows(maxCompletion: 31, positions: 32));

        Assert.Contains("32 positions", error.Message, StringComparison.Ordinal);
        Assert.Contains("model.maxCompletionTokens", error.Remedy, StringComparison.Ordinal);
    }

    [Fact]
    public void EmptyPromptAndCompletionStillHaveTokens()
    {
        RowTokenizer rows = Rows(template: ChatTemplateName.Plain);

        Assert.Equal([Tokenizer.EosId], rows.Prompt([new Turn("user", "")]));
        Assert.Equal(Tokenizer.EosId, rows.Completion("")[^1]);
    }

    [Fact]
    public void TextIsWithoutEndTokenAndOuterSpace()
    {
        RowTokenizer rows = Rows();

        Assert.Equal("It is blue.", rows.Text(rows.Completion("It is blue.")));
        Assert.Equal("It is", rows.Text(Tokenizer.Encode(" It is")));
        Assert.Equal("", rows.Text([Tokenizer.EosId]));
    }

    [Fact]
    public void LineThatIsNoRowIsNamed()
    {
        using var folder = new TemporaryFolder();
        string file = System.IO.Path.Combine(folder.Path, "rows.jsonl");
        File.WriteAllText(file, "{\"id\":\"a\",\"completions\":[\"x\"]}\n\n{\"id\":\"b\",\"colour\":1}\n");

        JobInputException error = Assert.Throws<JobInputException>(() => DatasetReader.Read("text.train", file));

        Assert.Contains("'text.train', line 3", error.Message, StringComparison.Ordinal);
    }
}
