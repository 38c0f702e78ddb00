using Rlhf.Local.Tests;
using Xunit.MicrosoftTestingPlatform;
using Xunit.Runner.InProc.SystemConsole;

// The test runner, as xunit.v3 would generate it; or, when told so, a host that lives until it is killed.
if (args is [CrashHost.Command, var folder]) return await CrashHost.RunAsync(folder);
return args.Contains("--server") || args.Contains("--internal-msbuild-node")
    ? await TestPlatformTestFramework.RunAsync(args, SelfRegisteredExtensions.AddSelfRegisteredExtensions)
    : await ConsoleRunner.Run(args);
