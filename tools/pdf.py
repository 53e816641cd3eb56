"""Prints the built website to one PDF, a bookmark for each part and each page.

    python tools/pdf.py [--html FOLDER] [--out FILE] [--pages book/index notebooks/size]

FOLDER: the built website; _build/html if left out. FILE: _build/scaling-laws-measured.pdf. Chromium or Google Chrome prints each page of
_toc.yml; links between pages lead to the page in the PDF, all others stay as they are.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from browser import PATIENCE, launched, opened
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, Fit, NameObject

ROOT = Path(__file__).resolve().parent.parent
TITLE = "Scaling Laws, Measured"
LOOK = """
html { font-size: 14px !important; }
details.more:not([open]) > summary { list-style: none; }
"""


def contents(toc: Path) -> list[tuple[str, list[str]]]:
    """The parts of the book with their pages; the front page stands alone before them."""
    known = yaml.safe_load(toc.read_text(encoding="utf-8"))
    parts = [(part["caption"], [chapter["file"] for chapter in part["chapters"]]) for part in known["parts"]]
    return [("", [known["root"]]), *parts]


def printed(view, page: Path) -> tuple[str, bytes]:
    """The title of a page and its PDF."""
    opened(view, page.as_uri())
    view.add_style_tag(content=LOOK)
    view.evaluate("document.documentElement.dataset.theme = 'light'")
    view.evaluate("document.querySelectorAll('img[loading=lazy]').forEach((image) => { image.loading = 'eager'; })")
    view.evaluate("Promise.all([...document.images].map((image) => image.decode().catch(() => null)))")
    heading = view.locator(".bd-article h1")
    title = re.sub(r"\s*#$", "", (heading if heading.count() else view.locator("h1")).first.inner_text()).strip()
    footer = f'<div style="font-size: 7px; width: 100%; text-align: center; color: #666">{TITLE} · {title.replace("<", "&lt;")}</div>'
    view.set_default_timeout(PATIENCE)
    return title, view.pdf(format="A4", print_background=True, display_header_footer=True, header_template="<span></span>",
                           footer_template=footer, margin={"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"})  # fmt: skip


def target(address: str, html: Path) -> str | None:
    """The page of the website that a link leads to, or None for another."""
    parts = urlsplit(address)
    if parts.scheme != "file":
        return None
    try:
        return Path(unquote(parts.path)).relative_to(html).with_suffix("").as_posix()
    except ValueError:
        return None


def link(writer: PdfWriter, starts: dict[str, int], html: Path) -> None:
    """Has every link to a page of the website lead to where that page begins in the PDF; one to a page or file that is not in it goes."""
    for page in writer.pages:
        kept = ArrayObject()
        for annotation in page.get("/Annots") or ():
            action = annotation.get_object().get("/A")
            address = action.get_object().get("/URI", "") if action is not None else ""
            name = target(str(address), html) if address else None
            if name in starts:
                place = ArrayObject([writer.pages[starts[name]].indirect_reference, NameObject("/Fit")])
                annotation.get_object()[NameObject("/A")] = DictionaryObject({NameObject("/S"): NameObject("/GoTo"), NameObject("/D"): place})
            elif name is not None or str(address).startswith("file:"):
                continue
            kept.append(annotation)
        if "/Annots" in page:
            page[NameObject("/Annots")] = kept


def join(parts: list[tuple[str, list[tuple[str, str, bytes]]]], html: Path) -> PdfWriter:
    """One document of (part, [(page, title, PDF)]), with bookmarks."""
    writer, starts = PdfWriter(), {}
    for part, pages in parts:
        parent = None
        for name, title, content in pages:
            starts[name] = len(writer.pages)
            writer.append(io.BytesIO(content), import_outline=False)
            if part and parent is None:
                parent = writer.add_outline_item(part, starts[name], fit=Fit.fit(), is_open=False)
            writer.add_outline_item(title, starts[name], parent=parent, fit=Fit.fit())
    link(writer, starts, html)
    writer.add_metadata({"/Title": TITLE, "/Author": "The minitransformer contributors"})
    writer.page_mode = "/UseOutlines"
    writer.compress_identical_objects()
    return writer


def make(html: Path, out: Path, only: list[str] | None = None) -> int:
    """Writes the PDF of the website, or of some of its pages; returns its number of pages."""
    parts = []
    with launched() as browser:
        view = browser.new_context(viewport={"width": 1000, "height": 1400}).new_page()
        for part, pages in contents(ROOT / "_toc.yml"):
            chosen = [page for page in pages if not only or page in only]
            if missing := [page for page in chosen if not (html / f"{page}.html").is_file()]:
                sys.exit(f"There is no page {missing[0]} in {html}: build the website again with python tools/site.py.")
            if chosen:
                parts.append((part, [(page, *printed(view, html / f"{page}.html")) for page in chosen]))
    writer = join(parts, html)
    out.parent.mkdir(parents=True, exist_ok=True)
    writer.write(out)
    return len(PdfReader(out).pages)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the built website to one PDF.")
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="the built website")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "scaling-laws-measured.pdf", help="where the PDF goes")
    parser.add_argument("--pages", nargs="+", metavar="PAGE", help="only these, such as book/index")
    arguments = parser.parse_args()
    html = arguments.html.resolve()
    if not html.is_dir():
        sys.exit(f"There is no website in {html}: python tools/site.py builds it.")
    pages = make(html, arguments.out.resolve(), arguments.pages)
    print(f"{arguments.out}: {pages} pages, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
