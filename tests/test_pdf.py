"""The book as one PDF: every page of the contents in order, bookmarks by part, links that stay inside."""

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml

pypdf = pytest.importorskip("pypdf")
ROOT = Path(__file__).resolve().parent.parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


load("browser")
pdf = load("pdf")
TEXTS = {
    "a": "<h1>First page</h1><p><a href='b.html#end'>to the second</a> <a href='data.csv'>data</a> <a href='https://example.org/x'>outside</a></p>",
    "b": "<h1>Second page</h1><p><a href='a.html'>back</a></p><p style='break-before: page' id='end'>End.</p>",
}


def test_the_contents_are_those_of_the_book_in_their_order():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = pdf.contents(ROOT / "_toc.yml")
    assert parts[0] == ("", [toc["root"]]) and [part for part, _ in parts[1:]] == [part["caption"] for part in toc["parts"]]
    assert sum(len(pages) for _, pages in parts) == 1 + sum(len(part["chapters"]) for part in toc["parts"])


@pytest.fixture(scope="module")
def made(browser, tmp_path_factory):
    html = tmp_path_factory.mktemp("html")
    (html / "data.csv").write_text("x\n1\n")
    for name, body in TEXTS.items():
        (html / f"{name}.html").write_text(f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{name}</title></head><body>{body}</body></html>")
    context = browser.new_context()
    view = context.new_page()
    pages = {name: (name, *pdf.printed(view, html / f"{name}.html")) for name in TEXTS}
    context.close()
    writer = pdf.join([("", [pages["a"]]), ("A part", [pages["b"]])], html)
    writer.write(html / "book.pdf")
    return pypdf.PdfReader(html / "book.pdf")


def test_bookmarks_lead_to_parts_and_pages(made):
    first, part, inner = made.outline
    assert (first.title, part.title, [item.title for item in inner]) == ("First page", "A part", ["Second page"])
    assert [made.get_destination_page_number(item) for item in (first, part, inner[0])] == [0, 1, 1]
    assert len(made.pages) == 3 and made.metadata.title == pdf.TITLE
    assert "First page" in made.pages[0].extract_text() and "End." in made.pages[2].extract_text()


def test_links_between_pages_stay_inside_and_none_leads_to_this_disk(made):
    found = []
    for number, page in enumerate(made.pages):
        for annotation in page.get("/Annots") or ():
            action = annotation.get_object()["/A"]
            found.append((number, str(action["/URI"]) if "/URI" in action else made.get_page_number(action["/D"][0].get_object())))
    assert (0, 1) in found and (1, 0) in found and (0, "https://example.org/x") in found
    assert not [where for _, where in found if "file:" in str(where)] and len(found) == 3
