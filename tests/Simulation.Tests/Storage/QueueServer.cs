using System.Globalization;
using Rlhf.Simulation.Core;
using Rlhf.Storage;

namespace Rlhf.Simulation.Storage;

/// <summary>A queue of the storage service: at least once, in no order, with visibility times and receipts.</summary>
internal sealed class QueueServer(SimWorld world, Func<TimeSpan[]> copies)
{
    private readonly List<Message> messages = [];
    private long ids;

    /// <summary>The most deliveries of any message with a text.</summary>
    public Dictionary<string, long> Deliveries { get; } = [];

    /// <summary>Texts of the messages that are in the queue.</summary>
    public IEnumerable<string> Texts => messages.Select(message => message.Text);

    /// <summary>Stores the message; faults may store it several times, each copy visible after a while of its own.</summary>
    public void Send(string text)
    {
        foreach (TimeSpan delay in copies())
            messages.Add(new Message((++ids).ToString(CultureInfo.InvariantCulture), text) { VisibleAt = world.Now + delay });
    }

    public QueueDelivery? Receive(TimeSpan visibility)
    {
        Message[] visible = [.. messages.Where(message => message.VisibleAt <= world.Now)];
        if (visible.Length == 0)
            return null;
        Message message = visible[world.Random.Next(visible.Length)];
        message.VisibleAt = world.Now + visibility;
        message.Deliveries++;
        Deliveries[message.Text] = Math.Max(Deliveries.GetValueOrDefault(message.Text), message.Deliveries);
        return new QueueDelivery(message.Id, message.Receipt, message.Text, message.Deliveries);
    }

    public void Delete(QueueDelivery delivery) =>
        messages.RemoveAll(message => message.Id == delivery.Id && message.Receipt == delivery.Receipt);

    private sealed class Message(string id, string text)
    {
        public string Id { get; } = id;

        public string Text { get; } = text;

        public TimeSpan VisibleAt { get; set; }

        public long Deliveries { get; set; }

        /// <summary>Of the newest delivery; older receipts delete nothing.</summary>
        public string Receipt => $"{Id}/{Deliveries}";
    }
}
