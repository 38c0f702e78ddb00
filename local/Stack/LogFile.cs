using Microsoft.Extensions.Logging;

namespace Rlhf.Local.Stack;

/// <summary>The host's log lines in a file: the terminal belongs to the run's progress.</summary>
internal sealed class LogFile(string path) : ILoggerProvider
{
    private readonly TextWriter writer = TextWriter.Synchronized(new StreamWriter(path, append: true) { AutoFlush = true });

    public ILogger CreateLogger(string categoryName) => new Category(categoryName, writer);

    public void Dispose() => writer.Dispose();

    private sealed class Category(string name, TextWriter writer) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Information;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (IsEnabled(logLevel))
                writer.WriteLine($"{DateTime.UtcNow:yyyy-MM-dd'T'HH:mm:ss.fff'Z'} {logLevel} {name}: {formatter(state, exception)}{(exception is null ? null : "\n" + exception)}");
        }
    }
}
