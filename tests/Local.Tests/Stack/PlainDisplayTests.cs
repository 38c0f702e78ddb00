using Rlhf.Local.Commands;
using Xunit;

namespace Rlhf.Local.Tests.Stack;

public sealed class PlainDisplayTests
{
    [Fact]
    public void A_stage_is_told_with_what_it_has_time_and_attempts_or_neither()
    {
        var output = new StringWriter();
        var display = new PlainDisplay(output);
        display.Show(Run(new StageView("data", "running", 0, 0.5)));
        display.Show(Run(
            new StageView("data", "succeeded", 0, 4.4), new StageView("pretrain", "skipped", 0, 0), new StageView("sft", "succeeded", 2, 51.52),
            new StageView("reward", "pending", 0, 0)));

        Assert.Equal(
            ["data: started", "data: succeeded after 4.4 s", "pretrain: skipped", "sft: succeeded after 51.5 s, attempts 2"],
            output.ToString().Split(Environment.NewLine, StringSplitOptions.RemoveEmptyEntries));
    }

    private static RunView Run(params StageView[] stages) => new() { RunId = "one", Name = "one", State = RunStates.Running, Stages = stages };
}
