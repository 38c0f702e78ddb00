using Rlhf.Spec;

namespace Rlhf.Rows.Flan;

/// <summary>A task with its examples and templates.</summary>
/// <param name="Name">What metrics call it.</param>
/// <param name="Spec">Its entry in the spec.</param>
/// <param name="Examples">Its examples.</param>
/// <param name="Templates">Its templates.</param>
public sealed record FlanTask(string Name, FlanTaskSpec Spec, IReadOnlyList<FlanExample> Examples, IReadOnlyList<FlanTemplate> Templates);

/// <summary>
/// Instruction tuning as FLAN does it (Wei et al. 2021): examples of several tasks, each put into words by one of its task's templates,
/// and a cluster of tasks that is held out whole. Each task keeps some examples for the evaluation; those of the held-out cluster keep
/// nothing else.
/// </summary>
public sealed record FlanMixture
{
    /// <summary>Training texts of the seen clusters: question and rationale, without options, templates or a marked answer.</summary>
    public required IReadOnlyList<Row> Text { get; init; }

    /// <summary>Filled templates with their targets.</summary>
    public required IReadOnlyList<Row> Demonstrations { get; init; }

    /// <summary>
    /// Filled classification templates with every option as a completion, the right one ranked first; subset "NAME, seen cluster" or
    /// "NAME, unseen cluster".
    /// </summary>
    public required IReadOnlyList<Row> Comparisons { get; init; }

    /// <summary>Mixes the tasks. The same seed gives the same rows in the same order.</summary>
    public static FlanMixture Of(FlanSpec spec, IReadOnlyList<FlanTask> tasks, long seed)
    {
        var text = new List<Row>();
        var demonstrations = new List<Row>();
        var comparisons = new List<Row>();
        foreach (FlanTask task in tasks)
        {
            bool seen = task.Spec.Cluster != spec.HeldOutCluster;
            // None twice, so that none is on both sides; some tasks ask the same of all options. In an order of the seed's, so that a cap
            // takes a fair sample.
            FlanExample[] distinct = [.. task.Examples.DistinctBy(example => string.Join('\n', [example.Question, .. example.Options]))];
            int[] order = Seeds.Permutation(distinct.Length, Seeds.For(seed, "data", 0, $"flan {task.Name}"));
            ulong draws = Seeds.For(seed, "data", 0, $"flan templates {task.Name}");
            FlanTemplate[] classification = [.. task.Templates.Where(template => template.IsClassification)];
            foreach ((int place, int index) in order.Index())
            {
                FlanExample example = distinct[index];
                double draw = Seeds.Uniform(draws, place, 0);
                if (place < spec.EvaluationExamples)
                    comparisons.Add(Comparison(example, Choose(classification), $"{task.Name}, {(seen ? "seen" : "unseen")} cluster"));
                else if (seen && place < spec.EvaluationExamples + spec.MaxExamplesPerTask)
                    Add(example, Choose(task.Templates), task.Name);
                else
                    break;

                FlanTemplate Choose(IReadOnlyList<FlanTemplate> templates) => templates[(int)(draw * templates.Count)];
            }
        }

        return new FlanMixture { Text = text, Demonstrations = demonstrations, Comparisons = comparisons };

        void Add(FlanExample example, FlanTemplate template, string subset)
        {
            (string input, string target) = template.Fill(example);
            demonstrations.Add(ToRow(input, [target], subset));
            string document = $"{example.Question}\n{example.Rationale}".TrimEnd();
            text.Add(new Row { Id = Row.IdOf([], [document]), Completions = [document], Subset = subset });
        }
    }

    private static Row Comparison(FlanExample example, FlanTemplate template, string subset) =>
        ToRow(template.Fill(example).Input, example.Options, subset) with
        {
            Ranks = [.. example.Options.Select((_, option) => option == example.Answer ? 1 : 2)],
        };

    private static Row ToRow(string input, IReadOnlyList<string> completions, string subset)
    {
        Turn[] prompt = [new Turn("user", input)];
        return new Row { Id = Row.IdOf(prompt, completions), Prompt = prompt, Completions = completions, Subset = subset };
    }
}
