"""The website, built with warnings as errors and opened page by page in headless Chromium from the disk."""

import importlib.util
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
KNOWN_VIOLATIONS = {"summary-name"}  # the theme's sidebar toggle
SCHEMES = ("light", "dark")

NO_HORIZONTAL_SCROLL = "document.documentElement.scrollWidth <= window.innerWidth"
MISSING_IMAGES = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.getAttribute('src'))"
UNREACHABLE_SCROLLERS = """[...document.querySelectorAll('.pst-scrollable-table-container, .bd-article pre, mjx-container[display=true]')]
    .filter(box => box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0 && !box.querySelector('a, [tabindex="0"]'))
    .map(box => box.outerHTML.slice(0, 120))"""


def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The built website, in a temporary folder."""
    try:
        return load("site_tool", ROOT / "tools" / "site.py").build(tmp_path_factory.mktemp("site"))
    except SystemExit as error:
        pytest.fail(f"{error} `make site` shows them.", pytrace=False)


@pytest.fixture(scope="session")
def pages(site) -> list[Path]:
    found = sorted(p for p in site.rglob("*.html") if "_static" not in p.parts and p != site / "index.html")
    assert site / "book" / "index.html" in found
    return found


class Visit:
    """A page in one colour scheme and width, with everything it said and asked for."""

    def __init__(self, browser, scheme: str = "light", width: int = 1280, height: int = 900):
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", lambda request: self.said.append(f"failed: {request.url}"))

    def open(self, path: Path):
        self.said.clear()
        self.asked.clear()
        self.page.goto(path.as_uri(), wait_until="load")
        self.page.evaluate("window.MathJax?.startup?.promise")
        self.page.evaluate("document.fonts.ready.then(() => true)")
        return self.page

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


def test_every_page_of_the_contents_was_built(site):
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    wanted = re.findall(r"(?:file|root):\s*(\S+)", toc)
    assert not [page for page in wanted if not (site / f"{page}.html").is_file()]
    assert "book/index.html" in (site / "index.html").read_text(encoding="utf-8")


def test_links_between_pages_lead_somewhere(site, pages):
    dead = []
    for page in pages:
        html = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"]+)"', html):
            parts = urlsplit(link.replace("&amp;", "&"))
            if parts.scheme or parts.netloc or not parts.path:
                continue
            if not (page.parent / unquote(parts.path)).exists():
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []


def test_nothing_private_is_published(site):
    assert not (site / "_sources").exists()
    assert not [p for p in site.rglob("*") if "pytest_cache" in str(p) or ".venv" in p.parts]


def test_marks_for_nbval_are_not_shown_and_code_is_coloured(site):
    for page in (site / "notebooks").glob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert "NBVAL" not in html, page.name
        assert html.count('<span class="n">') > 50, page.name


def test_nothing_is_loaded_from_another_host(site, pages):
    loads = re.compile(r'<(?:script|img|iframe|source)[^>]+src="(https?:)?//|<link[^>]+rel="(?:stylesheet|preload|preconnect|icon)"[^>]+href="(https?:)?//')
    assert not [str(page.relative_to(site)) for page in pages if loads.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pages_open_cleanly(site, pages, browser, scheme):
    wrong = {}
    with Visit(browser, scheme) as visit:
        for path in pages:
            page = visit.open(path)
            found = [f"console: {text}" for text in visit.said]
            found += [f"outside request: {url}" for url in visit.asked if not url.startswith(("file:", "data:", "blob:"))]
            found += [f"missing image: {src}" for src in page.evaluate(MISSING_IMAGES)]
            if page.evaluate("document.documentElement.dataset.theme") != scheme:
                found.append("does not follow the colour scheme")
            if page.evaluate("document.querySelectorAll('mjx-merror, .math:not(:has(mjx-container))').length"):
                found.append("a formula was not typeset")
            if found:
                wrong[str(path.relative_to(site))] = found
    assert wrong == {}


def test_pages_fit_a_phone(site, pages, browser):
    wrong = {}
    with Visit(browser, width=390, height=844) as visit:
        for path in pages:
            page = visit.open(path)
            if not page.evaluate(NO_HORIZONTAL_SCROLL):
                wrong[str(path.relative_to(site))] = "scrolls sideways"
            elif boxes := page.evaluate(UNREACHABLE_SCROLLERS):
                wrong[str(path.relative_to(site))] = f"boxes that scroll but cannot be reached by keyboard: {boxes}"
    assert wrong == {}


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 1280), ("light", 390)])
def test_pages_are_accessible(site, pages, browser, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    wrong = {}
    with Visit(browser, scheme, width) as visit:
        for path in pages:
            page = visit.open(path)
            page.add_style_tag(content="*, ::before, ::after { transition: none !important; animation: none !important }")  # no colour half-way
            violations = Axe().run(page).response["violations"]
            found = {v["id"]: [node["html"][:120] for node in v["nodes"]][:3] for v in violations if v["id"] not in KNOWN_VIOLATIONS}
            if found:
                wrong[str(path.relative_to(site))] = found
    assert wrong == {}, json.dumps(wrong, indent=1)


def test_search_finds_a_page_from_the_disk(site, browser):
    with Visit(browser) as visit:
        visit.page.goto((site / "search.html").as_uri() + "?q=power+law")
        visit.page.wait_for_selector("#search-results li", timeout=20_000)
        assert not [url for url in visit.asked if not url.startswith("file:")]


def test_the_checks_can_fail(tmp_path, browser):
    page = tmp_path / "bad.html"
    page.write_text(
        '<html><body style="width:900px"><img src="none.png"><script src="http://127.0.0.1:9/x.js"></script>'
        "<div class='pst-scrollable-table-container' style='width:100px;overflow:auto'><div style='width:800px'>x</div></div>"
        "<script>console.error('spoken')</script></body></html>"
    )
    with Visit(browser, width=390) as visit:
        opened = visit.open(page)
        assert opened.evaluate(MISSING_IMAGES) == ["none.png"]
        assert not opened.evaluate(NO_HORIZONTAL_SCROLL)
        assert len(opened.evaluate(UNREACHABLE_SCROLLERS)) == 1
        assert "spoken" in visit.said
        assert [url for url in visit.asked if url.startswith("http:")]
