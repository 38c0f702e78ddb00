using Rlhf.Report;
using Rlhf.Spec;
using Xunit;

namespace Rlhf.Shared.Tests.Report;

public sealed class FindingsTests
{
    [Fact]
    public void Gold_that_falls_beyond_its_interval_while_the_proxy_rises_is_over_optimisation()
    {
        OverOptimisation over = Findings.FindOverOptimisation(Curve((0, 0, 0), (1, .4, .3), (2, .6, .5), (3, .9, .2)))!;

        Assert.Equal((2, 4.0, 3), (over.Peak.Step, over.Peak.Kl, over.Last.Step));
    }

    [Theory]
    [InlineData(0.50, 0.6, 0.9)] // still rising
    [InlineData(0.44, 0.5, 0.9)] // falls within the interval of the difference, .1 * sqrt 2
    [InlineData(0.20, 0.5, 0.5)] // the proxy falls too: divergence, not over-optimisation
    public void Anything_else_is_not(double lastGold, double peakGold, double lastProxy)
    {
        Assert.Null(Findings.FindOverOptimisation(Curve((0, 0, 0), (1, .3, .3), (2, .6, peakGold == 0.6 ? 0.4 : peakGold), (3, lastProxy, lastGold))));
    }

    [Fact]
    public void Without_a_judge_or_with_one_point_nothing_is_claimed()
    {
        Assert.Null(Findings.FindOverOptimisation([.. Curve((0, 0, 1), (1, .9, 0)).Select(point => point with { GoldReward = null })]));
        Assert.Null(Findings.FindOverOptimisation(Curve((1, 1, 1))));
        Assert.Null(Findings.FindOverOptimisation([]));
    }

    [Fact]
    public void Points_come_in_any_order()
    {
        CurvePoint[] curve = Curve((0, 0, 0), (1, .4, .6), (2, .9, .1));

        Assert.Equal(Findings.FindOverOptimisation(curve), Findings.FindOverOptimisation([.. curve.Reverse()]));
    }

    [Theory]
    [InlineData(0.2, 0.5, Change.Higher)]
    [InlineData(0.5, 0.2, Change.Lower)]
    [InlineData(0.2, 0.39, Change.Unclear)]
    public void A_change_counts_when_the_intervals_are_disjoint(double before, double after, Change change) =>
        Assert.Equal(change, Findings.Compare(Row("sft", before), Row("ppo", after)));

    [Theory]
    [InlineData(0.0, 0.5, "Alignment raised the gold reward from −0.50 to 0.50")]
    [InlineData(0.5, 0.0, "PPO lowered the gold reward from 0.50 to 0.00")]
    [InlineData(0.4, 0.5, "PPO changed the gold reward too little to tell")]
    public void The_headline_says_what_the_intervals_bear(double sft, double ppo, string headline)
    {
        EvaluationReport evaluation = SampleReport.Evaluation() with { Table = [Row("base", -0.5), Row("sft", sft), Row("ppo", ppo)] };

        Assert.Equal(headline, Findings.Headline(SampleReport.Succeeded() with { Evaluation = evaluation }));
    }

    [Fact]
    public void The_summary_is_one_sentence()
    {
        Assert.Equal(
            "PPO raised the gold reward from 0.04 ± 0.06 (SFT) to 0.56 ± 0.05; over-optimisation set in after iteration 40 (KL 5.13); the model was not promoted.",
            Findings.Summary(PreferenceMethod.Ppo, SampleReport.Evaluation(), SampleReport.Curve(), new PromotionReport(false, "no approval came in 72 h", null, null)));
        Assert.Equal("The run succeeded.", Findings.Summary(PreferenceMethod.Ppo, null, [], null));
    }

    [Fact]
    public void A_run_that_ends_with_sft_is_told_by_its_loss()
    {
        EvaluationReport loss = SampleReport.Evaluation();
        loss = loss with { Table = [.. loss.Table.Where(row => row.Metric == "loss" && row.Model != "ppo")] };

        Assert.Equal(
            "SFT lowered the loss on held-out demonstrations from 2.41 ± 0.06 to 1.12 ± 0.04 nats per token.",
            Findings.Summary(PreferenceMethod.Ppo, loss, [], null));
        Assert.Equal(
            "SFT lowered the loss on held-out demonstrations from 2.41 to 1.12",
            Findings.Headline(SampleReport.Succeeded() with { Evaluation = loss }));
    }

    [Fact]
    public void The_sentences_cover_scores_best_of_n_over_optimisation_and_the_reward_model()
    {
        RunReport report = SampleReport.Succeeded();
        report = report with
        {
            Evaluation = report.Evaluation! with
            {
                Table = [.. report.Evaluation.Table.Select(row => row is { Model: "ppo", Metric: "honest" } ? row with { Value = 0.57 } : row)],
                Notes = ["A note of the evaluation's own."],
            },
        };

        Assert.Equal(
            [
                "From SFT to PPO, helpful and harmless rose; honest did not move beyond the 95% intervals.",
                "PPO is above best-of-16 sampling from SFT in gold reward: 0.56 ± 0.05 against 0.41 ± 0.05 (KL 9.92 against 1.84 nats).",
                "Over-optimisation: gold reward peaked after iteration 40 (KL 5.13 nats) at 0.62; by iteration 70 it fell to 0.50 while the proxy rose from 1.05 to 1.36.",
                "The reward model agrees with 74.5% of held-out preferences (± 3.5), where the labellers' own noise allows 79.0%; 'the longer one is better' would get 53.0%.",
                "Against a bag of words that learnt from the same rows, the reward model’s accuracy is: answerable +8.0 ± 4.0 points; unanswerable +3.0 ± 6.0 points; harmful +8.0 ± 7.0 points.",
                "By the held-out reward model, PPO beats SFT: it wins 68.0% (± 5.0) of 400 prompts.",
                "By the gold judge, PPO beats SFT: it wins 66.0% (± 4.0) of 400 prompts.",
                "A note of the evaluation's own.",
            ],
            Findings.Sentences(report));
        Assert.Empty(Findings.Sentences(SampleReport.Failed()));
    }

    [Fact]
    public void Of_many_subsets_only_those_that_differ_from_the_bag_of_words_are_told()
    {
        Assert.Contains(
            "the reward model’s accuracy is: overall +6.0 ± 3.0 points; a +13.0 ± 10.0 points; the other subsets do not differ beyond the interval.",
            Told(0.13), StringComparison.Ordinal);
        Assert.Contains("is: overall +6.0 ± 3.0 points; no subset differs beyond the interval.", Told(0.09), StringComparison.Ordinal);

        static string Told(double first)
        {
            RunReport report = SampleReport.Succeeded();
            string[] subsets = ["all", "a", "b", "c", "d", "e"];
            return Findings.Sentences(report with
            {
                Evaluation = report.Evaluation! with
                {
                    RewardModel =
                    [
                        .. subsets.Select(subset => new RewardModelRow(
                            subset, "above_bag_of_words", subset == "all" ? 0.06 : subset == "a" ? first : 0.02, 100, subset == "all" ? 0.03 : 0.1)),
                    ],
                },
            }).Single(sentence => sentence.StartsWith("Against a bag of words", StringComparison.Ordinal));
        }
    }

    private static EvaluationRow Row(string model, double value) => new(model, "gold_reward", value, 100, 0.1);

    private static CurvePoint[] Curve(params (int Step, double Proxy, double Gold)[] points) =>
        [.. points.Select(p => new CurvePoint($"ppo {p.Step}", p.Step, p.Step * p.Step, p.Proxy, p.Gold) { GoldCi95 = 0.1 })];
}
