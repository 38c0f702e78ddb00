using System.Diagnostics;
using Rlhf.Spec;
using Rlhf.Trainer.Data;
using Rlhf.Trainer.Methods;
using Rlhf.Trainer.Methods.RewardSources;
using Rlhf.Trainer.Models;
using Xunit;

namespace Rlhf.Trainer.Tests.Methods;

/// <summary>The HTTP contract of docs/rewards.md against a real listener on this machine.</summary>
public sealed class HttpRewardTests
{
    private const string Secret = "Bearer 4f1d-very-secret";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static readonly string[] Answers = ["blue", "a green leaf", "", "yes"];

    [Fact]
    public async Task Rows_go_out_in_calls_of_limited_size_and_come_back_in_order()
    {
        await using RewardEndpoint endpoint = RewardEndpoint.Scoring(text => text.Length / 2.0);
        using HttpReward source = Source(endpoint, spec => spec with { RowsPerCall = 3 });

        Assert.Equal([2, 6, 0, 1.5f], source.Score(Batch(), Cancellation));

        Assert.Equal([3, 1], endpoint.Requests.Select(request => request.Rows.Count));
        Assert.Equal("Say it:", endpoint.Requests.First().Rows[0].GetProperty("prompt").GetString());
        Assert.Equal("blue", endpoint.Requests.First().Rows[0].GetProperty("reference").GetString());
        Assert.False(endpoint.Requests.First().Rows[1].TryGetProperty("reference", out _));
        Assert.All(endpoint.Requests, request => Assert.Equal("application/json; charset=utf-8", request.Headers["Content-Type"]));
    }

    [Fact]
    public async Task The_same_rows_on_the_same_occasion_have_the_same_key()
    {
        await using RewardEndpoint endpoint = RewardEndpoint.Scoring(_ => 1);
        using HttpReward source = Source(endpoint, spec => spec with { RowsPerCall = 3 });
        foreach (string occasion in (string[])["ppo/4/rollout", "ppo/4/rollout", "ppo/5/rollout"])
            source.Score(Batch(occasion), Cancellation);

        string[] keys = [.. endpoint.Requests.Select(request => request.Headers["Idempotency-Key"])];
        Assert.StartsWith("run-7/ppo/4/rollout/judge/0-", keys[0], StringComparison.Ordinal);
        Assert.Equal(keys[..2], keys[2..4]);
        Assert.Equal(4, keys.Distinct().Count());
    }

    [Theory]
    [InlineData(500)]
    [InlineData(503)]
    [InlineData(429)]
    [InlineData(408)]
    public async Task An_endpoint_that_fails_twice_is_asked_a_third_time_with_the_same_key(int status)
    {
        await using RewardEndpoint endpoint = RewardEndpoint.Start(
            request => request.Number < 2 ? (status, "busy") : (200, RewardEndpoint.Rewards(request, _ => 1)));
        using HttpReward source = Source(endpoint);

        Assert.Equal([1, 1, 1, 1], source.Score(Batch(), Cancellation));

        Assert.Equal(3, endpoint.Requests.Count);
        Assert.Single(endpoint.Requests.Select(request => request.Headers["Idempotency-Key"]).Distinct());
    }

    [Fact]
    public async Task A_call_past_its_time_limit_is_tried_again()
    {
        await using RewardEndpoint endpoint = RewardEndpoint.Start(async request =>
        {
            if (request.Number == 0)
                await Task.Delay(TimeSpan.FromSeconds(5), Cancellation);
            return (200, RewardEndpoint.Rewards(request, _ => 2));
        });
        using HttpReward source = Source(endpoint, spec => spec with { TimeoutSeconds = 0.3 });
        var watch = Stopwatch.StartNew();

        Assert.Equal([2, 2, 2, 2], source.Score(Batch(), Cancellation));

        Assert.InRange(watch.Elapsed.TotalSeconds, 0.3, 4.5);
    }

    [Fact]
    public async Task When_the_tries_are_used_up_the_endpoint_is_named_without_its_query()
    {
        await using RewardEndpoint endpoint = RewardEndpoint.Start(_ => (502, "bad gateway"));
        using HttpReward source = Source(endpoint);

        var error = Assert.Throws<RewardEndpointException>(() => source.Score(Batch(), Cancellation));

        Assert.Contains(
            $"The reward endpoint 'judge' ({endpoint.Url.Split('?')[0]}) gave no scores in 3 tries; the last time it answered 502.",
            error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("key=abc", error.Message, StringComparison.Ordinal);
        Assert.Equal(3, endpoint.Requests.Count);
    }

    [Fact]
    public async Task A_machine_that_cannot_be_reached_is_tried_again_and_then_named()
    {
        RewardEndpoint endpoint = RewardEndpoint.Start(_ => (200, ""));
        using HttpReward source = Source(endpoint);
        await endpoint.DisposeAsync();

        var error = Assert.Throws<RewardEndpointException>(() => source.Score(Batch(), Cancellation));

        Assert.Contains("in 3 tries; the last time it could not be reached", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(400, "no", "answered 400")]
    [InlineData(401, "no", "answered 401")]
    [InlineData(302, "", "answered 302")]
    [InlineData(204, "", "answered 204")]
    [InlineData(200, "", "is no JSON")]
    [InlineData(200, "{\"rewards\":[1,2,3,NaN]}", "is no JSON")]
    [InlineData(200, "{\"rewards\":[1,2,3,\"NaN\"]}", "has no finite number as rewards[3]")]
    [InlineData(200, "{\"rewards\":[1,1e300,3,4]}", "has no finite number as rewards[1]")]
    [InlineData(200, "{\"rewards\":[1,2,3]}", "has 3 rewards for 4 rows")]
    [InlineData(200, "{\"scores\":[1,2,3,4]}", "has no list 'rewards'")]
    [InlineData(200, "[1,2,3,4]", "has no list 'rewards'")]
    public async Task A_wrong_answer_is_an_error_at_once(int status, string body, string message)
    {
        await using RewardEndpoint endpoint = RewardEndpoint.Start(_ => (status, body));
        using HttpReward source = Source(endpoint);

        var error = Assert.Throws<JobInputException>(() => source.Score(Batch(), Cancellation));

        Assert.StartsWith($"The reward endpoint 'judge' ({endpoint.Url.Split('?')[0]}) ", error.Message, StringComparison.Ordinal);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.Single(endpoint.Requests);
    }

    [Fact]
    public async Task The_secret_goes_to_the_endpoint_alone()
    {
        await using RewardEndpoint endpoint = RewardEndpoint.Start(
            request => request.Number == 0
                ? (200, RewardEndpoint.Rewards(request, _ => 1))
                : (403, $"you sent {request.Headers["Authorization"]}"));
        using var source = HttpReward.Create(
            Spec(endpoint) with { Header = "Authorization", HeaderVariable = "RLHF_REWARD_TOKEN" },
            "run-7", name => name == "RLHF_REWARD_TOKEN" ? Secret : null);

        source.Score(Batch(), Cancellation);
        var error = Assert.Throws<JobInputException>(() => source.Score(Batch(), Cancellation));

        Assert.All(endpoint.Requests, request => Assert.Equal(Secret, request.Headers["Authorization"]));
        Assert.DoesNotContain("4f1d", error.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(null, "is not set")]
    [InlineData(" ", "is not set")]
    [InlineData("a\nsecret", "plain ASCII")]
    public void A_secret_that_cannot_be_used_is_named_by_its_variable(string? value, string message)
    {
        RewardSourceSpec spec = new()
        {
            Source = RewardSourceKind.Http,
            Url = "http://127.0.0.1:1/",
            Header = "Authorization",
            HeaderVariable = "RLHF_REWARD_TOKEN",
        };
        var error = Assert.Throws<JobInputException>(() => HttpReward.Create(spec, "run-7", _ => value));
        Assert.Contains("RLHF_REWARD_TOKEN", error.Message, StringComparison.Ordinal);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("secret", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Cancellation_ends_the_wait(bool whileItAnswers)
    {
        var asked = new TaskCompletionSource();
        await using RewardEndpoint endpoint = RewardEndpoint.Start(async _ =>
        {
            asked.TrySetResult();
            if (whileItAnswers)
                await Task.Delay(TimeSpan.FromSeconds(20), Cancellation);
            return (500, "");
        });
        using var source = new HttpReward(Spec(endpoint), "run-7", null, _ => TimeSpan.FromSeconds(20));
        using var cancellation = new CancellationTokenSource();
        Task scoring = Task.Run(() => source.Score(Batch(), cancellation.Token), Cancellation);
        await asked.Task;
        if (!whileItAnswers)
            await Task.Delay(200, Cancellation); // into the pause before the second try
        var watch = Stopwatch.StartNew();

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => scoring);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 5);
        Assert.Single(endpoint.Requests);
    }

    [Fact]
    public async Task Ppo_resumes_to_the_byte_when_the_same_rows_get_the_same_answers()
    {
        await using RewardEndpoint endpoint = RewardEndpoint.Scoring(text => text.Contains('b', StringComparison.Ordinal) ? 1 : 0);
        using Transformer sft = Toy.Model();
        PpoSpec spec = new() { Iterations = 6, Episodes = 12, MinibatchSize = 5, MaxNewTokens = 4, LearningRate = 2e-3 };
        RewardSourceSpec[] rewards = [Spec(endpoint), new() { Source = RewardSourceKind.Length, MaxTokens = 3 }];

        MemoryCheckpoint.AssertResumes(() => new Ppo(
            sft, null, spec, Toy.TokenizedPrompts, [], Toy.Tokenizer, seed: 6,
            rewards: RewardFunction.Create(rewards, () => sft, "run-7", _ => null)));

        // Six steps straight, then three and three: the same requests again, by their keys.
        string[] keys = [.. endpoint.Requests.Select(request => request.Headers["Idempotency-Key"])];
        Assert.Equal(6, keys.Distinct().Count());
        Assert.Equal(keys[..6], keys[6..]);
    }

    private static RewardSourceSpec Spec(RewardEndpoint endpoint) =>
        new() { Source = RewardSourceKind.Http, Name = "judge", Url = endpoint.Url, Retries = 2 };

    private static HttpReward Source(RewardEndpoint endpoint, Func<RewardSourceSpec, RewardSourceSpec>? change = null)
    {
        RewardSourceSpec spec = Spec(endpoint);
        return new HttpReward(change?.Invoke(spec) ?? spec, "run-7", null, _ => TimeSpan.FromMilliseconds(20));
    }

    private static AnswerBatch Batch(string occasion = "ppo/0/rollout") => new(
        [
            .. Answers.Select((text, i) => new Episode(
                Toy.Tokenizer.Encode("Say it:"), [.. Toy.Tokenizer.Encode(text), Toy.Tokenizer.EosId], Ended: true)
            {
                Reference = i == 0 ? text : null,
            }),
        ],
        Toy.Tokenizer, occasion);
}
