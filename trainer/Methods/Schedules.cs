using Rlhf.Spec;

namespace Rlhf.Trainer.Methods;

/// <summary>
/// Learning-rate schedules as factors of the base rate. <c>step</c> counts optimizer steps from 0; during warm-up the factor is
/// step / warmupSteps, so the very first of them moves nothing (as in Hugging Face's schedules).
/// </summary>
public static class Schedules
{
    /// <summary>Half a cosine from 1 down to <paramref name="floor"/> (InstructGPT: 0.1) at <paramref name="totalSteps"/>, the floor after
    /// it.</summary>
    public static double Cosine(int step, int warmupSteps, int totalSteps, double floor = 0)
    {
        if (step < warmupSteps)
            return Warmup(step, warmupSteps);
        double cosine = 0.5 * (1 + Math.Cos(Math.PI * Progress(step, warmupSteps, totalSteps)));
        return floor + (1 - floor) * cosine;
    }

    /// <summary>A straight line from 1 down to <paramref name="floor"/> at <paramref name="totalSteps"/>, the floor after it.</summary>
    public static double Linear(int step, int warmupSteps, int totalSteps, double floor = 0) =>
        step < warmupSteps ? Warmup(step, warmupSteps) : floor + (1 - floor) * (1 - Progress(step, warmupSteps, totalSteps));

    /// <summary>1 after the warm-up.</summary>
    public static double Constant(int step, int warmupSteps) => step < warmupSteps ? Warmup(step, warmupSteps) : 1;

    /// <summary>The learning rate of a step of a stage.</summary>
    public static double LearningRate(OptimizationSpec spec, int step, int totalSteps)
    {
        int warmupSteps = (int)Math.Round(spec.WarmupFraction * totalSteps);
        double factor = spec.Schedule switch
        {
            ScheduleKind.Constant => Constant(step, warmupSteps),
            ScheduleKind.Linear => Linear(step, warmupSteps, totalSteps, spec.FinalLearningRateFraction),
            _ => Cosine(step, warmupSteps, totalSteps, spec.FinalLearningRateFraction),
        };
        return spec.LearningRate * factor;
    }

    private static double Warmup(int step, int warmupSteps) => (double)step / warmupSteps;

    private static double Progress(int step, int warmupSteps, int totalSteps) =>
        Math.Clamp((double)(step - warmupSteps) / Math.Max(1, totalSteps - warmupSteps), 0, 1);
}
