using System.Text;
using Microsoft.AspNetCore.Http;

namespace Rlhf.Functions.Http;

/// <summary>Reads a request's body as text, up to a limit.</summary>
internal static class RequestBody
{
    /// <summary>The body; null when it is larger than the limit, of which no more than that is read.</summary>
    /// <exception cref="DecoderFallbackException">The body is not UTF-8.</exception>
    public static async Task<string?> ReadAsync(HttpRequest request, int limit, CancellationToken cancellation)
    {
        if (request.ContentLength > limit)
            return null;
        using var content = new MemoryStream();
        byte[] buffer = new byte[16 * 1024];
        int read;
        while ((read = await request.Body.ReadAsync(buffer, cancellation)) > 0)
        {
            if (content.Length + read > limit)
                return null;
            content.Write(buffer, 0, read);
        }

        var utf8 = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);
        return utf8.GetString(content.GetBuffer(), 0, (int)content.Length).TrimStart('\uFEFF');
    }
}
