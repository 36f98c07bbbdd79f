#!/usr/bin/env python3
"""Runs the samples of deploy/upstreams with their real libraries.

    tests/upstreams/samples.py --python VENV/bin/python3 --node FOLDER --jars FOLDER target/debug/sekisho [SAMPLE...]

Each sample judges every token of the conformance file. Then it stands behind a real gateway, where somebody has signed
in: it believes what it is sent, and nothing that was tampered with, doubled or made for another; unknown keys cost it
no fetch each; a planned rotation is noticed by none; and after a compromise or a suspension none believes the key any more.
Days pass in that: gateway and samples are under one clock, which is moved and not waited for.
Needs node, javac, java, nginx with njs, faketime, the libraries in VENV and FOLDER/node_modules, the jars of
tests/upstreams/jars.py, and else nothing but Python's standard library. Exits 0, or 1 with what went wrong.
"""

import argparse
import base64
import collections
import concurrent.futures
import http.client
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent / "browser"))
from dev import PATIENCE, Failed, Process, needed, until  # noqa: E402
from w3m import Page, free_port  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "deploy" / "upstreams"
CONFORMANCE = SAMPLES / "conformance" / "assertion.json"
NJS = "/usr/lib/nginx/modules/ngx_http_js_module.so"
FIELD = "Sekisho-Jwt-Assertion"
HOST = "admin.example.jp"
ISSUER = f"http://{HOST}"
# Seconds: what a verifier may keep the JWKS for, how long it leaves unknown keys alone, for how long a key is published before
# it signs (the least that may be configured, so that none is left over), and how long its predecessor stays.
MAX_AGE, COOLDOWN, PUBLISHED, KEPT = 300, 30, 360, 86400
# An au handset: its carrier's gateway writes the identifier into each request, whatever the URL.
SOURCE = "127.0.2.7"
HANDSET = {"Host": HOST, "User-Agent": "KDDI-CA39 UP.Browser/6.2.0.13.1.5 (FUI) MMP/2.0"}
IDENTIFIER = {"X-UP-SUBNO": "05990017031004_w5.ezweb.ne.jp"}
CONFIG = """
[gateway]
public_url = "{issuer}"
[[listener]]
serves = "handset"
address = "127.0.0.1:{port}"
[admin]
socket = "admin.sock"
[carriers.au]
networks = ["127.0.2.0/24"]
[store]
path = "store.db"
[keys]
kek = {{ file = "kek" }}
assertion_publish = "{published}s"
[session]
idle = "30d"
absolute = "30d"
[notice]
controller = "Example KK"
contact = "https://example.jp/contact"
revision = "2026-11-23"
"""
UPSTREAM = """
[[upstream]]
name = "{name}"
servers = ["http://127.0.0.1:{port}"]
audience = "https://{name}.internal"
[[route]]
path = "/{name}"
upstream = "{name}"
access = "session"
"""


def ask(port, path, fields=(), method="GET", body=None, source=None):
    """One request on a connection of its own; fields may repeat. The status, the fields and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE, source_address=source and (source, 0))
    try:
        fields = list(fields)
        connection.putrequest(method, path, skip_host=any(name == "Host" for name, _ in fields))
        for name, value in fields:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def expect(what, found, wanted):
    if found != wanted:
        raise Failed(f"{what}: {found!r}, not {wanted!r}")


class Middle(http.server.BaseHTTPRequestHandler):
    """Between gateway and samples: notes what passes, and says what the published keys are."""

    protocol_version = "HTTP/1.1"
    samples = {}  # name: port
    told = {}  # name: the last assertions
    asked = collections.defaultdict(list)  # name: when it fetched the keys
    now = time.monotonic  # the clock for that, in seconds
    keys = None  # a function to the JWKS document and its Cache-Control

    def do_GET(self):
        _, kind, *rest = urlsplit(self.path).path.split("/")
        if kind == "jwks":
            Middle.asked[rest[0]].append(Middle.now())
            document, cache = Middle.keys()
            return self.answer(200, json.dumps(document).encode(), cache)
        if kind == "console":  # what stands behind nginx
            return self.answer(200, json.dumps({"sub": self.headers.get("X-Subject")}).encode())
        assertions = self.headers.get_all(FIELD, [])
        Middle.told[kind] = assertions
        status, _, body = ask(Middle.samples[kind], "/console", [(FIELD, value) for value in assertions])
        return self.answer(status, body)

    def answer(self, status, body, cache="no-store"):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", cache)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Gateway:
    """A gateway with an upstream for each sample, all of them behind [`Middle`], and a handset that is signed in."""

    def __init__(self, binary, folder, middle, names, faked):
        self.binary, self.folder, self.port = binary, folder, free_port()
        folder.mkdir(mode=0o700)
        (folder / "kek").touch(mode=0o600)
        (folder / "kek").write_text(base64.b64encode(os.urandom(32)).decode())
        upstreams = "".join(UPSTREAM.format(name=name, port=middle) for name in names)
        (folder / "gateway.toml").write_text(CONFIG.format(issuer=ISSUER, port=self.port, published=PUBLISHED) + upstreams)
        self.process = Process(*faked, binary, "serve", "--config", str(folder / "gateway.toml"))
        self.process.says(r"listening|ready")
        self.cookie = self.sign_in(f"/{names[0]}/")

    def open(self, url, fields=(), method="GET", body=None):
        target = urlsplit(url)
        path = target.path + (f"?{target.query}" if target.query else "")
        return ask(self.port, path, [*HANDSET.items(), *fields], method, body, SOURCE)

    def sign_in(self, start):
        identified = list(IDENTIFIER.items())
        page = Page(ISSUER + start, self.open(start, identified)[2].decode("cp932"))
        page = Page(ISSUER, self.open(page.link("/_sekisho/login"), identified)[2].decode("cp932"))
        method, action, fields = page.form("/_sekisho/enrol")
        form = {**dict(fields), "code": re.sub(r"\D", "", self.run("codes", "issue", "clerk")["code"])}
        typed = ("Content-Type", "application/x-www-form-urlencoded")
        body = urlencode(form).encode()
        status, answer, _ = self.open(urljoin(ISSUER, action), [*identified, typed], method.upper(), body)
        expect("signing in", status, 302)
        return answer["Set-Cookie"].split(";")[0]

    def passes(self, name):
        """The status and the document that the sample answers to the handset's request."""
        fields = [*IDENTIFIER.items(), ("Cookie", self.cookie)]
        status, _, body = self.open(f"/{name}/orders", fields)
        return status, json.loads(body) if status == 200 else None

    def run(self, *verb):
        command = [self.binary, *verb, "--socket", str(self.folder / "admin.sock"), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE).stdout)

    def jwks(self):
        """The document, and its Cache-Control."""
        status, fields, body = self.open("/_sekisho/jwks.json")
        expect("the status of the JWKS", status, 200)
        return json.loads(body), fields["Cache-Control"]

    def published(self):
        return {key["kid"] for key in self.jwks()[0]["keys"]}


# --- The samples -----------------------------------------------------------------------------------------------------


class Sample:
    """A program of its own: `conformance FILE` and `serve ISSUER AUDIENCE JWKS_URL`."""

    def __init__(self, name, command, faked=()):
        self.name, self.command, self.faked = name, command, list(faked)

    def judge(self, _):
        done = subprocess.run(
            [*self.faked, *self.command, "conformance", str(CONFORMANCE)],
            capture_output=True, text=True, timeout=2 * PATIENCE,
        )  # fmt: skip
        if done.returncode:
            raise Failed(f"{self.name} ended with {done.returncode}:\n{done.stderr}")
        return dict(line.split(" ", 1)[::-1] for line in done.stdout.splitlines())

    def serve(self, middle, faked, started):
        audience, keys = f"https://{self.name}.internal", f"http://127.0.0.1:{middle}/jwks/{self.name}"
        process = Process(*faked, *self.command, "serve", ISSUER, audience, keys)
        started(process)
        return int(process.says(r"listening on http://127\.0\.0\.1:(\d+)")[1])


class Nginx:
    """nginx with the sample's configuration, in which paths and addresses are the test's."""

    def __init__(self, scratch):
        self.name, self.scratch, self.count = "nginx", scratch, 0

    def start(self, issuer, audience, middle, faked, started):
        self.count += 1
        folder = self.scratch / f"nginx-{self.count}"
        folder.mkdir()
        port = free_port()
        text = (SAMPLES / "nginx" / "nginx.conf").read_text()
        for old, new in [
            ("modules/ngx_http_js_module.so", NJS),
            ("/etc/nginx/njs", str(SAMPLES / "nginx")),
            ("/var/lib/nginx/sekisho", str(folder / "cache")),
            ("listen 127.0.0.1:9000", f"listen 127.0.0.1:{port}"),
            ("https://admin.example.jp", issuer),
            ("https://console.internal", audience),
            ("http://127.0.0.1:9090/_sekisho/jwks.json", f"http://127.0.0.1:{middle}/jwks/nginx"),
            ("proxy_pass http://127.0.0.1:9001;", f"proxy_pass http://127.0.0.1:{middle};"),
        ]:
            if old not in text:
                raise Failed(f"nginx.conf no longer has {old!r}")
            text = text.replace(old, new)
        user = "user root;" if os.geteuid() == 0 else ""
        # nginx takes most of its environment away from its workers, where libfaketime looks for the clock.
        own = "env FAKETIME_TIMESTAMP_FILE; env FAKETIME_NO_CACHE; "
        own += f"daemon off; pid {folder}/pid; error_log stderr notice; worker_processes 1; {user}\n"
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        text = own + text.replace("http {", f"http {{ access_log off; {temporary}", 1)
        (folder / "nginx.conf").write_text(text)
        process = Process(*faked, "nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf"))
        started(process)
        process.says("start worker process ")
        return port

    def judge(self, document):
        """Sends each token that a header can carry."""
        Middle.keys = lambda: (document["jwks"], f"max-age={MAX_AGE}")
        said, running = {}, []
        try:
            issuer, audience, faked = document["issuer"], document["audience"], fake(document["now"])
            port = self.start(issuer, audience, self.middle, faked, running.append)
            for case in document["cases"]:
                token = case["token"]
                # HTTP takes away white space around a value, and no server lets the others through.
                if token == token.strip() and token.isprintable() and token.isascii():
                    status, _, body = ask(port, "/console", [(FIELD, token)])
                    if status not in (200, 400, 401):
                        raise Failed(f"nginx says {status} to {case['name']}: {running[0].text}")
                    said[case["name"]] = "accepted" if status == 200 else "rejected"
        finally:
            for process in running:
                process.end()
        return said

    def serve(self, middle, faked, started):
        return self.start(ISSUER, "https://nginx.internal", middle, faked, started)


def faketime(**settings):
    """A command that runs another under libfaketime."""
    # Not by faketime itself: it stays in between, and a signal to it would not reach what it runs. With -m, for programs of
    # many threads: without, a thread that asks while another reads the file is told the machine's time now and then.
    library = subprocess.run(
        ["faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"], check=True, capture_output=True, text=True, timeout=PATIENCE
    ).stdout.strip()
    return ["env", "TZ=UTC", f"LD_PRELOAD={library}", *(f"{name}={value}" for name, value in settings.items())]


def fake(now):
    """A command that runs another with its clock at `now`, in seconds since the Unix epoch."""
    return faketime(FAKETIME=time.strftime("@%Y-%m-%d %H:%M:%S", time.gmtime(now)))


class Clock:
    """The time for all that run under `command`: by every clock they have, as much more of it passed as this was moved."""

    def __init__(self, file):
        self.file, self.ahead = file, 0
        self.move(0)
        self.command = faketime(FAKETIME_TIMESTAMP_FILE=file, FAKETIME_NO_CACHE=1)

    def move(self, seconds):
        self.ahead += seconds
        written = self.file.with_suffix(".new")
        written.write_text(f"+{self.ahead}\n")
        written.replace(self.file)

    def now(self):
        return time.monotonic() + self.ahead


# --- What they must do -----------------------------------------------------------------------------------------------


def conformance(sample, document):
    said = sample.judge(document)
    cases = {case["name"]: case["expect"] + "ed" for case in document["cases"]}
    wrong = [f"{name}: {said[name]}" for name in said if said[name] != cases[name]]
    if wrong:
        raise Failed(f"{sample.name} judges wrongly:\n" + "\n".join(wrong))
    # What cannot be sent to nginx is no more than this.
    if len(said) < len(cases) - 8 or not all(name in said for name in cases if cases[name] == "accepted"):
        raise Failed(f"{sample.name} judged {len(said)} tokens of {len(cases)}")
    counts = collections.Counter(said.values())
    print(f"ok: {sample.name} accepts {counts['accepted']} tokens and rejects {counts['rejected']}", flush=True)


def believes_the_gateway_alone(gateway, names):
    """Returns the assertions that passed."""
    subjects, tokens = set(), {}
    for name in names:
        status, claims = gateway.passes(name)
        expect(f"{name}, by the gateway", status, 200)
        subjects.add(claims["sub"])
        [tokens[name]] = Middle.told[name]
    expect("people known by a pairwise id", [len(subject) for subject in subjects], [22] * len(names))
    for name in names:
        other = tokens[names[names.index(name) - 1]]
        token = tokens[name]
        header, payload, signature = token.split(".")
        turned = signature[:40] + ("A" if signature[40] != "A" else "B") + signature[41:]
        for what, assertions, wanted in [
            ("as it came", [token], 200),
            ("under another spelling of the field", [], 401),
            ("twice", [token, token], 401),
            ("beside an empty one", [token, ""], 401),
            ("with another signature", [f"{header}.{payload}.{turned}"], 401),
            ("one for another upstream", [other], 200 if other == token else 401),
            ("before one for another", [token, other], 401),
        ]:
            fields = [(FIELD, value) for value in assertions] or [(FIELD.replace("-", "_"), token)]
            expect(f"{name}: an assertion {what}", ask(Middle.samples[name], "/console", fields)[0], wanted)
    print(f"ok: {', '.join(names)} believe what the gateway sends, and nothing else", flush=True)
    return list(tokens.values())


def unknown_keys_cost_no_fetch(name, token):
    """Sends a flood of tokens whose kid is unknown, and the genuine one after it."""
    header, payload, signature = token.split(".")
    document = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))

    def unknown(number):
        text = json.dumps({**document, "kid": f"unknown-{number}"}, separators=(",", ":"))
        header = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return ask(Middle.samples[name], "/console", [(FIELD, f"{header}.{payload}.{signature}")])[0]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        expect(f"{name}: unknown keys", set(pool.map(unknown, range(60))), {401})
    expect(f"{name} after that", ask(Middle.samples[name], "/console", [(FIELD, token)])[0], 200)
    fetches = len(Middle.asked[name])
    if not 1 <= fetches <= 3:
        raise Failed(f"{name} fetched the keys {fetches} times for 60 unknown ones")
    print(f"ok: {name} fetched the keys {fetches} times for 60 unknown ones", flush=True)


class Upstreams:
    """The samples behind one gateway, as its keys change and time passes."""

    def __init__(self, gateway, clock, names):
        self.gateway, self.clock, self.names = gateway, clock, names

    def asked(self, when):
        """A request for each, which each must let pass. The keys that vouch for them."""
        used = set()
        for name in self.names:
            expect(f"{name}, {when}", self.gateway.passes(name)[0], 200)
            [token] = Middle.told[name]
            used.add(json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "==="))["kid"])
        return used

    def fetch(self, when):
        """Lets what they have of the keys become old, so that all fetch them now, and may keep them. The key in use."""
        self.clock.move(KEPT)
        until("the keys may be kept", lambda: self.gateway.jwks()[1] == f"public, max-age={MAX_AGE}")
        before = self.clock.now()
        [kid] = self.asked(when)
        expect(f"who fetched the keys, {when}", [name for name in self.names if Middle.asked[name][-1] < before], [])
        return kid

    def fetched(self):
        return [len(Middle.asked[name]) for name in self.names]


def nobody_notices_a_rotation(upstreams):
    gateway, clock, names = upstreams.gateway, upstreams.clock, upstreams.names
    # The worst moment: they may keep what they have for as long as can be, and the next key is not in it.
    old = upstreams.fetch("before a rotation")
    gateway.run("rotation", "start", "--purpose", "assertion", "--reason", "a planned one")
    began = clock.now()
    [new] = gateway.published() - {old}
    while clock.now() - began < PUBLISHED - 5:
        clock.move(5)
        expect("the key in use", upstreams.asked(f"{clock.now() - began:.0f} s into a rotation"), {old})
    # What is due the gateway looks up every 5 s, and no clock that is moved wakes it: this alone is waited for.
    clock.move(5)
    until("the next key signs", lambda: upstreams.asked("as the keys change") == {new})
    for name in names:
        # Nothing but max-age made them ask: a kid that they did not know would have, 30 s after the last time.
        times = [moment for moment in Middle.asked[name] if moment > began - MAX_AGE / 2]
        apart = [f"{after - before:.1f}" for before, after in zip(times, times[1:]) if after - before < MAX_AGE - 1]
        if apart or len(times) < 2:
            raise Failed(f"{name} fetched the keys {len(times)} times, {', '.join(apart)} s after the time before")
    clock.move(KEPT - 60)
    expect("keys, short of a day later", gateway.published(), {old, new})
    expect("the key in use, short of a day later", upstreams.asked("short of a day later"), {new})
    clock.move(60)
    until("the former key is no longer published", lambda: gateway.published() == {new})
    expect("the key in use, a day later", upstreams.asked("a day later"), {new})
    print(f"ok: {', '.join(names)} refuse nothing in a planned rotation, and fetch the keys when max-age is over", flush=True)


def active(gateway):
    """The id of the key that signs."""
    keys = gateway.run("keys", "list")["keys"]
    [key] = [key["id"] for key in keys if key["purpose"] == "assertion" and key["state"] == "active"]
    return key


def a_key_comes_without_notice(upstreams):
    """What comes after a leak, while they may keep the keys from before: each asks for the kid, and lets the request pass."""
    leaked = upstreams.fetch("before a compromise")
    upstreams.clock.move(COOLDOWN + 1)
    upstreams.gateway.run("keys", "compromise", active(upstreams.gateway), "--reason", "found in a bucket")
    fetched = upstreams.fetched()
    expect("whether the leaked key is used", upstreams.asked("after a compromise") & {leaked}, set())
    expect("fetches for a key without notice", upstreams.fetched(), [number + 1 for number in fetched])
    print(f"ok: {', '.join(upstreams.names)} find a key that comes without notice", flush=True)


def a_key_that_is_withdrawn_is_forgotten(upstreams, verb):
    """Whoever knows nothing of it but what max-age lets it know believes the key no longer than that."""
    upstreams.fetch(f"before {verb}")
    upstreams.clock.move(MAX_AGE - 40)
    fetched = upstreams.fetched()
    upstreams.asked(f"shortly before {verb}")
    tokens = {name: Middle.told[name] for name in upstreams.names}

    def believed():
        fields = {name: [(FIELD, token) for token in tokens[name]] for name in tokens}
        return [ask(Middle.samples[name], "/console", fields[name])[0] for name in upstreams.names]

    key = active(upstreams.gateway)
    upstreams.gateway.run("keys", verb, key, *(["--reason", "found in a bucket"] if verb == "compromise" else []))
    expect(f"Cache-Control after {verb}", upstreams.gateway.jwks()[1], "public, max-age=0")
    expect(f"who believes the key within max-age, after {verb}", believed(), [200] * len(fetched))
    expect(f"who fetched the keys within max-age, after {verb}", upstreams.fetched(), fetched)
    # The tokens are 55 s old then, and so not over for who gives them 30 s more.
    upstreams.clock.move(55)
    expect(f"who believes the key past max-age, after {verb}", believed(), [401] * len(fetched))
    if verb == "suspend":
        expect("the published keys while the only one is suspended", upstreams.gateway.published(), set())
        upstreams.gateway.run("keys", "resume", key)
        upstreams.clock.move(COOLDOWN + 1)
    upstreams.asked(f"a while after {verb}")
    print(f"ok: {', '.join(upstreams.names)} forget a key within max-age, after {verb}", flush=True)


class Serving:
    """The samples, each behind [`Middle`], for as long as this is open."""

    def __init__(self, samples, middle, faked):
        self.samples, self.middle, self.faked, self.processes = samples, middle, faked, []

    def __enter__(self):
        try:
            for sample in self.samples:
                Middle.samples[sample.name] = sample.serve(self.middle, self.faked, self.processes.append)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.end()

    def wrote(self):
        return "".join(process.text for process in self.processes)


def everything(arguments):
    binary = os.path.abspath(arguments.binary)
    document = json.loads(CONFORMANCE.read_text())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Middle)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    middle = Nginx.middle = server.server_port
    with tempfile.TemporaryDirectory(prefix="sekisho-upstreams-") as scratch:
        scratch = Path(scratch)
        shutil.copytree(SAMPLES / "node", scratch / "node")
        (scratch / "node" / "node_modules").symlink_to(Path(arguments.node).resolve() / "node_modules")
        jars = str(Path(arguments.jars).resolve() / "*")
        if "java" in arguments.samples:
            source, classes = str(SAMPLES / "java" / "SekishoAssertion.java"), str(scratch / "java")
            compiler = ["javac", "-Xlint:all,-serial", "-Werror", "-cp", jars, "-d", classes, source]
            subprocess.run(compiler, check=True, timeout=2 * PATIENCE)
        every = {
            "python": Sample(
                "python", [arguments.python, str(SAMPLES / "python" / "sekisho_assertion.py")], fake(document["now"])
            ),
            "node": Sample("node", ["node", str(scratch / "node" / "sekisho-assertion.js")]),
            "java": Sample("java", ["java", "-cp", f"{jars}:{scratch}/java", "SekishoAssertion"]),
            "nginx": Nginx(scratch),
        }
        samples = [every[name] for name in arguments.samples]
        for sample in samples:
            conformance(sample, document)

        names = arguments.samples
        clock = Clock(scratch / "clock")
        Middle.now = clock.now
        gateway = Gateway(binary, scratch / "gateway", middle, names, clock.command)
        try:
            Middle.keys = gateway.jwks
            Middle.asked.clear()
            with Serving(samples, middle, clock.command) as serving:
                tokens = believes_the_gateway_alone(gateway, names)
                for name, token in zip(names, tokens):
                    unknown_keys_cost_no_fetch(name, token)
                upstreams = Upstreams(gateway, clock, names)
                nobody_notices_a_rotation(upstreams)
                a_key_comes_without_notice(upstreams)
                a_key_that_is_withdrawn_is_forgotten(upstreams, "compromise")
                a_key_that_is_withdrawn_is_forgotten(upstreams, "suspend")
        finally:
            gateway.process.end()
        written = serving.wrote()
        if any(part in written for token in tokens for part in token.split(".")[1:]):
            raise Failed(f"an assertion is in a log:\n{written}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="the sekisho program")
    parser.add_argument("--python", required=True, help="a Python that has python/requirements.txt installed")
    parser.add_argument("--node", required=True, help="a folder in which node/package.json is installed")
    parser.add_argument("--jars", required=True, help="a folder with what tests/upstreams/jars.py fetches")
    parser.add_argument("samples", nargs="*", metavar="SAMPLE", help="python, node, java, nginx; all by default")
    arguments = parser.parse_args()
    arguments.samples = arguments.samples or ["python", "node", "java", "nginx"]
    try:
        for program in ("node", "javac", "java", "nginx", "faketime"):
            needed(program)
        everything(arguments)
    except (Failed, OSError, ValueError, subprocess.SubprocessError, http.client.HTTPException) as failed:
        sys.exit(f"failed: {failed}")


if __name__ == "__main__":
    main()
