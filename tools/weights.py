"""What the first view of each page of the built website weighs and how it loads, as a table.

    python tools/weights.py [FOLDER] [--pages book/index notebooks/size]

FOLDER: the built website; _build/html if left out. Bytes as a server sends them: text compressed by gzip, pictures and fonts as they
are. Fonts and MathJax are counted apart. `outside` counts requests to other hosts. Milliseconds until the page has loaded, here, from the
disk. `axe` counts the rules of accessibility that a page breaks, of those that axe-core tests. `shift` is the cumulative layout shift of the
first view at the width of a laptop and of a phone, with every script that may come late held back until the page is painted, so that it is
the same on any machine. `over` is by how many pixels the page is wider than the phone. Opens the pages in Chromium or Google Chrome.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from browser import launched, opened

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = {"laptop": (1280, 900), "phone": (390, 844)}
COMPRESSED = {".html", ".css", ".js", ".svg", ".json", ".xml", ".csv"}
SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) => list.getEntries().forEach((entry) => { if (!entry.hadRecentInput) window.shifted += entry.value; }))
  .observe({ type: "layout-shift", buffered: true });
"""


@dataclass(frozen=True)
class Weight:
    """Of one page's first view. Bytes; milliseconds; shift by width."""

    page: str
    own: int
    apart: int  # fonts and MathJax
    requests: int
    outside: tuple[str, ...]
    load: float
    axe: tuple[str, ...]  # the rules that it breaks
    shift: dict[str, float]
    over: int


@lru_cache(maxsize=None)
def sent(path: Path) -> int:
    """Bytes of a file as a server sends it; 0 of one that is not there."""
    if not path.is_file():
        return 0
    content = path.read_bytes()
    return len(gzip.compress(content, 6)) if path.suffix in COMPRESSED else len(content)


def is_apart(path: Path) -> bool:
    return "mathjax" in path.parts or path.suffix in (".woff", ".woff2", ".ttf")


def files(urls: list[str]) -> set[Path]:
    return {Path(unquote(urlsplit(url).path)) for url in urls if url.startswith("file:")}


def own_weight(urls: list[str]) -> int:
    """Bytes of what was asked for from the disk, besides fonts and MathJax."""
    return sum(sent(path) for path in files(urls) if not is_apart(path))


def visit(browser, page: Path, width: int, height: int, late: bool) -> tuple[Any, list[str]]:
    """The page, opened and at rest, and what it asked for; its context is to be closed."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script(SHIFTS)
    view, urls = context.new_page(), []
    view.on("request", lambda request: urls.append(request.url))
    opened(view, page.as_uri(), late).wait_for_timeout(300)
    return view, urls


def weigh(browser, html: Path, page: Path) -> Weight:
    """Opens a page as it comes, then at each width with its scripts held back, and waits until its formulas are set and it is still."""
    from axe_playwright_python.sync_playwright import Axe

    view, asked = visit(browser, page, *WIDTHS["laptop"], late=False)
    load = view.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    axe = tuple(violation["id"] for violation in Axe().run(view).response["violations"])
    view.context.close()
    shift, over = {}, 0
    for name, size in WIDTHS.items():
        view, _ = visit(browser, page, *size, late=True)
        shift[name] = view.evaluate("window.shifted")
        over = view.evaluate("document.documentElement.scrollWidth - innerWidth")
        view.context.close()
    outside = tuple(url for url in asked if not url.startswith(("file:", "data:", "blob:")))
    apart = sum(sent(path) for path in files(asked) if is_apart(path))
    return Weight(page.relative_to(html).with_suffix("").as_posix(), own_weight(asked), apart, len(asked), outside, load, axe, shift, over)


def pages(html: Path) -> list[Path]:
    """Every page but the one that only leads to the front page."""
    return sorted(path for path in html.rglob("*.html") if "_static" not in path.parts and path != html / "index.html")


HEADING = "own kB  fonts and MathJax kB  files  outside  load ms  axe  shift laptop  shift phone  over px"


def row(one: Weight) -> str:
    return (f"{one.own / 1e3:6.0f}  {one.apart / 1e3:20.0f}  {one.requests:5d}  {len(one.outside):7d}  {one.load:7.0f}"
            f"  {len(one.axe):3d}  {one.shift['laptop']:12.3f}  {one.shift['phone']:11.3f}  {one.over:7d}")


def summary(weighed: list[Weight]) -> str:
    """The worst of each column in a line."""
    most = lambda value: max(map(value, weighed))
    return (f"{os.cpu_count()} cores, {len(weighed)} pages: {most(lambda one: one.own) / 1e3:.0f} kB at most, {sum(len(one.outside) for one in weighed)} requests "
            f"outside, {sum(len(one.axe) for one in weighed)} rules of axe broken, a shift of {most(lambda one: max(one.shift.values())):.3f} at most, "
            f"{sum(one.over > 0 for one in weighed)} pages wider than a phone")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the first view of each page weighs, and how it loads.")
    parser.add_argument("html", nargs="?", type=Path, default=ROOT / "_build" / "html", help="the built website")
    parser.add_argument("--pages", nargs="+", metavar="PAGE", help="only these, such as book/index")
    arguments = parser.parse_args()
    html = arguments.html.resolve()
    if not html.is_dir():
        sys.exit(f"There is no website in {html}: python tools/site.py builds it.")
    chosen = [html / f"{name}.html" for name in arguments.pages] if arguments.pages else pages(html)
    if missing := [path for path in chosen if not path.is_file()]:
        sys.exit(f"There is no page {missing[0].relative_to(html).with_suffix('')}.")
    with launched() as browser:
        width = max(len(page.relative_to(html).as_posix()) for page in chosen)
        print(f"{'page':<{width}}  {HEADING}")
        weighed = []
        for page in chosen:
            weighed.append(one := weigh(browser, html, page))
            print(f"{one.page:<{width}}  {row(one)}", flush=True)
    print(summary(weighed))


if __name__ == "__main__":
    main()
