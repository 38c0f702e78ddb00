using Rlhf.Trainer.Data;
using Rlhf.Trainer.Models;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// A method as the job worker sees it: steps that it can be stopped between. Everything the next step depends on is in what
/// <see cref="Save"/> writes, so that an interrupted and an uninterrupted run end in the same weights, byte for byte.
/// </summary>
public interface ITrainingMethod : IDisposable
{
    /// <summary>Steps done (online methods: iterations).</summary>
    int Step { get; }

    /// <summary>Steps of the whole method.</summary>
    int TotalSteps { get; }

    /// <summary>Does the next step and says what it measured, by the names of the metric contract.</summary>
    /// <exception cref="DivergedException">A loss, a gradient or a weight is no longer finite.</exception>
    IReadOnlyDictionary<string, double> Advance();

    /// <summary>Writes everything that the next step depends on.</summary>
    void Save(ICheckpointWriter checkpoint);

    /// <summary>Takes over what <see cref="Save"/> wrote. Called at most once, before the first step.</summary>
    void Load(ICheckpointReader checkpoint);

    /// <summary>The method's figures up to now, for the report and the gates. Free of clocks.</summary>
    IReadOnlyDictionary<string, double> Summary();
}

/// <summary>A method that moves the SFT model towards the preferences; its policy is what the run is for.</summary>
public interface IPolicyMethod : ITrainingMethod
{
    /// <summary>The policy as it is now.</summary>
    Transformer Policy { get; }

    /// <summary>Answers held-out prompts with the policy as it is now.</summary>
    ValidationAnswers Validate(IReadOnlyList<TokenizedPrompt> validation);
}

/// <summary>Takes the parts of one checkpoint. Names are unique; the same content gives the same bytes.</summary>
public interface ICheckpointWriter
{
    /// <summary>Writes tensors as one safetensors part; they are copied before the call returns.</summary>
    void WriteTensors(string part, IEnumerable<(string Name, Tensor Value)> tensors);

    /// <summary>Writes a small state (counters, controllers, moments) as one JSON part.</summary>
    void WriteState<T>(string part, T state)
        where T : class;
}

/// <summary>Gives back the parts of one checkpoint, each verified against its sum.</summary>
public interface ICheckpointReader
{
    /// <summary>The tensors of a part on the CPU; the caller disposes them (or reads inside a dispose scope).</summary>
    /// <exception cref="CheckpointMismatchException">The checkpoint has no such part.</exception>
    IReadOnlyDictionary<string, Tensor> ReadTensors(string part);

    /// <summary>The state of a part.</summary>
    /// <exception cref="CheckpointMismatchException">The checkpoint has no such part, or it holds something else.</exception>
    T ReadState<T>(string part)
        where T : class;
}

/// <summary>An intact checkpoint that does not belong to this method or spec. Starting over silently would hide it.</summary>
public sealed class CheckpointMismatchException(string part, string why, Exception? inner = null)
    : Exception($"The checkpoint part '{part}' does not fit: {why}.", inner);

/// <summary>The computation left the finite numbers.</summary>
public sealed class DivergedException(string message) : Exception(message);
