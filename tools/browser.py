"""Chromium or Google Chrome without a window, for the scripts that look at the built website."""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from typing import Any, Iterator

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
PATIENCE = 120_000  # milliseconds for a page to load on a busy machine


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


def opened(view: Any, address: str) -> Any:
    """The page at an address, when it has loaded and its formulas are set."""
    view.goto(address, wait_until="load", timeout=PATIENCE)
    view.evaluate("window.MathJax?.startup?.promise")
    return view
