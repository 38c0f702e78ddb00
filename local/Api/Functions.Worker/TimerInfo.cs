namespace Microsoft.Azure.Functions.Worker;

/// <summary>What a timer function is told.</summary>
public class TimerInfo
{
    /// <summary>Null for schedules that fire more than once a minute.</summary>
    public ScheduleStatus? ScheduleStatus { get; set; }

    /// <summary>The host was down when this was due.</summary>
    public bool IsPastDue { get; set; }
}

public class ScheduleStatus
{
    public DateTime Last { get; set; }
    public DateTime Next { get; set; }
    public DateTime LastUpdated { get; set; }
}
