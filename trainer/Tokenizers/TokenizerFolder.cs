namespace Rlhf.Trainer.Tokenizers;

/// <summary>The tokenizer of a Hugging Face folder, whatever its kind.</summary>
public static class TokenizerFolder
{
    /// <summary>
    /// Loads <c>tokenizer.model</c> where it is a SentencePiece model (the tokenizer.json beside it says the same), else
    /// <c>tokenizer.json</c>, else <c>vocab.json</c> with <c>merges.txt</c>.
    /// </summary>
    /// <exception cref="Models.ModelFormatException">The folder holds no tokenizer, or one of a kind that is not supported.</exception>
    public static ITokenizer Load(string directory)
    {
        string model = Path.Combine(directory, "tokenizer.model");
        return File.Exists(model) && SentencePieceModel.IsOne(model) ? SentencePieceTokenizer.Load(directory) : ByteLevelBpe.Load(directory);
    }
}
