using static TorchSharp.torch;

namespace Rlhf.Trainer.Models;

/// <summary>
/// One forward and backward pass through a model. With gradient checkpointing (Chen et al. 2016) the graph is cut before every block:
/// the forward pass keeps what enters a block and nothing within it, and the backward pass computes each block once more.
/// </summary>
/// <remarks>
/// TorchSharp has no torch.utils.checkpoint. A custom autograd function would run managed code below native frames, where an
/// out-of-memory exception ends the process instead of halving the micro-batch; so the backward pass is driven from out here.
/// The same operations run on the same numbers: on the CPU gradients are equal to the last bit. Only a tied embedding that takes part in
/// several forward passes (micro-batches, a second loss term) has its shares added in another order.
/// </remarks>
public sealed class GradientPass : IDisposable
{
    private readonly List<(Func<Tensor> Before, Tensor After)> cuts = [];
    private readonly List<Tensor> kept = [];
    private readonly Action ended;

    internal GradientPass(Action ended) => this.ended = ended;

    /// <summary>
    /// Back-propagates a loss made of this pass's forward passes; gradients are added to those of the weights. Once per pass.
    /// </summary>
    public void Backward(Tensor loss)
    {
        loss.backward();
        for (int i = cuts.Count - 1; i >= 0; i--)
        {
            using var scope = NewDisposeScope();
            (Func<Tensor> before, Tensor after) = cuts[i];
            if (after.grad is { } gradient)
            {
                // Below the first adapter of a model whose weights are frozen there is nothing to learn.
                Tensor again = before();
                if (again.requires_grad) again.backward([gradient]);
            }

            // What lies behind the cut is done with: its gradient and its input go before the next block is computed.
            after.Dispose();
        }

        cuts.Clear();
    }

    /// <summary>Ends the pass and lets go of what it has kept.</summary>
    public void Dispose()
    {
        ended();
        foreach ((_, Tensor after) in cuts) after.Dispose();
        foreach (Tensor tensor in kept) tensor.Dispose();
    }

    /// <summary>
    /// Cuts the graph: returns a leaf with the numbers of <paramref name="value"/>, in whose place <paramref name="before"/> gives them
    /// with their graph when the backward pass comes to it.
    /// </summary>
    internal Tensor Cut(Func<Tensor> before, Tensor value)
    {
        Tensor after = value.detach().DetachFromDisposeScope().requires_grad_();
        cuts.Add((before, after));
        return after;
    }

    /// <summary>Keeps a tensor until the pass ends, whatever dispose scope it was made in.</summary>
    internal Tensor Keep(Tensor tensor)
    {
        kept.Add(tensor.DetachFromDisposeScope());
        return tensor;
    }
}
