namespace Rlhf.Trainer.Evaluation;

/// <summary>One way of answering the evaluation prompts.</summary>
/// <param name="Name">The name in the report, such as <c>ppo_greedy</c>.</param>
/// <param name="Role">The model that answers.</param>
/// <param name="Greedy">Takes the likeliest tokens instead of sampling.</param>
/// <param name="FewShot">Worked examples precede the prompt, and the answer is cut where the model goes on with the next turn.</param>
/// <param name="Draws">Answers to each prompt.</param>
internal sealed record AnswerSet(string Name, string Role, bool Greedy = false, bool FewShot = false, int Draws = 1);

/// <summary>An answer with what the models say about it; part of the evaluation's checkpoint.</summary>
/// <param name="Text">Without end token and outer white space.</param>
/// <param name="Tokens">Tokens, the end token included.</param>
/// <param name="Ended">Whether it ended by itself.</param>
/// <param name="Proxy">The reward model's score.</param>
/// <param name="Kl">Log-probability under its model less that under the SFT model, in nats; null where it was not measured.</param>
/// <param name="HeldOut">The held-out reward model's score; null where there is none or it was not asked.</param>
internal sealed record Answer(string Text, int Tokens, bool Ended, double Proxy, double? Kl = null, double? HeldOut = null);
