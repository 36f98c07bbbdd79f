#!/usr/bin/env python3
"""Walks `sekisho dev` in a browser, as a newcomer would, with all three handsets.

    tests/browser/dev.py target/debug/sekisho [--screenshots FOLDER]

For docomo, au and SoftBank: sign in, type the code, see the console and what it was told, the self-service page, sign
out, sign in again without a code. One sets a PIN, and types it where a page asks for it. Another docomo handset is bound by the
console's own login. Then it starts anew with the same folder, where the first is told of the others, and at last searches
every file there for the identifiers that were used, and for the PIN.
Needs Chromium and chromedriver, and nothing but Python's standard library. Exits 0, or 1 with what went wrong.
"""

import argparse
import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PIN = "27193846"  # eight digits: found in no file by chance
PATIENCE = 30  # seconds for any one step
CARRIERS = ["docomo", "au", "softbank"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # W3C WebDriver, section 12.1


class Failed(Exception):
    """A step that did not go as it should."""


def until(what, look, patience=PATIENCE):
    """Calls `look` until it says something true; fails once `patience` seconds have passed."""
    end = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {patience} s")
        time.sleep(0.05)


class Process:
    """A child process whose output is read as it comes, and that ends with this script."""

    def __init__(self, *command):
        self.name = Path(command[0]).name
        self.text = ""
        self.child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self.text += line

    def says(self, pattern):
        """The first match of `pattern` in what it wrote, once it is there."""

        def look():
            found = re.search(pattern, self.text)
            if not found and self.child.poll() is not None:
                raise Failed(f"{self.name} ended with {self.child.returncode}:\n{self.text}")
            return found

        return until(f"{self.name} says {pattern!r}", look)

    def end(self, how=signal.SIGTERM):
        """Asks it to end, and makes it end; its exit code."""
        if self.child.poll() is None:
            self.child.send_signal(how)
            try:
                self.child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(PATIENCE)
                raise Failed(f"{self.name} did not end within {PATIENCE} s") from None
        return self.child.returncode


class Browser:
    """One Chromium, driven by the W3C WebDriver protocol."""

    def __init__(self, driver_port, chromium):
        self.port = driver_port
        self.session = None
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en"]
        options = {"binary": chromium, "args": arguments}
        wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        answer = self.call("POST", "", {"capabilities": wanted}, base="/session")
        self.session = answer["sessionId"]

    def call(self, method, path, body=None, base=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            text = json.dumps(body if body is not None else {}) if method == "POST" else None
            headers = {"Content-Type": "application/json"}
            connection.request(method, (base or f"/session/{self.session}") + path, text, headers)
            value = json.load(connection.getresponse())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise Failed(f"the browser says {value['error']}: {value['message'].splitlines()[0]}")
        return value

    def script(self, text, *arguments):
        return self.call("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def click(self, selector):
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"/element/{found[ELEMENT]}/click")

    def resize(self, width, height):
        # Headless windows have a frame of their own: the size that matters is the page's.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def complaints(self):
        """What the browser wrote to its console: blocked by the policy, failed scripts."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})]

    def end(self):
        if self.session:
            self.call("DELETE", "")


class Walk:
    """The walk, with the page open."""

    def __init__(self, browser, screenshots):
        self.browser = browser
        self.screenshots = screenshots
        self.identifiers = set()

    def shot(self, name):
        if self.screenshots:
            still = "return document.getAnimations().every((one) => one.playState !== 'running')"
            until("everything stands still", lambda: self.browser.script(still))
            picture = base64.b64decode(self.browser.call("GET", "/screenshot"))
            (self.screenshots / f"{name}.png").write_bytes(picture)

    def on_screen(self):
        """The text on the handset's screen; nothing while a page is on its way."""
        return self.browser.script(
            "return document.body.classList.contains('busy') ? '' :"
            " document.getElementById('frame').contentDocument?.body?.innerText ?? ''"
        )

    def waits_for(self, what, selector):
        look = (
            "return !document.body.classList.contains('busy') &&"
            " document.getElementById('frame').contentDocument?.querySelector(arguments[0]) != null"
        )
        try:
            until(what, lambda: self.browser.script(look, selector))
        except Failed as failed:
            raise Failed(f"{failed}; the screen shows:\n{self.on_screen()}") from None

    def press(self, keys):
        for key in keys:
            self.browser.click(f"#phone [data-key='{key}']")

    def sign_in_page(self):
        self.waits_for("the sign-in page", "a[accesskey='1'][href*='/_sekisho/login']")

    def console(self):
        self.waits_for("the console", "a[accesskey='5'][href='/told']")

    def note_identifier(self):
        """The identifier that the carrier just inserted, as the page shows it behind its switch."""
        found = self.browser.script(
            "const chip = document.querySelector('#hops .chip.adds'); if (!chip) return null;"
            " chip.querySelector('button').click(); const value = chip.querySelector('code').textContent;"
            " chip.querySelector('button').click(); return value"
        )
        if not found or "\u2022" in found:
            raise Failed(f"the page shows no inserted identifier, but {found!r}")
        self.identifiers.add(found)
        return found

    def carrier(self, name, printed_code):
        self.browser.click(f"#choose [data-name='{name}']")
        self.sign_in_page()
        self.shot(f"{name}-1-sign-in")
        self.press("1")
        self.waits_for("the enrolment page", "input[name='code']")
        identifier = self.note_identifier()
        code = printed_code or self.new_code()
        self.press(re.sub("[^0-9]", "", code))
        self.shot(f"{name}-2-code")
        self.press(["ok"])
        self.console()
        self.shot(f"{name}-3-console")
        self.press("5")
        self.waits_for("what the console was told", "ul.names")
        if identifier in self.on_screen():
            raise Failed("the console was told the identifier")
        told = self.browser.script("return document.getElementById('told').innerText")
        if "sekisho-jwt-assertion" not in told or identifier in told:
            raise Failed(f"the panel beside the handset shows this as told to the console:\n{told}")
        self.shot(f"{name}-4-told")
        self.press("9")
        self.waits_for("the self-service page", "form[action='/_sekisho/me/remove']")
        stands = "return document.getElementById('frame').contentDocument.querySelector('[data-cursor]')?.form?.method"
        if self.browser.script(stands) == "post":
            raise Failed("on the self-service page OK would change something at once")
        self.shot(f"{name}-5-me")
        self.press("9")
        self.waits_for("the sign-out page", "form[action='/_sekisho/logout']")
        self.press("1")
        until("signed out", lambda: self.on_screen() and "/_sekisho/logout" in self.last_request())
        self.shot(f"{name}-6-signed-out")
        self.press(["home"])
        self.sign_in_page()
        self.press("1")
        self.console()  # the handset is known now: no code

    def pin(self, name):
        """Sets a PIN, because a page asks for one, and types it there."""
        self.press("6")
        self.waits_for("how to set a PIN", "a[accesskey='1'][href='/_sekisho/me/pin']")
        self.shot(f"{name}-pin-1-none")
        self.press("1")
        self.waits_for("the form that sets a PIN", "input[name='again']")
        self.press(PIN)
        self.press(["down"])
        self.press(PIN)
        self.shot(f"{name}-pin-2-twice")
        self.press(["ok"])
        until("the PIN is set", lambda: "The PIN was set" in self.on_screen())
        self.press(["home"])
        self.console()
        self.press("6")
        self.waits_for("the page for the PIN", "form[action^='/_sekisho/pin'] input[name='pin']")
        self.press(PIN)
        self.shot(f"{name}-pin-3-typed")
        self.press(["ok"])
        until("the page behind the PIN", lambda: "typed the PIN" in self.on_screen())
        self.shot(f"{name}-pin-4-behind")
        self.press("1")
        self.console()

    def by_password(self, name, password):
        """Binds the second handset of that carrier by the console's own login."""
        self.browser.click(f"#choose [data-name='{name}']")
        self.browser.click("#numbers [data-number='2']")
        self.sign_in_page()
        self.browser.click("#open-login")
        self.waits_for("the console's login", "input[name='password']")
        self.shot(f"{name}-7-login")
        self.press(password + "0")
        self.press(["ok"])
        until("the wrong password is said to be wrong", lambda: "do not go together" in self.on_screen())
        identifier = self.note_identifier()
        told = self.browser.script("return document.getElementById('told').innerText")
        if "sekisho-jwt-assertion" in told or identifier in told or "user-agent" not in told:
            raise Failed(f"the panel beside the handset shows this as told to the console:\n{told}")
        self.browser.click("#type-password")
        self.shot(f"{name}-8-login-again")
        self.press(["ok"])
        self.console()
        self.shot(f"{name}-9-bound")
        self.press("0")
        self.waits_for("the sign-out page", "form[action='/_sekisho/logout']")
        self.press("1")
        until("signed out", lambda: self.on_screen() and "/_sekisho/logout" in self.last_request())
        self.press(["home"])
        self.sign_in_page()
        self.press("1")
        self.console()  # bound: no code, no password

    def new_code(self):
        shown = "return document.getElementById('code').textContent"
        before = self.browser.script(shown)
        self.browser.click("#new-code")
        until("a new code", lambda: self.browser.script(shown) != before)
        return self.browser.script(shown)

    def last_request(self):
        return self.browser.script("return document.querySelector('#hops .line')?.innerText ?? ''")

    def sizes(self):
        for width, height in [(1280, 800), (800, 600), (390, 844)]:
            self.browser.resize(width, height)
            wide = self.browser.script(
                "const room = document.documentElement.clientWidth; return [...document.body.querySelectorAll('*')]"
                ".filter((one) => one.getBoundingClientRect().right > room + 1).map((one) => one.outerHTML.slice(0, 60))"
            )
            if wide:
                raise Failed(f"at {width}x{height} these are wider than the window: {wide[:5]}")
            self.shot(f"size-{width}x{height}")
        self.browser.resize(1280, 800)
        self.browser.click("#language")
        until("Japanese", lambda: "管理トップ" in self.on_screen())
        self.shot("japanese")
        self.browser.click("#language")
        until("English", lambda: "Overview" in self.on_screen())


def search(folder, identifiers):
    """Fails if a file below `folder` holds one of `identifiers`, as it is or as UTF-16."""
    needles = [encoded for one in identifiers for encoded in (one.encode(), one.encode("utf-16-le"))]
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        if any(needle in content for needle in needles):
            raise Failed(f"{path.relative_to(folder)} holds an identifier")
    return len(files)


def needed(*names):
    for name in names:
        if found := shutil.which(name):
            return found
    raise Failed(f"none of {', '.join(names)} is installed")


def dev(binary, folder, running):
    """Starts `sekisho dev`: the process, the page's URL, the printed code and password."""
    sekisho = Process(binary, "dev", "--dir", str(folder))
    running.append(sekisho)
    page = sekisho.says(r"Open this page +(http://127\.0\.0\.1:\d+/)").group(1)
    code = sekisho.says(r"Enrolment code +(\d{4}[- ]\d{4}[- ]\d{4})").group(1)
    password = sekisho.says(r"Console password +(\d{8})\b").group(1)
    return sekisho, page, code, password


def interrupt(sekisho):
    """Ctrl-C."""
    status = sekisho.end(signal.SIGINT)
    if status != 0:
        raise Failed(f"sekisho ended with {status} at Ctrl-C:\n{sekisho.text}")


def everything(walk, binary, folder, running):
    sekisho, page, code, password = dev(binary, folder, running)
    walk.browser.call("POST", "/url", {"url": page})
    for carrier in CARRIERS:
        walk.carrier(carrier, code)
        if code:
            walk.pin(carrier)
            print(f"ok: {carrier} sets a PIN, and types it where it is asked for", flush=True)
        code = None  # it served once
        print(f"ok: {carrier} signs in by a code, sees the console, signs out, signs in again", flush=True)
    walk.by_password("docomo", password)
    print("ok: a second docomo handset is bound by the console's own login", flush=True)
    walk.sizes()
    search(folder, {*walk.identifiers, PIN})  # while the store is open: its write-ahead log, too
    interrupt(sekisho)
    again, page, _, _ = dev(binary, folder, running)
    walk.browser.call("POST", "/url", {"url": page})
    walk.sign_in_page()
    walk.press("1")
    until("it is told of the other handsets", lambda: "was enrolled" in walk.on_screen())
    walk.shot("news")
    walk.press("1")
    walk.console()
    interrupt(again)
    print("ok: the folder is kept: after a new start the handset needs no code, and is told of the others", flush=True)
    if complaints := walk.browser.complaints():
        raise Failed("the browser complains:\n" + "\n".join(complaints))
    if len(walk.identifiers) != len(CARRIERS) + 1:
        raise Failed("two handsets have one identifier")
    if any(identifier in process.text for identifier in walk.identifiers for process in (sekisho, again)):
        raise Failed("an identifier was written to the terminal")
    print(f"ok: neither an identifier nor the PIN in any of {search(folder, {*walk.identifiers, PIN})} files")


def walk(binary, screenshots):
    chromium, driver = needed("chromium", "chromium-browser", "google-chrome"), needed("chromedriver")
    with tempfile.TemporaryDirectory(prefix="sekisho-dev-") as scratch:
        running = []
        browser = None
        try:
            chromedriver = Process(driver, "--port=0")
            running.append(chromedriver)
            port = int(chromedriver.says(r"started successfully on port (\d+)").group(1))
            browser = Browser(port, chromium)
            browser.resize(1280, 800)
            everything(Walk(browser, screenshots), binary, Path(scratch) / "dev", running)
        finally:
            if browser:
                browser.end()
            for process in reversed(running):
                process.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="the sekisho program")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="where to put a picture of each step")
    arguments = parser.parse_args()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    try:
        walk(os.path.abspath(arguments.binary), arguments.screenshots)
    except (Failed, OSError, http.client.HTTPException) as failed:
        sys.exit(f"failed: {failed}")


if __name__ == "__main__":
    main()
