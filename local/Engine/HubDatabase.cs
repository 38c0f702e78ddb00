using System.Collections.Concurrent;
using Microsoft.Data.Sqlite;

namespace Rlhf.Local.Engine;

/// <summary>
/// The hub's SQLite file. One thread writes: it takes what transactions are waiting, runs each in a savepoint of its own, and commits them
/// together, so that twenty activities share one fsync and no thread-pool thread waits for the disk. Reads have a connection of their own.
/// </summary>
internal sealed class HubDatabase : IDisposable
{
    private const long SchemaVersion = 1;
    private const int LargestBatch = 64;
    private const int Constraint = 19; // SQLITE_CONSTRAINT

    private readonly string _path;
    private readonly ConcurrentQueue<Transaction> _waiting = new();
    private readonly HubLock _hostLock;
    private readonly Session _writes;
    private readonly Session _reads;
    private readonly WriterThread? _ownWriter;
    private readonly TaskScheduler _writer;
    private int _writing; // the id of the thread that is inside a batch

    /// <param name="path">the file; it is made when it is missing</param>
    /// <param name="writer">runs the batches of transactions, one at a time; null gives them a thread of their own</param>
    /// <exception cref="HubUnavailableException">the hub is in use, damaged, of a newer version, or its folder is not writable.</exception>
    public HubDatabase(string path, TaskScheduler? writer = null)
    {
        _path = Path.GetFullPath(path);
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(_path)!);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new HubUnavailableException($"The folder of the durable hub '{_path}' cannot be made: {error.Message}", error);
        }
        _hostLock = new HubLock(_path);
        try
        {
            _writes = Open(_path);
            _reads = new Session(_path);
        }
        catch
        {
            _hostLock.Dispose();
            throw;
        }
        _writer = writer ?? (_ownWriter = new WriterThread());
    }

    /// <summary>All of <paramref name="work"/> or nothing; on disk when the task completes.</summary>
    /// <exception cref="HubUnavailableException">the disk is full or failing.</exception>
    public Task<T> TransactAsync<T>(Func<T> work)
    {
        var done = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        T result = default!;
        _waiting.Enqueue(new Transaction(
            () => result = work(),
            error =>
            {
                if (error is null) done.SetResult(result);
                else done.SetException(error);
            }));
        Task.Factory.StartNew(WriteBatch, CancellationToken.None, TaskCreationOptions.HideScheduler, _writer);
        return done.Task;
    }

    /// <summary>One consistent view of what is committed.</summary>
    public T Snapshot<T>(Func<T> read)
    {
        lock (_reads)
        {
            _reads.Run("BEGIN");
            try
            {
                return read();
            }
            finally
            {
                _reads.Run("COMMIT");
            }
        }
    }

    /// <summary>Only inside <see cref="TransactAsync"/>. Parameters are positional: @0, @1, ...</summary>
    public int Execute(string sql, params ReadOnlySpan<object?> values) => IsWriting
        ? _writes.Prepare(sql, values).ExecuteNonQuery()
        : throw new InvalidOperationException("Writes belong in a transaction.");

    public T? Scalar<T>(string sql, params ReadOnlySpan<object?> values)
    {
        Session session = Current;
        lock (session) return session.Prepare(sql, values).ExecuteScalar() is { } value and not DBNull ? (T)value : default;
    }

    public List<T> Query<T>(string sql, Func<SqliteDataReader, T> read, params ReadOnlySpan<object?> values)
    {
        Session session = Current;
        lock (session)
        {
            using SqliteDataReader reader = session.Prepare(sql, values).ExecuteReader();
            var rows = new List<T>();
            while (reader.Read()) rows.Add(read(reader));
            return rows;
        }
    }

    public void Dispose()
    {
        _ownWriter?.Dispose();
        _writes.Dispose();
        _reads.Dispose();
        _hostLock.Dispose();
    }

    private bool IsWriting => Volatile.Read(ref _writing) == Environment.CurrentManagedThreadId;

    private Session Current => IsWriting ? _writes : _reads;

    private static Session Open(string path)
    {
        Session? session = null;
        try
        {
            session = new Session(path);
            long version = (long)session.Prepare("PRAGMA user_version", []).ExecuteScalar()!;
            if (version > SchemaVersion)
            {
                throw new HubUnavailableException(
                    $"The durable hub '{path}' was written by a newer version of this program (its schema is {version}, " +
                    $"this one knows {SchemaVersion}). Use that version, or give this one another state directory (--state).");
            }
            if ((string)session.Prepare("PRAGMA integrity_check(1)", []).ExecuteScalar()! is not "ok" and var damage)
                throw Damaged(path, damage, null);
            using Stream schema = typeof(HubDatabase).Assembly.GetManifestResourceStream("Schema.sql")!;
            session.Run($"PRAGMA journal_mode = WAL; {new StreamReader(schema).ReadToEnd()} PRAGMA user_version = {SchemaVersion};");
            return session;
        }
        catch (Exception error)
        {
            session?.Dispose();
            throw error is SqliteException sqlite ? Damaged(path, sqlite.Message, sqlite) : error;
        }
    }

    private static HubUnavailableException Damaged(string path, string reason, Exception? inner) => new(
        $"The durable hub '{path}' cannot be read: {reason}. Put a copy of it back, or move it away to start with an empty one " +
        "(unfinished orchestrations in it are lost).", inner);

    /// <summary>Every transaction asks for a batch; one that finds nothing waiting has been taken along by the batch before.</summary>
    private void WriteBatch()
    {
        var batch = new List<Transaction>();
        while (batch.Count < LargestBatch && _waiting.TryDequeue(out Transaction? next)) batch.Add(next);
        if (batch.Count == 0) return;
        var answers = new List<Action>(batch.Count);
        Volatile.Write(ref _writing, Environment.CurrentManagedThreadId);
        try
        {
            _writes.Run("BEGIN IMMEDIATE");
            foreach (Transaction transaction in batch) answers.Add(RunInSavepoint(transaction));
            _writes.Run("COMMIT");
        }
        catch (Exception error)
        {
            RollBack();
            var unavailable = new HubUnavailableException(
                $"The durable hub '{_path}' cannot be written: {error.Message}. Nothing that was acknowledged is lost; " +
                "look at the disk's free space and state, then start again.", error);
            answers = [.. batch.Select(transaction => (Action)(() => transaction.Answer(unavailable)))];
        }
        finally
        {
            Volatile.Write(ref _writing, 0);
        }
        answers.ForEach(answer => answer());
    }

    private void RollBack()
    {
        try
        {
            _writes.Run("ROLLBACK");
        }
        catch (SqliteException)
        {
            // the failure has rolled it back already
        }
    }

    private Action RunInSavepoint(Transaction transaction)
    {
        _writes.Run("SAVEPOINT one");
        try
        {
            transaction.Work();
            _writes.Run("RELEASE one");
            return () => transaction.Answer(null);
        }
        catch (Exception error) when (error is not SqliteException { SqliteErrorCode: not Constraint }) // a failing disk fails the batch
        {
            _writes.Run("ROLLBACK TO one");
            _writes.Run("RELEASE one");
            return () => transaction.Answer(error);
        }
    }

    private sealed record Transaction(Action Work, Action<Exception?> Answer);

    /// <summary>Runs its tasks one after the other on a thread of its own; what is queued when it is disposed of still runs.</summary>
    private sealed class WriterThread : TaskScheduler, IDisposable
    {
        private readonly BlockingCollection<Task> _tasks = [];
        private readonly Thread _thread;

        public WriterThread()
        {
            _thread = new Thread(Run) { Name = "durable writer", IsBackground = true };
            _thread.Start();
        }

        public void Dispose()
        {
            _tasks.CompleteAdding();
            _thread.Join();
            _tasks.Dispose();
        }

        protected override void QueueTask(Task task) => _tasks.Add(task);
        protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) => false;
        protected override IEnumerable<Task> GetScheduledTasks() => [.. _tasks];

        private void Run()
        {
            foreach (Task task in _tasks.GetConsumingEnumerable()) TryExecuteTask(task);
        }
    }

    /// <summary>One connection and its prepared statements.</summary>
    private sealed class Session : IDisposable
    {
        private readonly Dictionary<string, SqliteCommand> _commands = [];
        private readonly SqliteConnection _connection;

        public Session(string path)
        {
            _connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = path, Pooling = false }.ToString());
            _connection.Open();
            Run("PRAGMA synchronous = FULL");
        }

        public void Run(string sql) => Prepare(sql, []).ExecuteNonQuery();

        public SqliteCommand Prepare(string sql, ReadOnlySpan<object?> values)
        {
            if (!_commands.TryGetValue(sql, out SqliteCommand? command))
            {
                command = _connection.CreateCommand();
                command.CommandText = sql;
                for (int i = 0; i < values.Length; i++) command.Parameters.AddWithValue($"@{i}", DBNull.Value);
                _commands.Add(sql, command);
            }
            for (int i = 0; i < values.Length; i++) command.Parameters[i].Value = values[i] ?? DBNull.Value;
            return command;
        }

        public void Dispose()
        {
            foreach (SqliteCommand command in _commands.Values) command.Dispose();
            _connection.Dispose();
        }
    }
}
