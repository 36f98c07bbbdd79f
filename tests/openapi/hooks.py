"""What Schemathesis has to be told of the admin API: how JSON lines are sent."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def json_lines(_context, value):
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
