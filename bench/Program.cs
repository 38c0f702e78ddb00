using Rlhf.Bench;
using Rlhf.Trainer.Native;

ModelSize[] sizes = [.. ModelSize.All.Where(size => args.Contains(size.Name))];
if (sizes.Length == 0) sizes = ModelSize.All;
string[] parts = [.. args.Except(ModelSize.All.Select(size => size.Name))];
if (parts is [] or ["all"]) parts = ["train", "sample", "ppo"];
Dictionary<string, Action<TextWriter, ModelSize[]>> known = new()
{
    ["train"] = Training.Run,
    ["sample"] = Sampling.Run,
    ["ppo"] = PpoIteration.Run,
    ["micro"] = (_, _) => Micro.Run(),
};
if (parts.FirstOrDefault(part => !known.ContainsKey(part)) is { } unknown)
{
    string sized = string.Join(", ", ModelSize.All.Select(size => size.Name));
    Console.Error.WriteLine($"error: '{unknown}' is no benchmark; there are {string.Join(", ", known.Keys)} and all; sizes are {sized}.");
    return 1;
}

try
{
    TorchNative.Require();
}
catch (TorchNativeException e)
{
    Console.Error.WriteLine($"error: {e.Message}");
    return 1;
}

Console.WriteLine($"# Benchmarks\n\n`dotnet run -c Release --project bench -- {string.Join(' ', args)}`\n\n{Machine.Describe()}");
foreach (string part in parts) known[part](Console.Out, sizes);
return 0;
