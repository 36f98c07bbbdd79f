#!/usr/bin/env python3
"""Shows every page at the width of a handset's screen, and fails if one is wider than that.

    cargo run --example pages -- FOLDER && tests/browser/pages.py FOLDER [--screenshots FOLDER]

Needs Chromium and chromedriver, and nothing but Python's standard library. Exits 0, or 1 with what went wrong.
"""

import argparse
import base64
import http.client
import sys
from pathlib import Path

from dev import Browser, Failed, Process, needed

WIDTH, HEIGHT = 240, 320
# What the page needs, and of what does not fit, the first few.
LOOK = """
const wide = [...document.body.querySelectorAll('*')].filter((one) => one.getBoundingClientRect().right > arguments[0]);
return [document.documentElement.scrollWidth, document.documentElement.scrollHeight, document.characterSet,
        document.body.innerText, wide.slice(0, 3).map((one) => one.outerHTML.slice(0, 80))];
"""


def show(browser, page, screenshots):
    """Opens one page and looks at it; its height."""
    browser.resize(WIDTH, HEIGHT)
    browser.call("POST", "/url", {"url": page.resolve().as_uri()})
    width, height, charset, text, wide = browser.script(LOOK, WIDTH)
    if width > WIDTH or wide:
        raise Failed(f"{page.name} is {width} px wide: {wide}")
    if "\ufffd" in text or not text.strip():
        raise Failed(f"{page.name} cannot be read as {charset}:\n{text}")
    if screenshots:
        browser.resize(WIDTH, height)
        (screenshots / f"{page.stem}.png").write_bytes(base64.b64decode(browser.call("GET", "/screenshot")))
    return height


def show_all(folder, screenshots):
    pages = sorted(folder.glob("*.html"))
    if not pages:
        raise Failed(f"no pages in {folder}")
    chromium, driver = needed("chromium", "chromium-browser", "google-chrome"), needed("chromedriver")
    chromedriver = Process(driver, "--port=0")
    browser = None
    try:
        port = int(chromedriver.says(r"started successfully on port (\d+)").group(1))
        browser = Browser(port, chromium)
        tallest = max((show(browser, page, screenshots), page.name) for page in pages)
        if complaints := browser.complaints():
            raise Failed("the browser complains:\n" + "\n".join(complaints))
    finally:
        if browser:
            browser.end()
        chromedriver.end()
    print(f"ok: {len(pages)} pages fit {WIDTH} px; the tallest is {tallest[1]} with {tallest[0]} px")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the example `pages` has put them")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="where to put a picture of each page")
    arguments = parser.parse_args()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    try:
        show_all(arguments.folder, arguments.screenshots)
    except (Failed, OSError, http.client.HTTPException) as failed:
        sys.exit(f"failed: {failed}")


if __name__ == "__main__":
    main()
