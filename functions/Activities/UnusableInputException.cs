namespace Rlhf.Functions.Activities;

/// <summary>The run's input cannot be used: the message names the thing and what to do about it. Trying again would not help.</summary>
public sealed class UnusableInputException(string message) : Exception(message);
