using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using FsCheck;
using FsCheck.Fluent;
using Rlhf.Report;
using Rlhf.Spec;
using Xunit;

namespace Rlhf.Shared.Tests.Report;

public sealed partial class ReportPageTests
{
    private const string Attack = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;";

    [Fact]
    public void A_full_report_has_every_section_and_a_table_behind_every_chart()
    {
        XElement page = Parse(ReportPage.Render(SampleReport.Succeeded()));

        Assert.Equal(
            [
                "evaluation", "curve", "reward-model", "wins", "language", "comparisons", "refusals", "samples", "run", "data", "lineage", "spec",
            ],
            page.Descendants("section").Attributes("id").Select(id => id.Value));
        foreach (XElement section in page.Descendants("section").Where(section => section.Attribute("id") is not null && section.Descendants("svg").Any()))
            Assert.NotEmpty(section.Descendants("table"));
        Assert.Equal("Alignment raised the gold reward from −0.62 to 0.56", page.Descendants("h1").Single().Value);
        Assert.Contains("Decided by ana@example.org", page.Descendants("header").Single().Value, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_chart_is_described_for_those_who_do_not_see_it()
    {
        XElement[] charts = [.. Parse(ReportPage.Render(SampleReport.Succeeded())).Descendants("svg")];

        Assert.True(charts.Length > 10);
        foreach (XElement chart in charts)
        {
            Assert.Equal("img", chart.Attribute("role")!.Value);
            Assert.NotEmpty(chart.Element("title")!.Value);
            Assert.NotEmpty(chart.Element("desc")!.Value);
            Assert.Equal(chart.Attribute("aria-labelledby")!.Value, chart.Element("title")!.Attribute("id")!.Value);
        }

        string[] ids = [.. charts[0].AncestorsAndSelf().Last().Descendants().Attributes("id").Select(id => id.Value)];
        Assert.Equal(ids.Distinct(), ids);
    }

    [Fact]
    public void The_page_asks_nothing_of_the_network_and_runs_no_script()
    {
        string page = ReportPage.Render(SampleReport.Succeeded());

        Assert.DoesNotMatch("(?i)<script|https?://|url\\(|@import|src=|<link", page);
        Assert.Contains("default-src 'none'", page, StringComparison.Ordinal);
    }

    [Fact]
    public void A_run_that_failed_leaves_a_sensible_page()
    {
        XElement page = Parse(ReportPage.Render(SampleReport.Failed()));

        Assert.Equal("The run failed in the reward stage", page.Descendants("h1").Single().Value);
        Assert.Equal(["run", "spec"], page.Descendants("section").Attributes("id").Select(id => id.Value));
        Assert.Contains("Lower reward.learningRate", page.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void Figures_of_the_evaluation_are_shown_with_counts_and_intervals()
    {
        XElement page = Parse(ReportPage.Render(SampleReport.Succeeded()));

        Assert.Contains("20 of 250 refused", Words(page, "refusals"), StringComparison.Ordinal);
        Assert.Contains("(0.08 ± 0.03)", Words(page, "refusals"), StringComparison.Ordinal);
        Assert.Contains("held-out reward model 0.68 ± 0.05 400", Words(page, "wins"), StringComparison.Ordinal);
        Assert.Contains("PPO 1.31 ± 0.05 3.71 ± 0.19 5120", Words(page, "language"), StringComparison.Ordinal);
        Assert.Contains("reward model reward 0.66 ± 0.12 0.62 ± 0.24", Words(page, "comparisons"), StringComparison.Ordinal);
        Assert.Contains("all (n 60) honest (n 13)", Words(page, "comparisons"), StringComparison.Ordinal);
        Assert.Contains("answerable +8.0 ± 4.0 points", page.Value, StringComparison.Ordinal);
        Assert.Contains("By the held-out reward model, PPO beats SFT: it wins 68.0% (± 5.0) of 400 prompts.", page.Value, StringComparison.Ordinal);
        Assert.Contains("PPO, gold r₀ + d (α − β log d) 8", Words(page, "curve"), StringComparison.Ordinal);

        static string Words(XElement page, string section) => Regex.Replace(
            string.Join(' ', page.Descendants("section").Single(part => part.Attribute("id")?.Value == section).DescendantNodes().OfType<XText>().Select(text => text.Value)),
            "\\s+", " ");
    }

    [Fact]
    public void Too_few_points_are_said_and_not_fitted()
    {
        RunReport full = SampleReport.Succeeded();
        CurvePoint[] three = [.. full.Curve.Take(3)];

        string page = ReportPage.Render(full with { Curve = three, Fits = GaoFit.All(three, []) });

        Assert.Contains("Gao’s forms are not fitted: PPO has 3 points, and a fit takes 4; best of n has 3 points, and a fit takes 4.", page, StringComparison.Ordinal);
    }

    [Fact]
    public void The_sum_of_rewards_is_named_by_its_sources()
    {
        RunReport full = SampleReport.Succeeded();
        XElement page = Parse(ReportPage.Render(full with
        {
            Spec = full.Spec with
            {
                Rewards = [new RewardSourceSpec { Source = RewardSourceKind.Model }, new RewardSourceSpec { Source = RewardSourceKind.Length, Name = "brief", Weight = 0.25 }],
            },
        }));

        Assert.Contains("The proxy is the weighted sum of model, 0.25 × brief, which PPO is trained on;", page.Value, StringComparison.Ordinal);
        Assert.Contains("proxy reward (sum of the run’s rewards)", page.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void A_method_that_scores_nothing_is_not_said_to_be_trained_on_the_reward_model()
    {
        RunReport full = SampleReport.Succeeded();
        EvaluationReport evaluation = full.Evaluation!;
        XElement page = Parse(ReportPage.Render(full with
        {
            Spec = full.Spec with { Method = PreferenceMethod.Dpo },
            Curve = [new CurvePoint("dpo 100", 100, 2.1, 0.9, 0.5)],
            Fits = [],
            Evaluation = evaluation with
            {
                Table = [.. evaluation.Table.Where(row => row.Metric != "win_rate").Select(row => row.Model == "ppo" ? row with { Model = "dpo" } : row)],
            },
        }));

        Assert.DoesNotContain("trained on sees", page.Value, StringComparison.Ordinal);
        Assert.DoesNotContain("other preferences", page.Value, StringComparison.Ordinal);
        Assert.DoesNotContain("1 points", page.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void Data_sets_are_named_in_words_and_attempts_are_told_from_slices()
    {
        RunReport full = SampleReport.Succeeded();
        XElement page = Parse(ReportPage.Render(full with
        {
            Data = full.Data! with { Rows = new Dictionary<string, int> { ["preferences.unseenLabellers"] = 651, ["fewShot.train"] = 6 } },
            Stages =
            [
                new StageReport("pretrain", StageStates.Skipped, 0, 0, 0, new Dictionary<string, double>(), []),
                new StageReport("rloo", StageStates.Succeeded, 58, 55, 4, new Dictionary<string, double>(), []),
            ],
        }));

        Assert.Contains("unseen labellers", page.Value, StringComparison.Ordinal);
        Assert.Contains("few shot", page.Value, StringComparison.Ordinal);
        XElement[] stages = [.. page.Descendants("section").Single(section => section.Attribute("id")?.Value == "run").Descendants("tr").Skip(1).Take(2)];
        Assert.Equal(["skipped", "–", "–", "–", "–"], stages[0].Elements("td").Select(cell => cell.Value.Trim()));
        Assert.Equal("4, one a slice", stages[1].Elements("td").Last().Value.Trim());
    }

    [Fact]
    public void A_run_without_a_judge_is_reported_by_its_proxy()
    {
        RunReport full = SampleReport.Succeeded();
        XElement page = Parse(ReportPage.Render(full with
        {
            Evaluation = full.Evaluation! with
            {
                Table = [.. full.Evaluation.Table.Where(row => row.Metric is "proxy_reward" or "kl")],
                BestOfN = [.. full.Evaluation.BestOfN.Select(point => point with { GoldReward = null })],
                RewardModel = [],
            },
            Curve = [.. full.Curve.Select(point => point with { GoldReward = null, GoldCi95 = null })],
        }));

        Assert.Equal("Alignment raised the proxy reward from −1.41 to 1.22", page.Descendants("h1").Single().Value);
        Assert.DoesNotContain("gold peaks", page.Value, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Every_text_from_outside_is_escaped(bool keepNames)
    {
        JsonNode report = JsonSerializer.SerializeToNode(SampleReport.Succeeded(), RlhfJson.Compact)!;
        string[] kept = ["pressure", .. keepNames ? new[] { "model", "metric", "state", "name" } : []];
        JsonNode attacked = Attacked(report, kept);
        attacked["spec"] = report["spec"]!.DeepClone();
        attacked["spec"]!["name"] = Attack;

        string page = ReportPage.Render(attacked.Deserialize<RunReport>(RlhfJson.Compact)!);

        Assert.DoesNotContain("<script", page, StringComparison.Ordinal);
        Assert.DoesNotContain("<img", page, StringComparison.Ordinal);
        Assert.Empty(Parse(page).Descendants("script").Concat(Parse(page).Descendants("img")));
        Assert.Contains("&lt;script&gt;alert(1)", page, StringComparison.Ordinal);
    }

    [Fact]
    public void Odd_numbers_draw_no_nonsense()
    {
        Gen<double> number = Gen.Frequency(
            (6, ArbMap.Default.GeneratorFor<double>()), (2, Gen.Choose(-100, 100).Select(n => n / 50.0)), (1, Gen.Elements(double.NaN, double.PositiveInfinity, 0.0, double.MaxValue, double.Epsilon)));
        Gen<CurvePoint> point =
            from numbers in number.ArrayOf(5)
            from step in Gen.Choose(0, 100)
            from gold in Gen.Elements(true, false)
            select new CurvePoint("p", step, numbers[0], numbers[1], gold ? numbers[2] : null) { ProxyCi95 = numbers[3], GoldCi95 = numbers[4] };
        Gen<RunReport> reports =
            from curve in point.ListOf()
            from bestOfN in point.ListOf()
            from values in number.ArrayOf(12)
            let full = SampleReport.Succeeded()
            select full with
            {
                Curve = [.. curve],
                Evaluation = full.Evaluation! with
                {
                    BestOfN = [.. bestOfN],
                    Table = [.. full.Evaluation.Table.Select((row, index) => row with { Value = values[index % 12], Ci95 = values[index % 5] })],
                    RewardModel = [.. full.Evaluation.RewardModel.Select((row, index) => row with { Value = values[index % 12] })],
                },
                Stages = [.. full.Stages.Select((stage, index) => stage with { Seconds = index % 2 == 0 ? 0 : 1e-9 * index, GpuSeconds = 1e7 * index })],
            };

        Prop.ForAll(reports.ToArbitrary(), report =>
        {
            string page = ReportPage.Render(report);
            return Parse(page).Descendants().Attributes().All(attribute => !NotANumber().IsMatch(attribute.Value));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(40));
    }

    [Theory]
    [InlineData(-0.001, "0.00")]
    [InlineData(-0.126, "−0.13")]
    [InlineData(1234.5, "1234.50")]
    [InlineData(double.NaN, "n/a")]
    public void Figures_have_two_decimals_and_a_real_minus(double value, string text) => Assert.Equal(text, Charts.Number(value));

    [GeneratedRegex("NaN|Infinity|∞")]
    private static partial Regex NotANumber();

    /// <summary>The page as XML: fails on markup that is not balanced.</summary>
    private static XElement Parse(string page) =>
        XDocument.Parse(Regex.Replace(page.Replace("<!doctype html>", "", StringComparison.Ordinal), "(<meta [^>]*)>", "$1/>")).Root!;

    private static JsonNode Attacked(JsonNode node, string[] kept) => node switch
    {
        JsonObject members => new JsonObject(members.Select(member => KeyValuePair.Create(
            member.Key, member.Value is null || kept.Contains(member.Key) ? member.Value?.DeepClone() : Attacked(member.Value, kept)))),
        JsonArray items => new JsonArray([.. items.Select(item => Attacked(item!, kept))]),
        JsonValue value when value.GetValueKind() == JsonValueKind.String => JsonValue.Create(Attack),
        _ => node.DeepClone(),
    };
}
