"""Chromium or Google Chrome without a window, for the scripts that look at the built website."""

from __future__ import annotations

import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import unquote, urlsplit

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
PATIENCE = 300_000  # milliseconds for a page to load on a busy machine


@contextmanager
def launched() -> Iterator[Any]:
    """A Playwright browser; ends the program with one line where there is none."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        sys.exit("No Chromium was found; install Debian's chromium or Google Chrome.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


DEFERRED = re.compile(r"<script(?=[^>]*\sdefer\b)[^>]*\ssrc=[\"']([^\"'?#]+)")
PAINTED = "document.readyState !== 'loading' && performance.getEntriesByName('first-contentful-paint').length > 0"
NEXT_FRAME = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"


def opened(view: Any, address: str, late: bool = False) -> Any:
    """The page at an address, when it has loaded and its formulas are set.

    late: of a page from the disk; its deferred scripts come only when all of it has been painted without them. A fast machine may run
    them before it first paints and show no shift; so a page shows on any machine the shift that a slow one shows.
    """
    if late:
        _painted_first(view, address)
    else:
        view.goto(address, wait_until="load", timeout=PATIENCE)
    view.evaluate("window.MathJax?.startup?.promise.then(() => true)")
    return view


def _painted_first(view: Any, address: str) -> None:
    names = {Path(src).name for src in DEFERRED.findall(Path(unquote(urlsplit(address).path)).read_text(encoding="utf-8"))}
    held: list[Any] = []
    view.route(lambda url: Path(urlsplit(url).path).name in names, lambda route: held.append(route))
    try:
        view.goto(address, wait_until="commit", timeout=PATIENCE)
        view.wait_for_function(PAINTED, timeout=PATIENCE)
        view.evaluate(NEXT_FRAME)
    finally:
        for route in held:
            route.continue_()
        view.unroute_all()
    view.wait_for_load_state("load", timeout=PATIENCE)
