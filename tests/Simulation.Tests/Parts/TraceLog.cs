using System.Text;
using Microsoft.Extensions.Logging;
using Rlhf.Simulation.Core;

namespace Rlhf.Simulation.Parts;

/// <summary>Puts what the product logs into the trace, for people.</summary>
internal sealed class TraceLog(SimWorld world, string who) : ILoggerFactory, ILogger
{
    public void AddProvider(ILoggerProvider provider)
    {
    }

    public ILogger CreateLogger(string categoryName) => this;

    public void Dispose()
    {
    }

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Information;

    public void Log<TState>(
        LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
        world.Note(who, $"{formatter(state, exception)}{(exception is null ? "" : "\n" + exception)}");
}

/// <summary>The same for the trainer's log.</summary>
internal sealed class TraceWriter(SimWorld world, string who) : TextWriter
{
    public override Encoding Encoding => Encoding.UTF8;

    public override void WriteLine(string? value) => world.Note(who, value ?? "");
}
