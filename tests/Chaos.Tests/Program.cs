using Rlhf.Chaos.Tests;
using Xunit.MicrosoftTestingPlatform;
using Xunit.Runner.InProc.SystemConsole;

// The test runner, as xunit.v3 would generate it; or, when told so, the function app's host, which lives until it is killed.
if (args is [FunctionHost.Command, var folder])
    return await FunctionHost.RunAsync(folder);
return args.Contains("--server") || args.Contains("--internal-msbuild-node")
    ? await TestPlatformTestFramework.RunAsync(args, SelfRegisteredExtensions.AddSelfRegisteredExtensions)
    : await ConsoleRunner.Run(args);
