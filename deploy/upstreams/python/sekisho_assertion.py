#!/usr/bin/env python3
"""Verifies the assertion that Sekisho puts into each request, with PyJWT.

    verifier = Verifier(ISSUER, AUDIENCE, published_keys(ISSUER + "/_sekisho/jwks.json"))   # one per process
    claims = verifier.verify(request.headers.get("Sekisho-Jwt-Assertion"))                  # or Rejected: answer 401

To try it out:

    pip install -r requirements.txt
    faketime -f @'2026-11-24 00:00:00' python3 sekisho_assertion.py conformance ../conformance/assertion.json
    python3 sekisho_assertion.py serve ISSUER AUDIENCE JWKS_URL
"""

import base64
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

FIELD = "Sekisho-Jwt-Assertion"
TYPE = "sekisho-assertion+jwt"
LONGEST = 4096  # bytes of a token
LIFE = 300  # seconds from iat to exp, at most
LEEWAY = 30  # seconds that the clocks of gateway and upstream may be apart
# PyJWT lets padding pass. The last character: of its six bits four must be zero.
SHAPE = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]{85}[AQgw]")
CLAIMS = {"iss": str, "aud": str, "sub": str, "iat": int, "nbf": int, "exp": int, "jti": str, "sid": str,
          "auth_time": int, "acr": str, "amr": list}  # fmt: skip


class Rejected(Exception):
    """Not to be believed. Say no more than "401" to the client."""


def published_keys(url, cooldown=30, max_age=300):
    """A function from a `kid` to the gateway's key.

    Keys are fetched again after `max_age` seconds and on an unknown `kid`, at most every `cooldown` seconds. PyJWT does
    not read the answer's own max-age; 300 s is what the gateway says unless a key was compromised.
    """
    return jwt.PyJWKClient(url, lifespan=max_age, cooldown_duration=cooldown, timeout=5).get_signing_key


class Verifier:
    def __init__(self, issuer, audience, find_key):
        self._issuer, self._audience, self._find_key = issuer, audience, find_key

    def verify(self, token):
        """The claims of a genuine assertion for this upstream; raises Rejected for anything else, None included."""
        shape = SHAPE.fullmatch(token) if token and len(token) <= LONGEST else None
        if not shape:
            raise Rejected("not a compact JWS")
        header = parse(shape[1])
        # The exact header: no jwk, jku, x5u, x5c or crit could matter. PyJWT does not look at typ.
        if set(header) != {"alg", "typ", "kid"} or header["alg"] != "ES256" or header["typ"] != TYPE:
            raise Rejected("not the header of an assertion")
        if not isinstance(header["kid"], str):
            raise Rejected("kid is no string")
        try:
            jwt.decode(
                token,
                self._find_key(header["kid"]),
                algorithms=["ES256"],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": list(CLAIMS), "strict_aud": True},  # without strict_aud a list passes
            )
        except jwt.PyJWKClientConnectionError as problem:
            print(f"cannot fetch the keys: {problem}", file=sys.stderr)
            raise Rejected("no keys") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, LookupError) as problem:
            raise Rejected(type(problem).__name__) from None
        claims = parse(shape[2])
        # PyJWT takes "1795478450", 1.5 and true for times. type(): bool is an int to isinstance.
        if any(type(claims[name]) is not kind for name, kind in CLAIMS.items()):
            raise Rejected("a claim of another type")
        if not 0 < claims["exp"] - claims["iat"] <= LIFE:
            raise Rejected("it lives too long")
        if not all(claims[name] for name in ("sub", "jti", "sid")):
            raise Rejected("an empty claim")
        return claims


def parse(segment):
    """The JSON object of one segment, whose members are unique."""

    def unique(members):
        if len(dict(members)) != len(members):
            raise ValueError("a member comes twice")
        return dict(members)

    try:
        value = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise Rejected("not JSON") from None
    if not isinstance(value, dict):
        raise Rejected("not a JSON object")
    return value


# --- Trying it out ---------------------------------------------------------------------------------------------------


def conformance(path):
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    keys = jwt.PyJWKSet.from_dict(document["jwks"])
    verifier = Verifier(document["issuer"], document["audience"], keys.__getitem__)
    for case in document["cases"]:
        try:
            verifier.verify(case["token"])
            print(f"accepted {case['name']}")
        except Rejected:
            print(f"rejected {case['name']}")


def serve(issuer, audience, jwks_url):
    verifier = Verifier(issuer, audience, published_keys(jwks_url))

    class Console(BaseHTTPRequestHandler):
        def do_GET(self):
            tokens = self.headers.get_all(FIELD, [])
            try:
                if len(tokens) != 1:
                    raise Rejected("not one assertion")
                self.answer(200, verifier.verify(tokens[0]))
            except Rejected:
                self.answer(401, {"error": "unauthorized"})

        def answer(self, status, body):
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass  # never log the assertion

    server = ThreadingHTTPServer(("127.0.0.1", 0), Console)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    {"conformance": conformance, "serve": serve}[sys.argv[1]](*sys.argv[2:])
