using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using Rlhf.Local.Host;
using Xunit;

namespace Rlhf.Local.Tests;

public sealed class HttpTests : IDisposable
{
    private readonly HttpClient _http = new();

    public void Dispose() => _http.Dispose();

    [Fact]
    public async Task A_route_binds_its_values_the_client_and_the_context_and_answers_in_camel_case()
    {
        await using TestHost host = await TestHost.StartAsync();
        _http.BaseAddress = host.Host.BaseUrl;
        using HttpResponseMessage accepted = await _http.PostAsync("api/chains/web/5", null);
        Assert.Equal(HttpStatusCode.Accepted, accepted.StatusCode);
        Assert.Equal("/api/chains/web/5", accepted.Headers.Location?.ToString());
        var body = await accepted.Content.ReadFromJsonAsync<JsonElement>();
        Assert.Equal("web", body.GetProperty("runId").GetString());
        Assert.Equal("StartChain", body.GetProperty("function").GetString());
        await host.CompletionAsync("web");
        JsonElement found = await _http.GetFromJsonAsync<JsonElement>("api/chains/web");
        Assert.Equal("Completed", found.GetProperty("state").GetString());
    }

    [Theory]
    [InlineData("GET", "api/chains/nobody", HttpStatusCode.NotFound)] // the function's own answer
    [InlineData("GET", "api/nothing", HttpStatusCode.NotFound)] // no such route
    [InlineData("GET", "chains/nobody", HttpStatusCode.NotFound)] // without the prefix
    [InlineData("DELETE", "api/chains/nobody", HttpStatusCode.NotFound)] // no such method: as on the Functions host
    [InlineData("POST", "api/chains/x/notANumber", HttpStatusCode.NotFound)] // the route's constraint
    [InlineData("GET", "api/open", HttpStatusCode.OK)] // without a route: the function's name
    [InlineData("GET", "api/breaks", HttpStatusCode.InternalServerError)]
    public async Task Requests_get_the_status_of_the_genuine_host(string method, string path, HttpStatusCode expected)
    {
        await using TestHost host = await TestHost.StartAsync();
        _http.BaseAddress = host.Host.BaseUrl;
        using var request = new HttpRequestMessage(new HttpMethod(method), path);
        using HttpResponseMessage answer = await _http.SendAsync(request);
        Assert.Equal(expected, answer.StatusCode);
        Assert.DoesNotContain("secret detail", await answer.Content.ReadAsStringAsync(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("api/chains/nobody", null, HttpStatusCode.Unauthorized)]
    [InlineData("api/chains/nobody", "wrong", HttpStatusCode.Unauthorized)]
    [InlineData("api/chains/nobody?code=wrong", null, HttpStatusCode.Unauthorized)]
    [InlineData("api/chains/nobody", "right", HttpStatusCode.NotFound)]
    [InlineData("api/chains/nobody?code=right", null, HttpStatusCode.NotFound)]
    [InlineData("api/open", null, HttpStatusCode.OK)] // anonymous
    public async Task With_a_functions_key_functions_of_that_level_ask_for_it(string path, string? header, HttpStatusCode expected)
    {
        await using TestHost host = await TestHost.StartAsync(new() { ["FunctionsKey"] = "right" });
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(host.Host.BaseUrl, path));
        if (header is not null) request.Headers.Add("x-functions-key", header);
        using HttpResponseMessage answer = await _http.SendAsync(request);
        Assert.Equal(expected, answer.StatusCode);
    }

    [Fact]
    public async Task The_functions_key_stands_in_no_log_line_however_it_is_sent()
    {
        const string key = "c2VjcmV0LWtleQ";
        await using TestHost host = await TestHost.StartAsync(new() { ["FunctionsKey"] = key });
        foreach (string path in new[] { $"api/chains/nobody?code={key}", $"api/breaks?code={key}", $"api/nothing?code={key}" })
            (await _http.GetAsync(new Uri(host.Host.BaseUrl, path))).Dispose();
        Assert.Contains(host.Log.Lines, line => line.Contains("Function Breaks failed", StringComparison.Ordinal));
        Assert.DoesNotContain(host.Log.Lines, line => line.Contains(key, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_port_in_use_is_one_clear_error_and_no_orchestration_is_touched()
    {
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        int port = ((IPEndPoint)taken.LocalEndpoint).Port;
        await using TestHost host = await TestHost.StartAsync();
        await host.Host.DisposeAsync();
        var error = await Assert.ThrowsAsync<PortInUseException>(() => host.StartAgainAsync(options => options with { Port = port }));
        Assert.Equal(port, error.Port);
        Assert.Contains($"Port {port} on 127.0.0.1 is in use", error.Message, StringComparison.Ordinal);
        taken.Stop();
        await host.StartAgainAsync(options => options with { Port = port }); // neither the hub nor anything else was left locked
        Assert.Equal(port, host.Host.BaseUrl.Port);
    }

    [Theory]
    [InlineData("127.0.0.1", null, HttpStatusCode.NotFound)] // the function's own answer: it was asked
    [InlineData("localhost", null, HttpStatusCode.NotFound)]
    [InlineData("[::1]", "http://localhost:3000", HttpStatusCode.NotFound)] // a page that this machine serves
    [InlineData("127.0.0.1", "https://evil.example", HttpStatusCode.Forbidden)] // cross-site request
    [InlineData("127.0.0.1", "null", HttpStatusCode.Forbidden)] // a sandboxed frame
    [InlineData("rebound.example", null, HttpStatusCode.Forbidden)] // DNS rebinding
    public async Task Without_a_key_web_pages_of_other_sites_are_refused(string name, string? origin, HttpStatusCode expected)
    {
        await using TestHost host = await TestHost.StartAsync();
        Assert.Equal(expected, await AskAsync(host, name, origin, key: null));
    }

    [Fact]
    public async Task With_a_key_the_key_decides()
    {
        await using TestHost host = await TestHost.StartAsync(new() { ["FunctionsKey"] = "right" });
        Assert.Equal(HttpStatusCode.NotFound, await AskAsync(host, "api.example", "https://console.example", "right"));
        Assert.Equal(HttpStatusCode.Unauthorized, await AskAsync(host, "api.example", "https://console.example", null));
    }

    [Fact]
    public async Task It_listens_on_loopback_and_elsewhere_only_with_a_key()
    {
        await using TestHost host = await TestHost.StartAsync();
        Assert.Equal("127.0.0.1", host.Host.BaseUrl.Host);
        await host.Host.DisposeAsync();
        var error = await Assert.ThrowsAsync<HostConfigurationException>(
            () => host.StartAgainAsync(options => options with { Address = IPAddress.Any }));
        Assert.Contains("FunctionsKey", error.Message, StringComparison.Ordinal);
        await host.StartAgainAsync(options => options with
        {
            Address = IPAddress.Any,
            Settings = new Dictionary<string, string?>(options.Settings) { ["FunctionsKey"] = "right" },
        });
        Assert.Equal("0.0.0.0", host.Host.BaseUrl.Host);
    }

    private async Task<HttpStatusCode> AskAsync(TestHost host, string name, string? origin, string? key)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(host.Host.BaseUrl, "api/chains/nobody"));
        request.Headers.Host = $"{name}:{host.Host.BaseUrl.Port}";
        if (origin is not null) request.Headers.Add("Origin", origin);
        if (key is not null) request.Headers.Add("x-functions-key", key);
        using HttpResponseMessage answer = await _http.SendAsync(request);
        return answer.StatusCode;
    }
}
