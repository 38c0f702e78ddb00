using Rlhf.Trainer.Native;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Divides the rows of an optimizer step into passes that fit into memory. The gradients of the passes add up, so a pass must divide its
/// loss by what the whole step counts (tokens, pairs), never by its own share: then the sum is the gradient of the undivided step.
/// </summary>
/// <remarks>
/// A pass that runs out of memory is not the end: the size is halved and all passes of the step are repeated. The size found stays, and a
/// resumed attempt finds it anew. Other sizes round differently, so a run in which that happened is not repeatable byte for byte.
/// </remarks>
/// <param name="size">Rows of a pass at most; null takes all rows at once.</param>
internal sealed class MicroBatches(int? size)
{
    /// <summary>Rows of a pass at most; null where steps are not divided.</summary>
    public int? Size { get; private set; } = size;

    /// <summary>Runs the passes over rows 0 to <paramref name="rows"/> - 1, in order.</summary>
    /// <param name="rows">Rows of the step.</param>
    /// <param name="pass">Takes the rows of one pass.</param>
    /// <param name="startOver">Called before the first pass, and again wherever a smaller size starts from the first row.</param>
    public void Run(int rows, Action<Range> pass, Action? startOver = null)
    {
        while (true)
        {
            int largest = Math.Min(Size ?? rows, rows);
            try
            {
                startOver?.Invoke();
                for (int first = 0; first < rows; first += largest)
                    pass(first..Math.Min(first + largest, rows));
                return;
            }
            catch (Exception e) when (largest > 1 && OutOfMemory.Is(e))
            {
                Size = (largest + 1) / 2;
            }
        }
    }

    /// <summary>Adds the size to a step's metrics where steps are divided.</summary>
    public Dictionary<string, double> Report(Dictionary<string, double> metrics)
    {
        if (Size is { } rows)
            metrics["micro_batch_size"] = rows;
        return metrics;
    }
}
