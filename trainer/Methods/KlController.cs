namespace Rlhf.Trainer.Methods;

/// <summary>
/// The coefficient β of the KL penalty. Fixed where <see cref="Target"/> is null, else adapted towards a target KL per sequence (Ziegler et
/// al. 2019, section 2.2). A value: the checkpoint stores it whole, so that a resumed run goes on with the β it had.
/// </summary>
/// <param name="Coefficient">β as it is now.</param>
/// <param name="Target">KL in nats per whole sequence (6 in the paper), or null for a fixed β. Per-token KL would break the
/// constants.</param>
/// <param name="Horizon">Sequences over which β may move by a factor of about e^0.2.</param>
public sealed record KlController(double Coefficient, double? Target = null, double Horizon = 10_000)
{
    /// <summary>Largest relative error that one update acts on.</summary>
    public const double MaxError = 0.2;

    /// <summary>The proportional error clip(KL / target - 1, ±0.2) that the next update acts on; 0 for a fixed β.</summary>
    public double Error(double klPerSequence) =>
        Target is { } target ? Math.Clamp(klPerSequence / target - 1, -MaxError, MaxError) : 0;

    /// <summary>The controller after a batch of <paramref name="sequences"/> with mean KL <paramref name="klPerSequence"/>.</summary>
    public KlController Updated(double klPerSequence, int sequences) =>
        Target is null ? this : this with { Coefficient = Coefficient * (1 + Error(klPerSequence) * sequences / Horizon) };
}
