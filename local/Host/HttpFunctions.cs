using System.Net;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Mvc;
using Microsoft.AspNetCore.Mvc.Abstractions;
using Microsoft.AspNetCore.Routing;
using Microsoft.Azure.Functions.Worker;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Rlhf.Local.Host;

/// <summary>
/// HTTP-triggered functions as Kestrel endpoints. With the setting FunctionsKey every function of level Function or above asks
/// for it (header x-functions-key or query ?code=). Without it they are open, as under Core Tools, but only to programs of this machine: not to
/// web pages of others that its browser shows.
/// </summary>
internal static class HttpFunctions
{
    public const string KeySetting = "FunctionsKey";

    private static readonly string[] AllMethods = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT"];

    public static void MapHttpFunctions(this WebApplication app, FunctionCatalog catalog, IConfiguration configuration)
    {
        string prefix = configuration.Extension("http:routePrefix") ?? "api";
        string? key = configuration[KeySetting] is { Length: > 0 } set ? set : null;
        var invoker = app.Services.GetRequiredService<FunctionInvoker>();
        ILogger logger = app.Services.GetRequiredService<ILoggerFactory>().CreateLogger("Host.Function");

        app.Use(AnswerWrongMethodAsNotFoundAsync);
        if (key is null)
            app.Use(RefuseForeignPagesAsync);
        foreach ((Function function, HttpTriggerAttribute trigger) in catalog.With<HttpTriggerAttribute>())
        {
            if (function.TriggerParameter.ParameterType != typeof(HttpRequest))
                throw new HostConfigurationException($"HTTP function '{function.Name}' must take an ASP.NET Core HttpRequest.");
            string[] methods = trigger.Methods.Length == 0 ? AllMethods : [.. trigger.Methods.Select(method => method.ToUpperInvariant())];
            string? needed = trigger.AuthLevel == AuthorizationLevel.Anonymous ? null : key;
            string route = $"{prefix}/{trigger.Route ?? function.Name}";
            app.MapMethods(route, methods, http => AnswerAsync(http, function, needed, invoker, logger));
        }
    }

    /// <summary>ASP.NET Core answers a known route with another method by 405; the Functions host knows no such route: 404.</summary>
    private static Task AnswerWrongMethodAsNotFoundAsync(HttpContext http, RequestDelegate next)
    {
        if (http.GetEndpoint() is null or RouteEndpoint) return next(http);
        http.Response.StatusCode = StatusCodes.Status404NotFound;
        return Task.CompletedTask;
    }

    /// <summary>
    /// A page of another site can make a browser send requests here: as itself, which the Origin header tells, or under a name of its own
    /// that resolves to 127.0.0.1 (DNS rebinding), which the Host header tells.
    /// </summary>
    private static Task RefuseForeignPagesAsync(HttpContext http, RequestDelegate next)
    {
        bool isOurs = IsLoopback(http.Request.Host.Host)
            && http.Request.Headers.Origin.All(origin => Uri.TryCreate(origin, UriKind.Absolute, out Uri? page) && IsLoopback(page.Host));
        if (isOurs) return next(http);
        http.Response.StatusCode = StatusCodes.Status403Forbidden;
        return Task.CompletedTask;
    }

    private static bool IsLoopback(string host) =>
        host.Equals("localhost", StringComparison.OrdinalIgnoreCase)
        || (IPAddress.TryParse(host.Trim('[', ']'), out IPAddress? address) && IPAddress.IsLoopback(address));

    private static async Task AnswerAsync(HttpContext http, Function function, string? key, FunctionInvoker invoker, ILogger logger)
    {
        if (key is not null && !HasKey(http.Request, key))
        {
            http.Response.StatusCode = StatusCodes.Status401Unauthorized;
            return;
        }
        object? answer;
        try
        {
            answer = await invoker.InvokeAsync(function, http.Request, http.Request.RouteValues, http.RequestAborted);
        }
        catch (OperationCanceledException) when (http.RequestAborted.IsCancellationRequested)
        {
            return; // nobody listens any more
        }
        catch (Exception error)
        {
            logger.LogError(error, "Function {Function} failed", function.Name);
            http.Response.StatusCode = StatusCodes.Status500InternalServerError;
            return;
        }
        switch (answer)
        {
            case IActionResult action:
                await ExecuteAsync(action, http);
                break;
            case IResult result:
                await result.ExecuteAsync(http);
                break;
            case not null:
                await ExecuteAsync(new OkObjectResult(answer), http);
                break;
        }
    }

    private static Task ExecuteAsync(IActionResult result, HttpContext http) =>
        result.ExecuteResultAsync(new ActionContext(http, http.GetRouteData(), new ActionDescriptor()));

    private static bool HasKey(HttpRequest request, string key)
    {
        string? given = request.Headers["x-functions-key"].FirstOrDefault() ?? request.Query["code"].FirstOrDefault();
        return given is not null && CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(given), Encoding.UTF8.GetBytes(key));
    }
}
