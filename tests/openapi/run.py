#!/usr/bin/env python3
"""Holds the running admin API to its own description: run.py SEKISHO SCHEMATHESIS WORK

Starts the gateway SEKISHO on the embedded store in the folder WORK, with an admin listener on a free port of loopback and
a client certificate that has every role, and lets SCHEMATHESIS (the command) ask it everything that /openapi.json
describes, and what it forbids. Exit code 0: every answer was one that the description promises.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

CONFIG = """
[gateway]
public_url = "http://admin.example.jp"
[[listener]]
serves = "handset"
address = "127.0.0.1:0"
[[listener]]
serves = "admin"
address = "127.0.0.1:0"
tls = { certificate = "server.pem", key = "server.key", client_ca = "ca.pem" }
[admin]
socket = "admin.sock"
approvals = 2
[admin.roles]
operator = ["cert:tester"]
security = ["cert:tester", "cert:other"]
privacy = ["cert:tester"]
auditor = ["cert:tester"]
[carriers.private-apn]
header = "X-Device-Ref"
grammar = "^[A-Za-z0-9_-]{22,64}$"
user_agent = "any"
networks = ["127.0.4.0/24"]
[[upstream]]
name = "console"
servers = ["http://127.0.0.1:9"]
audience = "https://console.internal"
[[route]]
path = "/"
upstream = "console"
[binding]
stretch = "off"
[store]
path = "store"
[keys]
kek = { file = "kek" }
[notice]
controller = "Example KK"
contact = "https://example.jp/contact"
revision = "2026-11-23"
[log]
access = { to = "off" }
"""


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificate(work, name, extensions):
    key, pem = work / f"{name}.key", work / f"{name}.pem"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    request = work / f"{name}.csr"
    openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
    (work / "extensions").write_text(extensions)
    openssl("x509", "-req", "-in", request, "-CA", work / "ca.pem", "-CAkey", work / "ca.key", "-days", "2", "-out", pem,
            "-extfile", work / "extensions")


def main():
    sekisho, schemathesis, work = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).resolve()
    here = pathlib.Path(__file__).resolve().parent
    work.mkdir(parents=True)
    os.umask(0o077)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=authority",
            "-days", "2", "-keyout", work / "ca.key", "-out", work / "ca.pem",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    certificate(work, "server", "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost\n")
    certificate(work, "tester", "extendedKeyUsage=clientAuth\n")
    (work / "kek").write_text("q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n")
    (work / "gateway.toml").write_text(CONFIG)

    gateway = subprocess.Popen([sekisho, "serve", "--config", work / "gateway.toml"], stdout=subprocess.PIPE, text=True)
    try:
        address = None
        for line in gateway.stdout:
            event = json.loads(line)
            if event.get("serves") == "admin":
                address = event["address"]
                break
        if address is None:
            sys.exit("the gateway did not start")
        # Whoever does not read a pipe stops who writes into it.
        threading.Thread(target=gateway.stdout.read, daemon=True).start()
        url = f"https://localhost:{address.rsplit(':', 1)[1]}"
        shown = ["--admin-url", url, "--cert", work / "tester.pem", "--key", work / "tester.key", "--ca", work / "ca.pem"]
        # Something to find, by the way that operators go.
        subprocess.run([sekisho, "codes", "issue", "alice", "--json", *shown], check=True, stdout=subprocess.DEVNULL)
        line = json.dumps({"account": "alice", "carrier": "private-apn", "identifier": "A" * 22})
        subprocess.run([sekisho, "bindings", "import", "--json", *shown], input=line + "\n", text=True, check=True,
                       stdout=subprocess.DEVNULL)
        # One worker: with more, CPython before 3.12 now and then fails to parse source texts for one of them (its issue 106905).
        asked = subprocess.run([
            schemathesis, "--config-file", here / "schemathesis.toml", "run", f"{url}/openapi.json", "--seed", "1",
            "--max-examples", "100", "--workers", "1", "--continue-on-failure", "--request-timeout", "20",
            "--tls-verify", work / "ca.pem", "--request-cert", work / "tester.pem",
            "--request-cert-key", work / "tester.key", "--warnings", "off", "--no-color",
        ], cwd=work, env={**os.environ, "SCHEMATHESIS_HOOKS": str(here / "hooks.py")})
        sys.exit(asked.returncode)
    finally:
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(60)


main()
