"""The website, built with warnings as errors and opened page by page in headless Chromium from the disk."""

import importlib.util
import json
import re
import sys
import xml.etree.ElementTree as xml
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
SCHEMES = ("light", "dark")
HEAVIEST = 300_000  # bytes of a first view as a server sends them, besides fonts and MathJax
SHIFT = 0.1  # what Web Vitals call good; of a page painted before its deferred scripts come, as on the slowest machine
SPECIAL = {"404", "search", "genindex"}

NO_HORIZONTAL_SCROLL = "document.documentElement.scrollWidth <= window.innerWidth"
MISSING_IMAGES = "[...document.images].filter(i => i.complete ? i.naturalWidth === 0 : i.loading !== 'lazy').map(i => i.getAttribute('src'))"
UNREACHABLE_SCROLLERS = """[...document.querySelectorAll('.pst-scrollable-table-container, .wide-picture, .bd-article pre, mjx-container[display=true]')]
    .filter(box => box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0 && !box.querySelector('a, [tabindex="0"]'))
    .map(box => box.outerHTML.slice(0, 120))"""
CUT_FORMULAS = """[...document.querySelectorAll('span.math > mjx-container')].filter((set) => {
    const [own, place] = [set, set.parentElement].map((one) => one.getBoundingClientRect());
    return own.top < place.top - 1 || own.bottom > place.bottom + 1 || own.right > place.right + 1;
}).map((set) => set.textContent.slice(0, 60))"""
STRETCHED_PICTURES = """[...document.querySelectorAll('.bd-article img[height]')].map((image) => {
    const style = getComputedStyle(image), inside = (side, ...pads) => parseFloat(style[side])
        - (style.boxSizing === 'border-box' ? pads.reduce((sum, pad) => sum + parseFloat(style[pad]), 0) : 0);
    const shown = inside('width', 'paddingLeft', 'paddingRight') / inside('height', 'paddingTop', 'paddingBottom');
    return [image.getAttribute('src'), shown / (image.getAttribute('width') / image.getAttribute('height'))];
}).filter(([src, ratio]) => Math.abs(ratio - 1) > 0.03).map(([src, ratio]) => `${src} ${ratio.toFixed(2)}`)"""
IN_THE_ARTICLE = "[...document.querySelectorAll('.bd-article :is(a[href], button, summary, input)')].filter((one) => one.checkVisibility({ visibilityProperty: true }) && one.tabIndex >= 0)"


def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


chromium = load("browser", ROOT / "tools" / "browser.py")
weights = load("weights", ROOT / "tools" / "weights.py")


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
        self.context.add_init_script(weights.SHIFTS)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", self.failed)

    def failed(self, request) -> None:
        if request.failure != "net::ERR_ABORTED":  # what the browser itself gives up as it leaves for the next page
            self.said.append(f"failed: {request.url}")

    def open(self, path: Path, late: bool = False):
        self.said.clear()
        self.asked.clear()
        chromium.opened(self.page, path.as_uri(), late)
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


def test_links_to_places_within_pages_find_them(site, pages):
    """Numbered figures, tables and equations, terms and sections."""
    known, lost, numbered = {}, [], 0
    for page in pages:
        known[page] = set(re.findall(r'\sid="([^"]+)"', page.read_text(encoding="utf-8")))
    for page in pages:
        for link in re.findall(r'<a [^>]*href="([^"]*#[^"]+)"', page.read_text(encoding="utf-8")):
            parts = urlsplit(link.replace("&amp;", "&"))
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not parts.scheme and target in known and page.stem not in SPECIAL and unquote(parts.fragment) not in known[target]:
                lost.append(f"{page.relative_to(site)}: {link}")
        numbered += len(re.findall(r'class="std std-numref"|class="caption-number"', page.read_text(encoding="utf-8")))
    assert lost == [] and numbered > 50


def broken_pictures(page: Path) -> list[str]:
    """The pictures of a page that are not on the disk or cannot be drawn, those that wait below the first view included."""
    from PIL import Image

    broken = []
    for image in BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").find_all("img", src=True):
        if urlsplit(image["src"]).scheme:
            continue
        path = page.parent / unquote(urlsplit(image["src"]).path)
        try:
            if path.suffix == ".svg":
                assert xml.parse(path).getroot().tag.endswith("svg")
            else:
                with Image.open(path) as picture:
                    picture.load()
        except (OSError, SyntaxError, AssertionError):
            broken.append(image["src"])
    return broken


def test_every_picture_is_there_and_can_be_drawn(site, pages):
    assert {str(page.relative_to(site)): broken for page in pages if (broken := broken_pictures(page))} == {}
    assert len(list((site / "_images").glob("*.png"))) > 20


def test_figures_of_committed_runs_offer_their_data(site):
    offering = {page.stem: set(re.findall(r'href="\.\./data/([\w-]+)\.csv"', page.read_text(encoding="utf-8"))) for page in site.rglob("*.html")}
    assert len([page for page, names in offering.items() if names]) >= 20 and {"claims", "ladder"} <= offering["index"]
    files = {path.stem for path in (site / "data").glob("*.csv")}
    assert files == set().union(*offering.values()) and all(path.stat().st_size > 500 for path in (site / "data").glob("*.csv"))


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


def test_every_page_leads_to_its_source_and_to_its_neighbours(site, pages):
    dated = load("found", ROOT / "book" / "_ext" / "found.py").changes(ROOT)
    address = re.search(r"url: (\S+)", (ROOT / "_config.yml").read_text(encoding="utf-8"))[1]
    for page in pages:
        name = page.relative_to(site).with_suffix("").as_posix()
        if name in SPECIAL:
            continue
        html = page.read_text(encoding="utf-8")
        source = next(path for path in (f"{name}.md", f"{name}.ipynb") if (ROOT / path).is_file())
        assert f'href="{address}/edit/main/{source}"' in html, name
        assert f"{address}/issues/new?title=" in html, name
        assert re.search(r'class="(left-prev|right-next)"', html), name
        assert ("Last updated on" in html) == (source in dated), name


def test_a_link_to_a_page_is_shown_with_a_sentence_and_a_picture(site, pages):
    from PIL import Image

    for page in pages:
        html, name = page.read_text(encoding="utf-8"), page.relative_to(site).with_suffix("").as_posix()
        if name in SPECIAL:
            continue
        tags = dict(re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)"', html))
        assert len(tags["og:title"]) > 3 and tags["og:url"].endswith(f"/{name}.html") and len(tags["og:image:alt"]) > 20, name
        assert tags["og:image"] == tags["og:url"].removesuffix(f"{name}.html") + "_static/social-card.png", name
        assert 40 < len(unescape(tags["description"])) <= 202 or name == "book/bibliography", name
    with Image.open(site / "_static" / "social-card.png") as picture:
        assert picture.size == (1200, 630) and len(picture.convert("RGB").getcolors(1 << 20)) > 100


def test_the_sitemap_names_every_page(site, pages):
    root = xml.parse(site / "sitemap.xml").getroot()
    found = [place.text for place in root.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    names = {page.relative_to(site).as_posix() for page in pages if page.stem not in SPECIAL}
    assert len(found) == len(set(found)) == len(names) and {address.split("/", 4)[4] for address in found} == names


def test_a_wrong_address_leads_back(site, browser):
    html = (site / "404.html").read_text(encoding="utf-8")
    assert "There is no such page" in html and 'href="book/index.html"' in html and 'base.href' in html


def test_the_theme_is_not_loaded_with_what_no_page_shows(site):
    assert not list((site / "_static").rglob("fontawesome*")) and not list((site / "_static").rglob("*.map"))
    assert {"bars", "github", "expand", "magnifying-glass", "circle-half-stroke", "pencil-alt"} <= set(
        re.findall(r"\.fa-([\w-]+)::before", (site / "_static" / "icons.css").read_text(encoding="utf-8")))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pages_open_cleanly(site, pages, browser, scheme):
    wrong = {}
    with Visit(browser, scheme) as visit:
        for path in pages:
            page = visit.open(path, late=True)
            found = [f"console: {text}" for text in visit.said]
            found += [f"outside request: {url}" for url in visit.asked if not url.startswith(("file:", "data:", "blob:"))]
            found += [f"missing image: {src}" for src in page.evaluate(MISSING_IMAGES)]
            if page.evaluate("document.documentElement.dataset.theme") != scheme:
                found.append("does not follow the colour scheme")
            if (own := weights.own_weight(visit.asked)) > HEAVIEST:
                found.append(f"weighs {own / 1e3:.0f} kB at first")
            if (shift := page.evaluate("window.shifted")) > SHIFT:
                found.append(f"moves while it loads: {shift:.3f}")
            if page.evaluate("document.querySelectorAll('mjx-merror, .math:not(:has(mjx-container))').length"):
                found.append("a formula was not typeset")
            found += [f"a formula is cut off: {text}" for text in page.evaluate(CUT_FORMULAS)]
            found += [f"a picture is stretched: {text}" for text in page.evaluate(STRETCHED_PICTURES)]
            if found:
                wrong[str(path.relative_to(site))] = found
    assert wrong == {}


def test_pages_fit_a_phone(site, pages, browser):
    wrong = {}
    with Visit(browser, width=390, height=844) as visit:
        for path in pages:
            page = visit.open(path, late=True)
            if not page.evaluate(NO_HORIZONTAL_SCROLL):
                wrong[str(path.relative_to(site))] = "scrolls sideways"
            elif (shift := page.evaluate("window.shifted")) > SHIFT:
                wrong[str(path.relative_to(site))] = f"moves while it loads: {shift:.3f}"
            elif boxes := page.evaluate(UNREACHABLE_SCROLLERS):
                wrong[str(path.relative_to(site))] = f"boxes that scroll but cannot be reached by keyboard: {boxes}"
            elif cut := page.evaluate(CUT_FORMULAS):
                wrong[str(path.relative_to(site))] = f"formulas are cut off: {cut}"
            elif stretched := page.evaluate(STRETCHED_PICTURES):
                wrong[str(path.relative_to(site))] = f"pictures are stretched: {stretched}"
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
            found = {v["id"]: [node["html"][:120] for node in v["nodes"]][:3] for v in violations}
            if found:
                wrong[str(path.relative_to(site))] = found
    assert wrong == {}, json.dumps(wrong, indent=1)


def test_headings_are_in_order_and_pictures_are_described(site, pages):
    wrong = {}
    for path in pages:
        article = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one(".bd-article")
        if article is None and path.stem == "search":
            continue
        levels = [int(heading.name[1]) for heading in article.find_all(["h1", "h2", "h3", "h4", "h5", "h6"])]
        alts = [image.get("alt", "") for image in article.find_all("img") if "colab-badge" not in image["src"]]
        if levels.count(1) != 1 or levels[0] != 1 or any(after > before + 1 for before, after in zip(levels, levels[1:])):
            wrong[str(path.relative_to(site))] = f"headings {levels}"
        elif short := [alt for alt in alts if len(alt) < 40]:
            wrong[str(path.relative_to(site))] = f"pictures that are hardly described: {short}"
    assert wrong == {}


def test_the_front_page_can_be_walked_through_by_keyboard(site, browser):
    with Visit(browser) as visit:
        page = visit.open(site / "book" / "index.html")
        wanted, reached = page.evaluate(f"{IN_THE_ARTICLE}.length"), 0
        page.evaluate("window.reached = new Set(); document.addEventListener('focusin', (event) => window.reached.add(event.target))")
        page.keyboard.press("Tab")
        assert "skip" in page.evaluate("document.activeElement.className + document.activeElement.textContent").lower()
        while reached < wanted and page.evaluate("window.presses = (window.presses || 0) + 1") < 400:
            page.keyboard.press("Tab")
            reached = page.evaluate(f"{IN_THE_ARTICLE}.filter((one) => window.reached.has(one)).length")
        assert wanted > 30 and reached == wanted
        door = page.locator(".doors a").first
        door.focus()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


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
    (tmp_path / "half.png").write_bytes((ROOT / "book" / "_static" / "first-law.png").read_bytes()[:2000])
    (tmp_path / "moves.js").write_text("document.body.prepend(Object.assign(document.createElement('div'), { style: 'height: 300px' }))")
    page.write_text(
        "<html><body><p style='margin:0'>text</p><img loading=lazy src=half.png><img src=none.svg><script defer src='moves.js?v=1'></script>"
        "<div class=bd-article><img src=data: width=400 height=100 style='max-width: 200px'><img src=data: width=90 height=30></div>"
        "<span class=math style='display: inline-flex; overflow: hidden'><mjx-container style='display: block; margin: -5px'>x</mjx-container></span>"
    )
    assert broken_pictures(page) == ["half.png", "none.svg"]
    with Visit(browser) as visit:
        opened = visit.open(page, late=True)
        assert opened.evaluate("window.shifted") > 0.001
        assert opened.evaluate(STRETCHED_PICTURES) == ["data: 0.50"] and opened.evaluate(CUT_FORMULAS) == ["x"]


def test_published_labs_hold_nothing_of_their_solutions(site):
    """Every line of code that the students' copies lack is looked for in the page of its lab; no other page comes from a source."""
    from html import unescape

    from minitransformer.labs import find_labs

    labs = find_labs(ROOT / "notebooks" / "labs" / "source")
    assert {page.stem for page in site.rglob("*.html") if "labs" in page.parts} == set(labs)
    for name, lab in labs.items():
        text = unescape(re.sub(r"<[^>]+>", "", (site / "notebooks" / "labs" / f"{name}.html").read_text(encoding="utf-8")))
        assert lab.exercises[0].title in text
        lines = {line.strip() for line in text.splitlines()}
        assert not lab.secrets() & lines
        assert not [secret for secret in lab.secrets() if len(secret) > 12 and secret in text]
