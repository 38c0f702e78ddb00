using System.Text.Json;
using Rlhf.Report;

namespace Rlhf.Tests;

/// <summary>What two runs of one spec and seed have in common, however often they were interrupted.</summary>
internal static class RunFingerprint
{
    /// <summary>Everything of a report that the seed fixes: weights and numbers, no clocks and no names.</summary>
    public static string Of(RunReport report) => JsonSerializer.Serialize(
        new
        {
            report.State,
            Models = report.Models.ToDictionary(model => model.Key, model => model.Value.Sha256),
            Metrics = report.Stages.ToDictionary(stage => stage.Name, stage => stage.Metrics),
            report.Evaluation,
            report.Curve,
            report.Data,
        },
        RlhfJson.Indented);
}
