namespace Rlhf.Trainer.Tokenizers;

/// <summary>Text to token ids and back. Implementations may be used by several threads at once.</summary>
public interface ITokenizer
{
    /// <summary>Ids run from 0 to this, exclusively; added tokens count.</summary>
    int VocabularySize { get; }

    /// <summary>The token that ends a text.</summary>
    int EosId { get; }

    /// <summary>The token that fills up a batch. It is never <see cref="EosId"/>: a model must be able to learn where to stop.</summary>
    int PadId { get; }

    /// <summary>The token that a text begins with, where the model was trained so; no encoding adds it by itself. Null where none does.</summary>
    int? StartId => null;

    /// <summary>The model came without a padding token of its own; <see cref="PadId"/> was added behind its vocabulary.</summary>
    bool PadIsNew => false;

    /// <summary>
    /// The ids of a text; no token is added before or after it. Special tokens written in the text (such as &lt;|endoftext|&gt;) are
    /// ordinary characters unless <paramref name="allowSpecial"/>, because text of users must not be able to end a turn.
    /// </summary>
    int[] Encode(string text, bool allowSpecial = false);

    /// <summary>
    /// The ids of a text that goes on another: without the space that some tokenizers put before a text's first word. Special tokens
    /// written in it are ordinary characters.
    /// </summary>
    int[] EncodeContinuation(string text) => Encode(text);

    /// <summary>The text of the ids; special tokens appear by their names, bytes that are no UTF-8 as U+FFFD.</summary>
    string Decode(ReadOnlySpan<int> ids);

    /// <summary>The id of a token by its name, such as a special token; null if there is none.</summary>
    int? IdOf(string token);

    /// <summary>Writes the files from which Hugging Face's tokenizer classes load this tokenizer.</summary>
    void Save(string directory);
}
