using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Models;

/// <summary>
/// A model's weights in the number format of what they are multiplied with. In training the cast is part of the graph, so that gradients
/// arrive at the float32 weights and add up there; decoding, which would cast all weights for every token, holds the casts meanwhile.
/// </summary>
internal sealed class CastWeights
{
    private Dictionary<Parameter, Tensor>? held;

    /// <summary>The weight as <paramref name="type"/>; itself where it is that already.</summary>
    public Tensor Of(Parameter weight, ScalarType type)
    {
        if (weight.dtype == type) return weight;
        if (held is null) return weight.to(type);
        if (!held.TryGetValue(weight, out Tensor? cast)) held[weight] = cast = weight.to(type).DetachFromDisposeScope();
        return cast;
    }

    /// <summary>Makes each cast once until the result is disposed of. The weights must not change meanwhile. Not for training.</summary>
    public IDisposable Hold()
    {
        held = new Dictionary<Parameter, Tensor>(ReferenceEqualityComparer.Instance);
        return new Holding(this);
    }

    private sealed class Holding(CastWeights owner) : IDisposable
    {
        public void Dispose()
        {
            if (owner.held is not { } casts) return;
            owner.held = null;
            foreach (Tensor cast in casts.Values) cast.Dispose();
        }
    }
}
