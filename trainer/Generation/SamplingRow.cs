namespace Rlhf.Trainer.Generation;

/// <summary>A prompt and the tokens added to it so far.</summary>
internal sealed class SamplingRow(int[] prompt, long id, int room)
{
    public int[] Prompt { get; } = prompt;

    /// <summary>Names the row's random numbers.</summary>
    public long Id { get; } = id;

    /// <summary>Most tokens that may be added.</summary>
    public int Room { get; } = room;

    public List<int> New { get; } = new(room);

    public bool Ended { get; private set; }

    public void Add(int token, SamplingOptions options)
    {
        if (Ended) return;
        New.Add(token);
        Ended = token == options.EosId || options.FurtherEndIds.Contains(token) || New.Count == Room;
    }
}
