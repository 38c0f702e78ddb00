using System.Globalization;
using Microsoft.Extensions.Configuration;

namespace Rlhf.Functions.Timers;

/// <summary>The settings of retraining (<c>Retrain__MinRows</c> and so on); the schedule is read by the trigger itself.</summary>
/// <param name="MinRows">New feedback rows that are worth a run.</param>
/// <param name="Spec">The blob with the base spec; null turns retraining off.</param>
/// <param name="Model">The model that feedback without a name belongs to.</param>
/// <param name="Settle">Feedback younger than this waits for the next tick, so that the clocks of two hosts may differ by as much.</param>
public sealed record RetrainSettings(int MinRows, string? Spec, string? Model, TimeSpan Settle)
{
    private const int DefaultMinRows = 500;
    private const double DefaultSettleSeconds = 5;

    /// <exception cref="InvalidOperationException">A setting is no number, or out of range.</exception>
    internal static RetrainSettings From(IConfiguration configuration)
    {
        double minRows = Number(configuration, "MinRows", 1, int.MaxValue, DefaultMinRows);
        double settle = Number(configuration, "SettleSeconds", 0, 86_400, DefaultSettleSeconds);
        return new RetrainSettings((int)minRows, Text(configuration, "Spec"), Text(configuration, "Model"), TimeSpan.FromSeconds(settle));
    }

    private static string? Text(IConfiguration configuration, string name) =>
        configuration[$"Retrain:{name}"] is { Length: > 0 } text ? text : null;

    private static double Number(IConfiguration configuration, string name, double least, double most, double otherwise)
    {
        if (Text(configuration, name) is not { } text)
            return otherwise;
        return double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double value) && value >= least && value <= most
            ? value
            : throw new InvalidOperationException($"The setting Retrain__{name} is '{text}'; it must be a number from {least} to {most}.");
    }
}
