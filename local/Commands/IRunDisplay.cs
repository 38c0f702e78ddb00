namespace Rlhf.Local.Commands;

/// <summary>Shows a run while it goes by.</summary>
internal interface IRunDisplay
{
    /// <summary>Shows something as long as the work lasts.</summary>
    Task<T> WhileAsync<T>(Func<Task<T>> work);

    /// <summary>Shows the run as it stands now.</summary>
    void Show(RunView run);

    /// <summary>Says one thing.</summary>
    void Note(string text);
}
