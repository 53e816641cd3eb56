"""Definitions where a term is first said: which words get one, and how it is shown by pointer, keyboard and touch."""

import html
import importlib.util
import re
from pathlib import Path

import pytest
from docutils import nodes
from docutils.utils import new_document

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "book" / "_static"
spec = importlib.util.spec_from_file_location("terms", ROOT / "book" / "_ext" / "terms.py")
terms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(terms)

KNOWN = {"power law": ("term-power-law", "y = c x."), "law": ("term-law", "A fitted form."), "nat": ("term-nat", "A unit."),
         "LSTM": ("term-LSTM", "A recurrent network."), "epoch": ("term-epoch", "One pass.")}  # fmt: skip


def said(*paragraphs: nodes.Node) -> list[str]:
    """The words that are explained, in order."""
    document = new_document("page")
    document += paragraphs
    terms.mention(document, dict(KNOWN), "../book/glossary.html")
    return [re.sub("<[^>]+>", "", raw.astext()) for raw in document.findall(nodes.raw)]


def paragraph(*parts) -> nodes.paragraph:
    return nodes.paragraph("", "", *(nodes.Text(part) if isinstance(part, str) else part for part in parts))


def test_the_first_mention_of_each_term_and_its_plural_is_explained():
    assert said(paragraph("Two nats after one epoch; a nat more after two epochs. "), paragraph("The LSTM."), paragraph("An LSTM.")) == ["nats", "epoch", "LSTM"]


def test_the_longest_term_wins_and_parts_of_words_are_left_alone():
    assert said(paragraph("No natural in-law here, a power law there, then a law.")) == ["power law", "law"]
    assert said(paragraph("An lstm is no term, Epoch is.")) == ["Epoch"]


def test_code_links_headings_and_captions_are_left_alone():
    kept = [paragraph(nodes.literal("", "epoch")), paragraph(nodes.reference("", "epoch", refuri="x")), nodes.title("", "Epoch"), nodes.caption("", "An epoch."),
            nodes.literal_block("epoch", "epoch"), paragraph(nodes.strong("", "epoch"))]  # fmt: skip
    assert said(*kept) == []


def test_the_words_around_a_term_stay():
    document = new_document("page")
    document += paragraph("One epoch, one nat.")
    terms.mention(document, dict(KNOWN), "g.html")
    assert "".join(re.sub("<[^>]+>", "", node.astext()) for node in document[0].children) == "One epoch, one nat."


def test_a_definition_is_its_first_sentences_without_markup():
    text = terms.first_sentences(nodes.definition("", paragraph("The average of ", nodes.math("", r"-\ln p"), ". It is the loss. A third sentence.")))
    assert text == "The average of −ln p. It is the loss."
    assert terms.plain_math(r"L_\infty") == "L_∞" and terms.plain_math(r"d_{\text{model}}") == "d_model"


def test_terms_that_are_common_words_are_terms():
    glossary = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    assert not [name for name in terms.COMMON if not re.search(rf"^{name}$", glossary, re.M)]


@pytest.fixture
def page(browser, tmp_path):
    link = terms.explained("loss", "loss", "glossary.html#term-loss", 'Nats & "tokens".').astext()
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Terms</title><link rel='stylesheet' href='{(STATIC / 'custom.css').as_uri()}'>"
                    f"<script src='{(STATIC / 'terms.js').as_uri()}' defer></script></head><body><main style='padding: 9rem 2rem'><h1>Terms</h1>"
                    f"<p>The {link} falls. <a href='#end'>On</a></p></main></body></html>")
    context = browser.new_context(viewport={"width": 390, "height": 700})
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert wrong == []
    context.close()


def test_hover_shows_and_leaving_hides(page):
    tip, link = page.locator("#term-definition"), page.get_by_role("link", name="loss")
    assert tip.count() == 0
    link.hover()
    assert tip.inner_text() == 'loss: Nats & "tokens".' and link.get_attribute("aria-describedby") == "term-definition"
    box, word = tip.bounding_box(), link.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= word["y"]
    tip.hover()
    page.wait_for_timeout(300)
    assert tip.is_visible()
    page.mouse.move(5, 5)
    tip.wait_for(state="hidden")
    assert link.get_attribute("aria-describedby") is None


def test_focus_shows_and_escape_hides(page):
    tip = page.locator("#term-definition")
    page.keyboard.press("Tab")
    assert tip.is_visible() and page.evaluate("document.activeElement.textContent") == "loss"
    page.keyboard.press("Escape")
    assert tip.is_hidden() and page.evaluate("document.activeElement.textContent") == "loss"
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert tip.is_visible()


def test_without_the_script_it_is_a_link_to_the_glossary():
    link = terms.explained("nat", "nats", "../book/glossary.html#term-nat", "A <unit>.").astext()
    assert 'href="../book/glossary.html#term-nat"' in link and html.unescape(re.search('data-definition="([^"]*)"', link)[1]) == "nat: A <unit>."
