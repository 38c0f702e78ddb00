using Rlhf.Rows;
using Rlhf.Spec;
using Rlhf.Trainer.Tokenizers;

namespace Rlhf.Trainer.Data;

/// <summary>
/// Rows into tokens. Prompt and completion are tokenised apart, so that the boundary between what is given and what is learnt lies
/// between two tokens and a prompt has the same tokens in training as in sampling, where its completion is not known yet.
/// </summary>
public sealed class RowTokenizer
{
    private readonly ITokenizer _tokenizer;
    private readonly ChatTemplateName _template;
    private readonly int _maxCompletionTokens;

    /// <summary>Takes the limits of the spec, the prompt's lowered to what the model can hold beside a completion.</summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="model">Template and limits.</param>
    /// <param name="positions">The model's longest sequence in tokens.</param>
    /// <param name="maxNewTokens">The longest answer that will be sampled; a prompt leaves room for it.</param>
    /// <exception cref="JobInputException">The model's context cannot hold a completion.</exception>
    public RowTokenizer(ITokenizer tokenizer, ModelSpec model, int positions, int maxNewTokens)
    {
        int answer = Math.Max(model.MaxCompletionTokens + 1, maxNewTokens);
        if (answer >= positions)
        {
            throw new JobInputException(
                $"Answers of up to {answer} tokens leave no room for a prompt in the model's {positions} positions.",
                "Lower model.maxCompletionTokens, the method's maxNewTokens or evaluate.maxNewTokens, or take a model with a longer context.");
        }

        _tokenizer = tokenizer;
        _template = model.ChatTemplate;
        _maxCompletionTokens = model.MaxCompletionTokens;
        MaxPromptTokens = Math.Min(model.MaxPromptTokens, positions - answer);
    }

    /// <summary>The longest prompt in tokens; longer ones lose their oldest tokens.</summary>
    public int MaxPromptTokens { get; }

    /// <summary>The end of the rendered prompt, at most <see cref="MaxPromptTokens"/> tokens; never empty.</summary>
    public int[] Prompt(IReadOnlyList<Turn> prompt)
    {
        int[] ids = WholePrompt(prompt);
        if (ids.Length <= MaxPromptTokens)
            return ids;
        return ids[0] == _tokenizer.StartId ? [ids[0], .. ids[^(MaxPromptTokens - 1)..]] : ids[^MaxPromptTokens..];
    }

    /// <summary>The rendered prompt, however long, after the token that the model's texts begin with, where they do; never empty.</summary>
    public int[] WholePrompt(IReadOnlyList<Turn> prompt)
    {
        int[] ids = ChatTemplate.Encode(prompt, _template, _tokenizer);
        if (_tokenizer.StartId is { } start && ids.FirstOrDefault(-1) != start)
            ids = [start, .. ids];
        return ids.Length > 0 ? ids : [_tokenizer.EosId]; // an empty plain prompt: what a document begins after
    }

    /// <summary>
    /// The completion and the end token. One that is longer than the limit is cut and has no end token: a model must not learn to stop
    /// in the middle of a sentence.
    /// </summary>
    public int[] Completion(string completion)
    {
        int[] ids = _tokenizer.EncodeContinuation(ChatTemplate.Continuation(completion, _template));
        return ids.Length <= _maxCompletionTokens ? [.. ids, _tokenizer.EosId] : ids[.._maxCompletionTokens];
    }

    /// <summary>The text of sampled tokens, without end token and outer white space.</summary>
    public string Text(ReadOnlySpan<int> completion) => AnswerText(_tokenizer, completion);

    /// <summary>The text of sampled tokens, without end token and outer white space.</summary>
    public static string AnswerText(ITokenizer tokenizer, ReadOnlySpan<int> completion) =>
        tokenizer.Decode(completion.EndsWith([tokenizer.EosId]) ? completion[..^1] : completion).Trim();

    /// <summary>Whether sampled tokens end by themselves.</summary>
    public bool Ended(ReadOnlySpan<int> completion) => completion.Length > 0 && completion[^1] == _tokenizer.EosId;

    public TokenizedDemonstration Demonstration(Row row) => new(row.Id, Prompt(row.Prompt), Completion(row.Completions[0]));

    public TokenizedPreference Preference(Row row) =>
        new(row.Id, row.Subset, Prompt(row.Prompt), [.. row.Completions.Select(Completion)], row.Ranks!);

    public TokenizedPrompt PromptOnly(Row row) => new(row.Id, Prompt(row.Prompt), row.Reference);

    /// <summary>A pretraining document, without end token.</summary>
    public int[] Document(Row row) => _tokenizer.Encode(row.Completions[0]);
}
