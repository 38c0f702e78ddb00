using System.Text.Json;
using Rlhf.Rows;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.World;

namespace Rlhf.Trainer.Evaluation;

/// <summary>The programmatic judge, for rows that carry what it needs to know.</summary>
internal static class Gold
{
    /// <summary>The truth of a row; null outside the sample world.</summary>
    public static Truth? TruthOf(Row row) => row.Truth?.Deserialize<Truth>(RlhfJson.Compact);

    /// <summary>The verdict on a sampled answer.</summary>
    public static GoldScore Score(Truth truth, Episode answer, RowTokenizer tokenizer) =>
        Judge.Score(truth, tokenizer.Text(answer.Response), answer.Ended);
}
