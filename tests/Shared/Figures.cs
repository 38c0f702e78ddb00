namespace Rlhf.Tests;

/// <summary>
/// What campaigns counted and measured, for people: a line each in the file that <c>RLHF_FIGURES</c> names (CI prints it at its end), and
/// in the test's own diagnostics.
/// </summary>
internal static class Figures
{
    private static readonly Lock Writing = new();

    public static void Report(string line)
    {
        Xunit.TestContext.Current.SendDiagnosticMessage(line);
        if (Environment.GetEnvironmentVariable("RLHF_FIGURES") is not { Length: > 0 } file)
            return;
        lock (Writing)
            File.AppendAllText(file, line + "\n");
    }
}
