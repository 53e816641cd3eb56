"""Makes pages light and keeps them still while they load.

- The theme draws its dozen icons by a script of one and a half megabytes that replaces them one by one. Here those that the pages use
  are taken out of that script into a small style sheet, `icons.css`; the script and its fonts are left out.
- Every displayed formula keeps about the height that it will have when it is set, every one within a line the width.
- The list of chapters is at the page's own before it is first shown; the theme moves it there when the page has loaded.
- The reader's colour scheme is known before anything is drawn; the theme first draws both its logos.
- Large pictures are stored with as many colours as they need.
- Every picture says its width and height, so that nothing moves when it comes; all but the first of a page come when they are near.
"""

from __future__ import annotations

import io
import re
import shutil
from functools import lru_cache
from html import unescape
from pathlib import Path
from urllib.parse import quote, unquote

from formulas import width
from PIL import Image
from sphinx.application import Sphinx

SCRIPT = re.compile(r'\s*<(?:script|link)[^>]*fontawesome\.js[^>]*>(?:</script>)?')
USED = re.compile(r'<(?:i|span)[^>]*\sclass="([^"]*\bfa[a-z]?\b[^"]*|[^"]*\bfa-[^"]*)"')
PACKS = {"fas": "solid", "fa-solid": "solid", "fab": "brands", "fa-brands": "brands", "far": "regular", "fa-regular": "regular"}
SIZES = {"fa-lg", "fa-sm", "fa-xs", "fa-fw", *PACKS}
ICON = re.compile(r'[{,]"?([\w-]+)"?:\[(\d+),(\d+),\[([^\]]*)\],"[0-9a-f]+","([^"]+)"\]')
PACK_ENDS = re.compile(r'"fa-(solid|brands|regular)",\w+\)')
OF_THE_FONT = re.compile(r'(?:\.fa-[\w-]+:before,?)+\{content:"[^"]*"\}|@font-face\{[^}]*Font Awesome[^}]*\}')
PICTURE = re.compile(r'<img(?![^>]*\swidth=) [^>]*?src="([^":]+)"[^>]*?/?>')
FORMULA = re.compile(r'<div class="((?:amsmath )?math notranslate nohighlight)"((?: id="[^"]*")?)>(.*?)</div>', re.S)
INLINE = re.compile(r'<span class="math notranslate nohighlight">\\\((.*?)\\\)</span>', re.S)
ROW = 1.7  # rem
HIGHER = ((re.compile(r"\\[dt]?frac|\\sum|\\int\b|\\prod"), 1.4), (re.compile(r"\\frac.*\\right[)\]]\^", re.S), 0.4), (re.compile(r"\\underbrace"), 1.8),
          (re.compile(r"\^\\min|\^\\text"), 0.4))  # fmt: skip
MAIN = '<main id="main-content"'
AT_ITS_PLACE = """<script>
(function () {
  const bar = document.querySelector("div.bd-sidebar"), here = [...document.querySelectorAll(".bd-docs-nav .active")].pop();
  const kept = parseInt(sessionStorage.getItem("sidebar-scroll-top"), 10), y = (one) => one.getBoundingClientRect().y;
  if (bar && !isNaN(kept)) bar.scrollTop = kept;
  else if (bar && here && y(here) > innerHeight / 2) bar.scrollTop = y(here) - y(bar) - bar.clientHeight / 4;
})();
</script>
"""
SCHEME = 'localStorage.getItem("theme") || "auto"'
KNOWN_SCHEME = SCHEME.replace('"auto"', '(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")')
LARGE = 10_000  # bytes
WIDE = 700  # pixels: several panels side by side, whose labels nobody could read at the width of a phone
SHEET = """/* The theme's icons: Font Awesome Free (CC BY 4.0), drawn in the colour of the text. */
:is(.fa-solid, .fa-brands, .fa-regular, .fas, .fab, .far)::before {
  content: ""; display: inline-block; height: 1em; vertical-align: -.125em; background: currentColor;
  -webkit-mask: var(--icon) center / contain no-repeat; mask: var(--icon) center / contain no-repeat;
}
.btn .fa-lg { font-size: 1em; }
@media (forced-colors: active) { :is(.fa-solid, .fa-brands, .fa-regular, .fas, .fab, .far)::before { background: ButtonText; } }
@media print { :is(.fa-solid, .fa-brands, .fa-regular, .fas, .fab, .far)::before { print-color-adjust: exact; } }
"""


# --- icons -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def icons(script: Path) -> dict[tuple[str, str], tuple[int, int, str]]:
    """(pack, name) → width, height and path of every icon in the theme's script, other names of an icon included."""
    text, found, start = script.read_text(encoding="utf-8"), {}, 0
    for end in PACK_ENDS.finditer(text):
        for name, width, height, others, path in ICON.findall(text, start, end.start()):
            for one in (name, *re.findall(r'"([\w-]+)"', others)):
                found[end[1], one] = int(width), int(height), path
        start = end.end()
    return found


def used(html: str) -> set[tuple[str, str]]:
    """The icons that a page shows, as (pack, name)."""
    found = set()
    for classes in USED.findall(html):
        names = classes.split()
        pack = next((PACKS[name] for name in names if name in PACKS), None)
        found |= {(pack, name.removeprefix("fa-")) for name in names if pack and name.startswith("fa-") and name not in SIZES}
    return found


def sheet(wanted: set[tuple[str, str]], known: dict[tuple[str, str], tuple[int, int, str]]) -> str:
    rules = []
    for pack, name in sorted(wanted & known.keys()):
        width, height, path = known[pack, name]
        drawing = quote(f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'><path d='{path}'/></svg>", safe=" =:/'")
        rules.append(f'.fa-{name}::before {{ width: {width / height:.3g}em; --icon: url("data:image/svg+xml,{drawing}"); }}')
    return SHEET + "\n".join(rules) + "\n"


# --- pictures ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=None)
def measure(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture in pixels; None where there is none."""
    if not path.is_file():
        return None
    if path.suffix == ".svg":
        head = path.read_text(encoding="utf-8")[:2000]
        box = re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', head)
        return (round(float(box[1])), round(float(box[2]))) if box else None
    with Image.open(path) as picture:
        return picture.size


def steady(html: str, folder: Path) -> str:
    """The page with the size of each of its own pictures; those after the first of the article are loaded when they are near, and wide
    ones stand in a box that scrolls on a phone."""
    seen = 0

    def sized(found: re.Match) -> str:
        nonlocal seen
        size = measure((folder / unquote(found[1])).resolve())
        if size is None:
            return found[0]
        seen += "_images/" in found[1] and size[1] > 100
        late = ' loading="lazy"' if seen > 1 and "loading=" not in found[0] else ""
        image = found[0].replace("<img ", f'<img width="{size[0]}" height="{size[1]}"{late} ', 1)
        return f'<span class="wide-picture">{image}</span>' if "_images/" in found[1] and size[0] > WIDE and "law-figure" not in image else image

    return PICTURE.sub(sized, html)


def reduce(path: Path) -> None:
    """Stores a large PNG without transparency with 256 colours, where that makes it smaller: figures have few."""
    before = path.read_bytes()
    if len(before) < LARGE:
        return
    with Image.open(io.BytesIO(before)) as picture:
        if picture.mode not in ("RGB", "RGBA") or (picture.mode == "RGBA" and picture.getextrema()[3][0] < 255):
            return
        after = io.BytesIO()
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(after, "PNG", optimize=True)
    if after.tell() < len(before):
        path.write_bytes(after.getvalue())


def room(html: str) -> str:
    """The page with the room that formulas will take: the height of one in its own line, of each row with what makes it higher and the
    margins, rather more than less, as it is kept for good; the width of one within a line."""

    def kept(found: re.Match) -> str:
        height = 2.5 + sum(ROW + sum(more for pattern, more in HIGHER if pattern.search(row)) for row in re.split(r"\\\\", found[3]))
        return f'<div class="{found[1]}"{found[2]} style="--room: {height:.1f}rem">{found[3]}</div>'

    def wide(found: re.Match) -> str:
        return found[0].replace(">", f' style="--wide: {width(unescape(found[1])):.2f}em">', 1)

    return INLINE.sub(wide, FORMULA.sub(kept, html))


# --- Sphinx ------------------------------------------------------------------------------------------------------


def theme_script() -> Path:
    import pydata_sphinx_theme

    return Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static" / "scripts" / "fontawesome.js"


def lighten(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.name != "html":
        return
    out, script = Path(app.outdir), theme_script()
    measure.cache_clear()
    for path in (out / "_images").glob("*.png"):
        reduce(path)
    pages = {path: path.read_text(encoding="utf-8") for path in out.rglob("*.html") if "_static" not in path.parts}
    for path, text in pages.items():
        after = room(steady(text, path.parent))
        after = after.replace(SCHEME, KNOWN_SCHEME)
        if AT_ITS_PLACE not in after:
            after = after.replace(MAIN, AT_ITS_PLACE + MAIN, 1)
        if script.is_file():
            after = SCRIPT.sub("", after)
        if after != text:
            path.write_text(after, encoding="utf-8")
    if not script.is_file():  # another version of the theme, which has no such script
        return
    known = icons(script)
    (out / "_static" / "icons.css").write_text(sheet(set().union(*map(used, pages.values())), known), encoding="utf-8")
    style = out / "_static" / "styles" / "pydata-sphinx-theme.css"
    if style.is_file():
        style.write_text(OF_THE_FONT.sub("", style.read_text(encoding="utf-8")), encoding="utf-8")
    for path in (out / "_static" / "scripts").glob("fontawesome.js*"):
        path.unlink()
    shutil.rmtree(out / "_static" / "vendor" / "fontawesome", ignore_errors=True)
    for path in (out / "_static").rglob("*.map"):
        path.unlink()


def load(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    if theme_script().is_file():
        app.add_css_file("icons.css")


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", load)
    app.connect("build-finished", lighten, priority=800)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
