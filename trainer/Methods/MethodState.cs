namespace Rlhf.Trainer.Methods;

/// <summary>What a supervised method keeps beside tensors: all else follows from the step.</summary>
internal sealed record MethodState(int Step, int OptimizerSteps);
