using System.Text;
using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Trainer.Data;

/// <summary>
/// How a dialogue becomes the text that a completion follows. <c>dialogue</c> is hh-rlhf's form (Bai et al. 2022), <c>chatml</c> and
/// <c>llama3</c> are those models' own, <c>plain</c> joins the contents by blank lines.
/// </summary>
public static class ChatTemplate
{
    /// <summary>What ends an answer of a model that goes on writing the dialogue instead of ending it.</summary>
    public static readonly IReadOnlyList<string> NextTurn = ["\n\n", "\nHuman:"];

    /// <summary>The text up to where the assistant's answer begins.</summary>
    public static string Render(IReadOnlyList<Turn> prompt, ChatTemplateName template)
    {
        var text = new StringBuilder();
        foreach ((string piece, _) in Pieces(prompt, template))
            text.Append(piece);
        return text.ToString();
    }

    /// <summary>
    /// The tokens of <see cref="Render"/>. The template's own special tokens are single tokens; the same words in a turn's content are
    /// ordinary text, so that no user can forge a turn.
    /// </summary>
    /// <exception cref="JobInputException">The tokenizer lacks a special token of the template.</exception>
    public static int[] Encode(IReadOnlyList<Turn> prompt, ChatTemplateName template, ITokenizer tokenizer)
    {
        var ids = new List<int>();
        foreach ((string piece, bool special) in Pieces(prompt, template))
        {
            if (!special)
                ids.AddRange(ids.Count == 0 ? tokenizer.Encode(piece) : tokenizer.EncodeContinuation(piece));
            else
                ids.Add(tokenizer.IdOf(piece) ?? throw MissingToken(template, piece));
        }

        return [.. ids];
    }

    /// <summary>
    /// A completion as it continues the rendered prompt. In the forms that have no special tokens a space stands between, as in
    /// hh-rlhf's transcripts, and belongs to the completion: byte-level BPE joins it to the first word.
    /// </summary>
    public static string Continuation(string completion, ChatTemplateName template) =>
        template is ChatTemplateName.Dialogue or ChatTemplateName.Plain ? " " + completion : completion;

    /// <summary>The control tokens that a tokenizer needs for the template.</summary>
    public static IReadOnlyList<string> SpecialTokens(ChatTemplateName template) => template switch
    {
        ChatTemplateName.Chatml => ["<|im_start|>", "<|im_end|>"],
        ChatTemplateName.Llama3 => ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        _ => [],
    };

    /// <summary>Text in runs that are tokenised each on its own, as Hugging Face splits a text at its added tokens.</summary>
    private static IEnumerable<(string Text, bool Special)> Pieces(IReadOnlyList<Turn> prompt, ChatTemplateName template) => template switch
    {
        ChatTemplateName.Dialogue => [(Dialogue(prompt), false)],
        ChatTemplateName.Plain => [(string.Join("\n\n", prompt.Select(turn => turn.Content)), false)],
        ChatTemplateName.Chatml => Chatml(prompt),
        ChatTemplateName.Llama3 => Llama3(prompt),
        _ => throw new ArgumentOutOfRangeException(nameof(template), template, "no such chat template"),
    };

    private static string Dialogue(IReadOnlyList<Turn> prompt)
    {
        var text = new StringBuilder();
        foreach (Turn turn in prompt)
        {
            text.Append(turn.Role switch
            {
                "user" => "\n\nHuman: ",
                "assistant" => "\n\nAssistant: ",
                _ => "", // hh-rlhf knows no system turn; its text opens the dialogue
            });
            text.Append(turn.Content);
        }

        return text.Append("\n\nAssistant:").ToString();
    }

    private static IEnumerable<(string, bool)> Chatml(IReadOnlyList<Turn> prompt)
    {
        foreach (Turn turn in prompt)
        {
            yield return ("<|im_start|>", true);
            yield return ($"{turn.Role}\n{turn.Content}", false);
            yield return ("<|im_end|>", true);
            yield return ("\n", false);
        }

        yield return ("<|im_start|>", true);
        yield return ("assistant\n", false);
    }

    private static IEnumerable<(string, bool)> Llama3(IReadOnlyList<Turn> prompt)
    {
        yield return ("<|begin_of_text|>", true);
        foreach (Turn turn in prompt)
        {
            foreach ((string, bool) piece in Header(turn.Role))
                yield return piece;
            yield return ($"\n\n{turn.Content.Trim()}", false);
            yield return ("<|eot_id|>", true);
        }

        foreach ((string, bool) piece in Header("assistant"))
            yield return piece;
        yield return ("\n\n", false);

        static IEnumerable<(string, bool)> Header(string role) =>
            [("<|start_header_id|>", true), (role, false), ("<|end_header_id|>", true)];
    }

    private static JobInputException MissingToken(ChatTemplateName template, string token) => new(
        $"The model's tokenizer has no token '{token}', which the chat template '{template.ToString().ToLowerInvariant()}' needs.",
        "Set model.chatTemplate to 'dialogue' or 'plain', or take a model that was made for this template.");
}
