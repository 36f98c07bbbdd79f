"""What Schemathesis has to be told of the admin API: how JSON lines are sent, and which 503 is no defect."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def json_lines(_context, value):
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


@schemathesis.check
def unavailable_only_for_a_suspended_key(_context, response, _case):
    """The one reason for a 503 that a caller can bring about; a store or a KEK that fails here is a defect."""
    if response.status_code == 503:
        reason = response.json()["error"]["reason"]
        assert reason == "key-suspended", f"503 {reason}"
