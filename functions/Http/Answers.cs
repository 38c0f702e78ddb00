using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Mvc;
using Rlhf.Spec;

namespace Rlhf.Functions.Http;

/// <summary>Answers: JSON as the contract writes it, and errors as problem details (RFC 9457).</summary>
internal static class Answers
{
    public static ContentResult Json<T>(T body, int status = StatusCodes.Status200OK) =>
        new()
        {
            Content = JsonSerializer.Serialize(body, RlhfJson.Compact),
            ContentType = "application/json; charset=utf-8",
            StatusCode = status,
        };

    /// <summary>A problem; <paramref name="errors"/> names every bad field.</summary>
    public static ContentResult Problem(int status, string title, string detail, IReadOnlyList<SpecError>? errors = null) => new()
    {
        Content = JsonSerializer.Serialize(new ProblemBody("about:blank", title, status, detail, errors), RlhfJson.Compact),
        ContentType = "application/problem+json; charset=utf-8",
        StatusCode = status,
    };

    public static ContentResult BadRequest(string title, IReadOnlyList<SpecError> errors) =>
        Problem(
            StatusCodes.Status400BadRequest, title, string.Join("; ", errors.Select(error => $"{error.Field} {error.Message}")), errors);

    public static ContentResult NoSuchRun(string runId) =>
        Problem(StatusCodes.Status404NotFound, "No such run", $"There is no run '{runId}'. GET /api/runs lists them.");

    public static ContentResult Conflict(string detail) => Problem(StatusCodes.Status409Conflict, "Conflict", detail);

    private sealed record ProblemBody(string Type, string Title, int Status, string Detail, IReadOnlyList<SpecError>? Errors);
}
