#!/usr/bin/env python3
"""Walks the whole way with w3m, a browser without script or style, behind a carrier's gateway.

    tests/browser/w3m.py target/debug/sekisho [HANDSET...]

Sign-in page, button, enrolment code by its form, console and a form of it, self-service, sign out; then again without a
code; then a code for another handset is made, and this one is removed. Once as an i-mode handset of 2006, once as one of 1999 that cannot post, and once as a
J-PHONE of 2002 that drops the query of a form's URL, all without cookies, so that the session travels in links; and once
as an au handset of 2004, whose cookies its carrier keeps.
Needs w3m, and nothing but Python's standard library. Exits 0, or 1 with what went wrong.
"""

import argparse
import base64
import http.client
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

from dev import PATIENCE, Failed, Process, needed

HOST = "admin.example.jp"
# User-Agent, source address, the field of the identifier, the identifier, whether cookies are kept.
HANDSETS = {
    "i-mode-2006": ("DoCoMo/2.0 P903i(c100;TB;W24H12)", "127.0.1.7", "X-DCMGUID", "Qx06aaa", False),
    "i-mode-1999": ("DoCoMo/1.0/D501i", "127.0.1.8", "X-DCMGUID", "Qx99bbb", False),
    "j-phone-2002": ("J-PHONE/4.0/J-K51 KW/1.00", "127.0.3.7", "X-JPHONE-UID", "Qx02ccc000000000", False),
    "au-2004": (
        "KDDI-CA39 UP.Browser/6.2.0.13.1.5 (FUI) MMP/2.0",
        "127.0.2.7",
        "X-UP-SUBNO",
        "05990017031004_w5.ezweb.ne.jp",
        True,
    ),
}
CONFIG = """
[gateway]
public_url = "http://{host}"
[[listener]]
serves = "handset"
address = "127.0.0.1:{port}"
[admin]
socket = "admin.sock"
[carriers.docomo]
networks = ["127.0.1.0/24"]
[carriers.au]
networks = ["127.0.2.0/24"]
[carriers.softbank]
networks = ["127.0.3.0/24"]
[[upstream]]
name = "console"
servers = ["http://127.0.0.1:{console}"]
audience = "https://console.internal"
[[route]]
path = "/"
upstream = "console"
access = "session"
[store]
path = "store.db"
[keys]
kek = {{ file = "kek" }}
[notice]
controller = "Example KK"
contact = "https://example.jp/contact"
revision = "2026-11-23"
[log]
access = {{ file = "access.log", format = "json" }}
"""


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Console(Quiet):
    """The console behind the gateway: pages in Shift_JIS with links, and a record of what it was told."""

    told = []

    def do_GET(self):
        self.answer("")

    def do_POST(self):
        length = self.headers["Content-Length"]
        self.answer(self.rfile.read(int(length)).decode())

    def answer(self, sent):
        self.told.append(f"{self.path}\n{self.headers}{sent}")
        links = '<a href="/stock?page=2" accesskey="1">在庫</a> <a href="/_sekisho/me">me</a>'
        links += f'<form method="post" action="/find?by=name"><input name="q"></form><p>{sent}</p>'
        text = f"<html><title>管理</title><p>表示 {urlsplit(self.path).path}</p>{links}</html>"
        body = text.encode("cp932")
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=Shift_JIS")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class CarrierGateway(Quiet):
    """What stands between a handset and the site: connects from the carrier's network and writes the identifier."""

    handset = None
    gateway = None
    asked = []
    kept = {}

    def do_GET(self):
        self.pass_on(None)

    def do_POST(self):
        self.pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def pass_on(self, body):
        agent, source, field, identifier, cookies = self.handset
        self.asked.append(self.path)
        url = urlsplit(self.path)
        if url.netloc != HOST:
            raise Failed(f"the handset was sent away to {self.path}")
        fields = dict(self.headers.items())
        fields.pop("Proxy-Connection", None)
        fields["User-Agent"] = agent
        if field != "X-DCMGUID" or "guid=on" in url.query.lower():
            fields[field] = identifier
        jar = self.kept.setdefault(identifier, {})
        if jar:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        target = url.path + (f"?{url.query}" if url.query else "")
        onward = http.client.HTTPConnection("127.0.0.1", self.gateway, PATIENCE, source_address=(source, 0))
        onward.request(self.command, target, body, fields)
        answer = onward.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                if cookies:
                    name, value = value.split(";")[0].split("=", 1)
                    jar[name] = value
                continue
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        onward.close()


class Page(HTMLParser):
    """Links and forms of one page."""

    def __init__(self, url, source):
        super().__init__()
        self.url, self.source, self.links, self.forms = url, source, [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "form":
            self.forms.append((values.get("method", "get"), values["action"], []))
        elif tag == "input" and self.forms and "name" in values:
            self.forms[-1][2].append((values["name"], values.get("value", "")))

    def link(self, part):
        for link in self.links:
            if part in link:
                return urljoin(self.url, link)
        raise Failed(f"{self.url} has no link to {part}:\n{self.source}")

    def form(self, part):
        for form in self.forms:
            if part in form[1]:
                return form
        raise Failed(f"{self.url} has no form for {part}:\n{self.source}")


class Handset:
    """w3m as one handset."""

    def __init__(self, name, proxy, home):
        self.name, self.home = name, home / name
        self.home.mkdir()
        self.cookies = HANDSETS[name][4]
        self.command = ["w3m", "-no-cookie", "-o", f"http_proxy=http://127.0.0.1:{proxy}", "-dump_source"]

    def open(self, url, post=None):
        command = list(self.command)
        if post is not None:
            form = self.home / "form"
            form.write_text(urlencode(post))
            command += ["-post", str(form)]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        command.append(url)
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        # Handsets of that age get Shift_JIS from everybody.
        text = done.stdout.decode("cp932")
        if not text:
            raise Failed(f"{self.name}: {url} shows nothing: {done.stderr.decode()}")
        if re.search(r"<script|\bonclick", text):
            raise Failed(f"{self.name}: {url} has a script")
        return Page(CarrierGateway.asked[-1], text)

    def send(self, page, part, typed=()):
        """Fills the form in and sends it, as its method says."""
        method, action, fields = page.form(part)
        fields = [(name, dict(typed).get(name, value)) for name, value in fields]
        url = urljoin(page.url, action)
        if self.name == "j-phone-2002":
            url = url.split("?")[0]
        if (method == "get") != (self.name == "i-mode-1999"):
            raise Failed(f"{self.name} was given a form by {method}")
        if method == "get":
            return self.open(url.split("?")[0] + "?" + urlencode(fields))
        return self.open(url, fields)


def shows(page, what, *signs):
    if not all(sign in page.source for sign in signs):
        raise Failed(f"{page.url} is not {what}:\n{page.source}")


def walk(handset, code):
    secrets = set()
    start = f"http://{HOST}/orders"
    page = handset.open(start)
    page = handset.open(page.link("/_sekisho/login"))
    shows(page, "the enrolment page", 'name="code"', 'istyle="4"')
    page = handset.send(page, "/_sekisho/enrol", {"code": "000000000000"})
    shows(page, "the enrolment page", 'name="code"')
    page = handset.send(page, "/_sekisho/enrol", {"code": code})
    shows(page, "the console", "表示 /orders")
    page = handset.open(page.link("/stock"))
    shows(page, "the console's next page", "表示 /stock")
    token = re.search(r"[?&]_sk=([\w-]+)", page.url)
    if bool(token) == handset.cookies:
        raise Failed(f"{handset.name}: a session {'in the URL' if token else 'that the URL does not carry'}: {page.url}")
    if handset.name != "i-mode-1999":
        page = handset.send(page, "/find", {"q": "typed"})
        shows(page, "the answer to a form", "表示 /find", "<p>q=typed</p>")
    page = handset.open(page.link("/_sekisho/me"))
    shows(page, "the self-service page", "/_sekisho/me/remove", "clerk-")
    page = handset.open(page.link("/_sekisho/logout"))
    page = handset.send(page, "/_sekisho/logout")
    if token:
        secrets.add(token[1])
        stolen = handset.open(start + f"?_sk={token[1]}")
        shows(stolen, "the sign-in page once the session is over", "/_sekisho/login")
    page = handset.open(start)
    page = handset.open(page.link("/_sekisho/login"))
    shows(page, "the console, without a code", "表示 /orders")
    secrets |= set(re.findall(r"[?&]_sk=([\w-]+)", page.url))
    page = handset.open(page.link("/_sekisho/me"))
    page = handset.open(page.link("/_sekisho/me/add"))
    page = handset.send(page, "/_sekisho/me/add")
    made = re.search(r"\d{4}-\d{4}-\d{4}", page.source)
    if not made:
        raise Failed(f"{handset.name}: {page.url} shows no code for another handset:\n{page.source}")
    secrets |= {made[0], made[0].replace("-", "")}
    page = handset.open(page.link("/_sekisho/me"))
    handset.send(page, "/_sekisho/me/remove")
    page = handset.open(start)
    page = handset.open(page.link("/_sekisho/login"))
    shows(page, "the enrolment page, once it is removed", 'name="code"')
    return secrets


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        return server.server_address[1]


def everything(binary, names):
    needed("w3m")
    with tempfile.TemporaryDirectory(prefix="sekisho-w3m-") as scratch:
        folder = Path(scratch) / "gateway"
        folder.mkdir(mode=0o700)
        kek = folder / "kek"
        kek.touch(mode=0o600)
        kek.write_text(base64.b64encode(os.urandom(32)).decode())
        port, proxy, config = free_port(), serve(CarrierGateway), folder / "gateway.toml"
        config.write_text(CONFIG.format(host=HOST, port=port, console=serve(Console)))
        CarrierGateway.gateway = port
        sekisho = Process(binary, "serve", "--config", str(config))
        try:
            sekisho.says(r"listening|ready")
            secrets = set()
            for number, name in enumerate(names):
                issue = [binary, "codes", "issue", f"clerk-{number}", "--socket", str(folder / "admin.sock"), "--json"]
                code = json.loads(subprocess.run(issue, check=True, capture_output=True, timeout=PATIENCE).stdout)["code"]
                CarrierGateway.handset = HANDSETS[name]
                digits = re.sub(r"\D", "", code)
                secrets |= {HANDSETS[name][3], code, digits} | walk(Handset(name, proxy, Path(scratch)), digits)
                print(f"ok: {name} walks the whole way", flush=True)
        finally:
            status = sekisho.end()
        if status != 0:
            raise Failed(f"sekisho ended with {status}:\n{sekisho.text}")
        written = sekisho.text + (folder / "access.log").read_text() + "".join(Console.told)
        if leaked := [secret for secret in secrets if secret in written]:
            raise Failed(f"{len(leaked)} of {len(secrets)} secrets are in a log, or were told to the console")
        print(f"ok: none of {len(secrets)} secrets in the log or told to the console")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="the sekisho program")
    parser.add_argument("handsets", nargs="*", metavar="HANDSET", help=f"of {', '.join(HANDSETS)}; all by default")
    arguments = parser.parse_args()
    try:
        everything(os.path.abspath(arguments.binary), arguments.handsets or HANDSETS)
    except (Failed, OSError, subprocess.SubprocessError, http.client.HTTPException) as failed:
        sys.exit(f"failed: {failed}")


if __name__ == "__main__":
    main()
